"""The client manager of a ``socketio.AsyncServer``."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Callable, Coroutine, Optional, Union, overload

from ..common.blocking import run_blocking, settle
from ..common.rundir import RunDir
from ..relay import native
from ..relay.looped import running_loop
from ..relay.publisher import Publisher
from ..relay.subscriber import Subscriber
from .bases import AsyncManager
from .core import Core
from .relaying import finish
from .rooms import Room
from .run_once import AsyncLease, CoroutineFunction
from .sessions import ANOTHER_LOOP


class AsyncZmqManager(Core, AsyncManager):
    """ZeroMQ based client manager for asyncio workers under one supervisord.

    To use it, initialize the :class:`socketio.AsyncServer` instance as follows::

        server = socketio.AsyncServer(async_mode='asgi', client_manager=AsyncZmqManager())

    It is to an ``AsyncServer`` what :class:`ZmqManager` is to a ``Server``: the
    same operations with the same parameters, as coroutines; both may be in one
    cluster. Where clients are served they run in the loop that serves, and
    raise :exc:`RuntimeError` in another: from a thread, use
    ``asyncio.run_coroutine_threadsafe(manager.emit(...), loop)``.

    Where no clients are served it emits and asks from any loop, and blocks none:
    the first emit or question awaits the relay. What was sent is confirmed at the
    end of the process, also when its loop has ended before, or in
    ``await manager.close()``.

    :param url: ``zmq+ipc://`` and the run directory of the cluster. The
                default is the one of the supervisord that started this
                process, from ``SUPERVISOR_SIO_RUN_DIR``.
    :param channel: The name of the cluster on the relay. The default is the
                    ``channel`` of ``[rpcinterface:sio]``.
    :param write_only: If set to ``True``, only initialize to emit events. Any
                       instance can be used independently of the server to emit
                       to clients from an external process; one that is not
                       write-only asks them and the workers as well.
    :param logger: a custom logger to log it. If not given, the server logger
                   is used.
    :param json: An alternative JSON module to use for encoding packets, as
                 :class:`ZmqManager` has it.
    :param max_attachments: Most binary attachments that an event of a client,
                            or its acknowledgement, may have. The default is 10.
    :param connect_timeout: For how many seconds a client may stay that is in no
                            namespace yet, as :class:`ZmqManager` has it.
    :param takeover: Whether clients stay connected when their worker is
                     restarted or stopped, as :class:`ZmqManager` has it.
    :param recovery: For how many seconds a client that has lost its connection
                     may come back to its session, as :class:`ZmqManager` has
                     it; so ``recovery_messages`` and ``recovery_maxbytes``.
    :raises ValueError: when ``url`` is not of this form, when a write-only
                        manager has neither ``url`` nor a supervisord, or when
                        ``connect_timeout``, ``takeover`` or an option of
                        recovery has a value that is not allowed.
    """

    LEASE = AsyncLease

    #: The loop that serves the clients.
    _loop: Optional[asyncio.AbstractEventLoop] = None
    #: The parent's loop, in a child of a fork.
    _loop_of_parent: Optional[asyncio.AbstractEventLoop] = None
    #: Connects to the relay, for every emit that waits meanwhile.
    _join_task: Optional[asyncio.Task[None]] = None
    #: References that keep running tasks alive.
    _tasks: set[asyncio.Task[None]]

    @overload
    def run_once(
        self, name: str, function: None = None
    ) -> Callable[[CoroutineFunction], CoroutineFunction]: ...

    @overload
    def run_once(self, name: str, function: CoroutineFunction) -> CoroutineFunction: ...

    def run_once(self, name: str, function: Any = None) -> Any:
        return super().run_once(name, function)

    def set_server(self, server: Any) -> None:
        """:raises TypeError: for a ``socketio.Server``."""
        if not server.is_asyncio_based():
            raise TypeError(
                "AsyncZmqManager is for a socketio.AsyncServer: write "
                "socketio.Server(client_manager=ZmqManager())"
            )
        self._tasks = set()
        super().set_server(server)

    def initialize(self) -> None:
        """Start to receive from the other workers; called in the loop that serves the clients.

        :raises RuntimeError: for a second manager on the same channel in one process.
        """
        self._loop = asyncio.get_running_loop()
        super().initialize()

    async def emit(
        self,
        event: str,
        data: Any,
        namespace: Optional[str] = None,
        room: Room = None,
        skip_sid: Union[str, list[str], None] = None,
        callback: Optional[Callable[..., Any]] = None,
        to: Room = None,
        except_room: Room = None,
        local: bool = False,
        volatile: bool = False,
        ignore_queue: bool = False,
    ) -> None:
        """Emit a message to a single client, a room, or all the clients
        connected to the namespace, whichever workers they are connected to.

        The parameters are the same as in :meth:`socketio.AsyncServer.emit`, and
        three more; for these await ``sio.manager.emit()``. When several clients
        answer a ``callback``, a function or a coroutine function, the first
        answer counts; see :meth:`emit_with_acks` for all of them.

        :param except_room: a room or a list of rooms whose members do not get it.
        :param local: only to clients of this process.
        :param volatile: not to clients that have yet to take what they were sent before, and
                         never sent again to a worker that missed it. Without ``callback``.
        :param ignore_queue: python-socketio's name for ``local``.
        :raises TypeError: when ``data`` cannot be encoded, or a room is not named by a
                           ``str`` or an ``int``; nothing is sent then.
        :raises ValueError: when it has NaN or Infinity, which are not JSON; likewise.
        :raises MessageTooLong: when it is longer than ``message_maxbytes``.
        :raises RelayUnreachable: in a process that serves no clients, when no relay answers.
        :raises RuntimeError: in another loop than the one that serves the clients; with a
                              ``callback``, in a process that serves no clients.
        """
        local = local or ignore_queue
        if self._publisher is None or self._loop is not running_loop():
            await self._begin(not local)
        sent = self._emit(
            event, data, namespace, to or room, skip_sid, callback, except_room, local, volatile
        )
        if sent is not None:
            await sent

    async def pre_connect(self, eio_sid: str, namespace: str) -> Optional[str]:
        return self._pre_connect(eio_sid, namespace)

    async def connect(self, sid: str, namespace: str) -> Optional[str]:
        connected, sent = self._connect(sid, namespace)
        for one in sent:
            await one
        return connected

    async def trigger_callback(self, sid: str, id: Any, data: Any) -> None:
        await settle(self._acknowledged(sid, id, data))

    async def close(self) -> None:
        """Send what is left and disconnect from the relay; a later emit connects again.

        A write-only manager does so at the end of its process by itself.
        """
        self._check_loop()
        if self._may_suspend():
            await asyncio.to_thread(finish, *self._take_apart())
        else:
            self.finish()

    # --- waiting ----------------------------------------------------------------

    async def _begin(self, publishes: bool) -> None:
        self._check_loop()
        if self._publisher is not None or self._run_dir is None or not publishes:
            return
        if self._serves or not self._may_suspend():
            self._join_relay()  # does not wait where clients are served
            return
        loop, task = asyncio.get_running_loop(), self._join_task
        if task is None or task.done() or task.get_loop() is not loop:
            task = self._join_task = loop.create_task(self._join_in_thread())
        await asyncio.shield(task)

    async def _join_in_thread(self) -> None:
        await asyncio.to_thread(self._join_relay)

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def _create_event(self) -> Any:
        if not self._outside:
            return asyncio.Event()
        return _OutsideEvent() if self._may_suspend() else native.Event()

    async def _wait_for(self, event: Any, timeout: float) -> None:
        if isinstance(event, native.Event):
            event.wait(timeout)
            return
        try:
            await asyncio.wait_for(event.wait(), timeout)
        except asyncio.TimeoutError:
            pass

    def _spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        """Run a coroutine function in a task of its own; its exceptions are logged."""
        task = asyncio.get_running_loop().create_task(self._run(function, *args))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        try:
            await function(*args)
        except Exception:
            self._get_logger().exception("%s", function.__name__)

    def _session(self, sid: str, namespace: str) -> dict[str, Any]:
        # get_session() is a coroutine function, but never suspends.
        session: dict[str, Any] = run_blocking(self.server.get_session(sid, namespace))
        return session

    # --- callers ----------------------------------------------------------------

    def _connecting(self) -> Any:
        """The task that may be running a connect handler."""
        return asyncio.current_task()

    def _may_suspend(self) -> bool:
        """False in a child that a coroutine has forked: the loop there is its parent's."""
        return running_loop() not in (None, self._loop_of_parent)

    def _check_loop(self) -> None:
        """:raises RuntimeError: in another loop than the one that serves the clients."""
        loop = self._loop
        if loop is not None and loop is not running_loop() and not loop.is_closed():
            raise RuntimeError(ANOTHER_LOOP)

    def _check_caller(self, what: str, waits: bool) -> None:
        self._check_loop()

    def _start_receiving(self, publisher: Publisher, run_dir: RunDir) -> Subscriber:
        return self._receive_in_loop(publisher, run_dir)

    def _forget_parent(self) -> None:
        super()._forget_parent()
        self._loop = self._join_task = None
        self._loop_of_parent = running_loop()  # from Python 3.12 on there is none


class _OutsideEvent(asyncio.Event):
    """An event that is set in another thread than the loop's."""

    def __init__(self) -> None:
        super().__init__()
        self._in = asyncio.get_running_loop()

    def set(self) -> None:
        with suppress(RuntimeError):  # the loop is closed, so nothing waits any more
            self._in.call_soon_threadsafe(super().set)
