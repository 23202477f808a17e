"""The client manager of a ``socketio.Server``."""

# mypy: disable-error-code="override"
# (A method that blocks has the name of the coroutine function that it runs.)

from __future__ import annotations

from typing import Any, Callable, Optional, Union, overload

from greenlet import getcurrent

from ..common.blocking import blocking_method, run_blocking
from ..common.rundir import RunDir
from ..relay import native
from ..relay.green import GreenSubscriber
from ..relay.looped import running_loop
from ..relay.publisher import MessageTooLong as MessageTooLong
from ..relay.publisher import Publisher
from ..relay.subscriber import Deaf, Subscriber
from .bases import Manager
from .core import Core
from .relaying import RelayUnreachable as RelayUnreachable
from .rooms import Room
from .run_once import PlainFunction


class ZmqManager(Core, Manager):
    """ZeroMQ based client manager for workers under one supervisord.

    To use it, initialize the :class:`socketio.Server` instance as follows::

        server = socketio.Server(async_mode='threading', client_manager=ZmqManager())

    Emits, acknowledgements, disconnects and room changes reach the clients of
    every worker, through the relay that ``[eventlistener:sio]`` runs: each
    client once, in the order of the worker that emits. Packets are encoded
    once, by that worker.

    Without a supervisord that has a ``[rpcinterface:sio]`` section (a laptop,
    a unit test) it manages the clients of its own process, like
    :class:`socketio.Manager`.

    In a process that serves no clients (a task of Celery, a cron job, a shell) it
    emits, and asks the workers and their clients: :meth:`call`,
    :meth:`emit_with_acks`, :meth:`fetch_sockets`, :meth:`server_side_call`. It
    connects at the first of these, and receives nothing but answers. Threads may
    share it; a child of a fork makes its own connection.

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
    :param json: An alternative JSON module to use for encoding packets. Custom
                 json modules must have ``dumps`` and ``loads`` functions that
                 are compatible with the standard library versions. This
                 setting is only used when ``write_only`` is set to ``True``.
                 Otherwise the JSON module configured in the server is used.
    :param max_attachments: Most binary attachments that an event of a client,
                            or its acknowledgement, may have. The default is 10,
                            as in Node's servers.
    :param connect_timeout: For how many seconds a client may stay that is in no
                            namespace yet, as Node's ``connectTimeout``. The
                            default is 45.
    :param takeover: Whether clients stay connected when their worker is
                     restarted or stopped: another one takes their sessions
                     over, see :meth:`on_takeover`. The default is ``False``.
    :param recovery: For how many seconds a client that has lost its connection
                     may come back to its session, to any worker of the host,
                     and gets what it has missed: Socket.IO's connection state
                     recovery, see :meth:`on_recovery`. Its ``disconnect``
                     handler is called when that time is over. The default is
                     0: never.
    :param recovery_messages: Most events that each worker keeps for that. The
                              default is 65,536.
    :param recovery_maxbytes: Most bytes of them. The default is 16 MiB.
    :raises ValueError: when ``url`` is not of this form, when a write-only
                        manager has neither ``url`` nor a supervisord, or when
                        ``connect_timeout``, ``takeover`` or an option of
                        recovery has a value that is not allowed.
    """

    @overload
    def run_once(
        self, name: str, function: None = None
    ) -> Callable[[PlainFunction], PlainFunction]: ...

    @overload
    def run_once(self, name: str, function: PlainFunction) -> PlainFunction: ...

    def run_once(self, name: str, function: Any = None) -> Any:
        return super().run_once(name, function)

    def set_server(self, server: Any) -> None:
        """:raises TypeError: for a ``socketio.AsyncServer``."""
        if server.is_asyncio_based():
            raise TypeError(
                "ZmqManager is for a socketio.Server: write "
                "socketio.AsyncServer(client_manager=AsyncZmqManager())"
            )
        super().set_server(server)

    def emit(
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

        The parameters are the same as in :meth:`socketio.Server.emit`, and three
        more; for these call ``sio.manager.emit()``. When several clients answer
        a ``callback``, the first answer counts; see :meth:`emit_with_acks` for
        all of them.

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
        :raises RuntimeError: with a ``callback``, in a process that serves no clients, or in
                              a thread in which its handlers do not run.
        """
        local = local or ignore_queue
        to = to or room
        if not self.takeover or self._is_in_loop():
            self._emit(event, data, namespace, to, skip_sid, callback, except_room, local, volatile)
            return
        with self._underway:  # another thread may just begin to pass clients on
            self._emit(event, data, namespace, to, skip_sid, callback, except_room, local, volatile)

    @blocking_method(Core.server_count)
    def server_count(self) -> None: ...

    @blocking_method(Core.call)
    def call(self) -> None: ...

    @blocking_method(Core.emit_with_acks)
    def emit_with_acks(self) -> None: ...

    @blocking_method(Core.fetch_sockets)
    def fetch_sockets(self) -> None: ...

    @blocking_method(Core.fetch_rooms)
    def fetch_rooms(self) -> None: ...

    @blocking_method(Core.sockets_join)
    def sockets_join(self) -> None: ...

    @blocking_method(Core.sockets_leave)
    def sockets_leave(self) -> None: ...

    @blocking_method(Core.disconnect_sockets)
    def disconnect_sockets(self) -> None: ...

    @blocking_method(Core.server_side_emit)
    def server_side_emit(self) -> None: ...

    @blocking_method(Core.server_side_call)
    def server_side_call(self) -> None: ...

    # What python-socketio calls.

    @blocking_method(Core.can_disconnect)
    def can_disconnect(self) -> None: ...

    @blocking_method(Core.enter_room)
    def enter_room(self) -> None: ...

    @blocking_method(Core.leave_room)
    def leave_room(self) -> None: ...

    @blocking_method(Core.close_room)
    def close_room(self) -> None: ...

    # python-socketio calls these for each client; they have nothing to wait for.

    def pre_connect(self, eio_sid: str, namespace: str) -> Optional[str]:
        return self._pre_connect(eio_sid, namespace)

    def connect(self, sid: str, namespace: str) -> Optional[str]:
        return self._connect(sid, namespace)[0]

    def disconnect(
        self, sid: str, namespace: Optional[str] = None, ignore_queue: bool = False
    ) -> None:
        if ignore_queue:  # the disconnect handlers have run
            self.basic_disconnect(sid, namespace or "/")
        else:
            run_blocking(Core.disconnect(self, sid, namespace))

    def trigger_callback(self, sid: str, id: Any, data: Any) -> None:
        self._acknowledged(sid, id, data)

    def close(self) -> None:
        """Send what is left and disconnect from the relay; a later emit connects again.

        A write-only manager does so at the end of its process by itself.
        """
        self.finish()

    # --- waiting ----------------------------------------------------------------

    async def _begin(self, publishes: bool) -> None:
        if publishes and self._run_dir is not None:
            self._join_relay()

    async def _sleep(self, seconds: float) -> None:
        self.server.sleep(seconds)

    def _create_event(self) -> Any:
        return native.Event() if self._outside else self.server.eio.create_event()

    async def _wait_for(self, event: Any, timeout: float) -> None:
        event.wait(timeout)

    def _spawn(self, function: Callable[..., Any], *args: Any) -> None:
        """Run a coroutine function in a background task, where it may wait."""
        self.server.start_background_task(_run, function, *args)

    def _session(self, sid: str, namespace: str) -> dict[str, Any]:
        session: dict[str, Any] = self.server.get_session(sid, namespace)
        return session

    # --- callers ----------------------------------------------------------------

    def _connecting(self) -> Any:
        """The greenlet or thread that may be running a connect handler."""
        return getcurrent()

    def _check_caller(self, what: str, waits: bool) -> None:
        """:raises RuntimeError: in a thread that would not get the answer."""
        if self._in_another_thread():
            raise RuntimeError(
                f"{what} work only in the thread that serves the clients; "
                "emit() works in any thread"
            )
        outlet = self._outlet
        if waits and outlet is not None and outlet.concurrent and outlet.threads is not None:
            if outlet.threads.here:
                raise RuntimeError(
                    f"{what} would wait for what this thread has to receive: call them in a "
                    "handler, or in a thread of their own"
                )

    def _start_receiving(self, publisher: Publisher, run_dir: RunDir) -> Subscriber:
        if self.server.eio.async_mode != "eventlet" and running_loop() is not None:
            return self._receive_in_loop(publisher, run_dir)
        subscriber = GreenSubscriber(
            publisher,
            run_dir,
            lives=self.lives,
            living=self._living_senders,
            behind=self._clients_are_behind,
        )

        def hear() -> None:
            try:
                subscriber.run(self._receive)
            except Deaf as error:
                self._deaf(error)

        self.server.start_background_task(hear)
        return subscriber


def _run(function: Callable[..., Any], *args: Any) -> None:
    run_blocking(function(*args))
