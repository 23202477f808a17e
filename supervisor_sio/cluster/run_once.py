"""``run_once``: functions that one worker of the cluster runs at a time, and their leases.

The worker decides when they run, see :mod:`supervisor_sio.worker.run_once`. In a process that is
not a worker, and has no cluster, they run as soon as there are clients.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from functools import partial
from typing import Any, Callable, ClassVar, Coroutine, NamedTuple, Optional, TypeVar, Union

from ..common.limits import RUN_ONCE_NAME, RUN_ONCE_TASKS
from ..common.run_once import is_name
from . import sessions


class _Lease:
    """The right of this process, and no other of the cluster, to run a task; passed to the
    function.

    :ivar name: of the task.
    :ivar number: the fencing number: any later run of the task, in any process, has a larger one. A
        store can refuse writes with a smaller number than it has seen.
    """

    def __init__(self, name: str, number: int, until: float, event: Any) -> None:
        self.name = name
        self.number = number
        self._until = until
        self._event = event
        self._ends = False

    @property
    def held(self) -> bool:
        """Whether the function may go on: false when its worker ends, or the lease has expired."""
        return not self._ends and self.in_time()

    def in_time(self) -> bool:
        """Whether no other process can run the task; it may still be true while this worker
        ends."""
        return time.monotonic() < self._until

    # --- for the worker, in its loop ------------------------------------------------------

    @property
    def until(self) -> float:
        """When the lease expires unless renewed, in seconds of the host's monotonic clock."""
        return self._until

    def renew(self, until: float) -> None:
        self._until = until

    def end(self) -> None:
        """Tell the function to end."""
        if not self._ends:
            self._ends = True
            self._event.set()

    def lose(self) -> None:
        """The lease is over: another process may run the task."""
        self._until = -math.inf
        self.end()

    def abandon(self) -> None:
        """In a forked child: the task and the waiters of the event are the parent's.

        The function is not told to end there, as the child works for its parent.
        """
        self._until, self._ends = math.inf, True


class Lease(_Lease):
    """What a function of :meth:`.ZmqManager.run_once` may take as its argument."""

    def wait(self, seconds: float) -> bool:
        """Wait for ``seconds``, or until the function is to end.

        :return: :attr:`held`.
        """
        if self.held:
            self._event.wait(seconds)
        return self.held


class AsyncLease(_Lease):
    """What a coroutine function of :meth:`.AsyncZmqManager.run_once` may take as its argument."""

    async def wait(self, seconds: float) -> bool:
        """Wait for ``seconds``, or until the function is to end.

        :return: :attr:`held`.
        """
        if self.held:
            try:
                await asyncio.wait_for(self._event.wait(), seconds)
            except asyncio.TimeoutError:
                pass
        return self.held


#: For :class:`.ZmqManager`. It returns ``None``, which excludes coroutine functions.
PlainFunction = TypeVar("PlainFunction", bound=Union[Callable[[Lease], None], Callable[[], None]])

#: For :class:`.AsyncZmqManager`.
CoroutineFunction = TypeVar(
    "CoroutineFunction",
    bound=Union[
        Callable[[AsyncLease], Coroutine[Any, Any, object]],
        Callable[[], Coroutine[Any, Any, object]],
    ],
)


class Task(NamedTuple):
    """A function, under the name by which the whole cluster knows it."""

    name: str
    function: Callable[..., Any]
    #: Whether the function takes its lease.
    takes_lease: bool
    #: Makes a lease of the manager's kind, from a number and the time of its expiry.
    lease: Callable[[int, float], Union[Lease, AsyncLease]]

    def call(self, lease: Union[Lease, AsyncLease]) -> Any:
        """Call the function; the result of a coroutine function is the coroutine."""
        return self.function(lease) if self.takes_lease else self.function()


class RunOnce:
    """The part of a manager that registers such functions."""

    # From the manager and its other parts.
    server: Any
    write_only: bool
    _create_event: Callable[[], Any]

    #: The class of the leases.
    LEASE: ClassVar[type[Union[Lease, AsyncLease]]] = Lease

    def __init__(self) -> None:
        self._tasks_once: dict[str, Task] = {}
        #: Gets each task; set by the worker when it starts.
        self._add_task: Optional[Callable[[Task], None]] = None

    def run_once(self, name: str, function: Any = None) -> Any:
        """Let one worker of the cluster run a function at a time: another one when that worker
        ends.

        Can be used as a decorator. The function is called with a :class:`Lease`, or without an
        argument if it takes none, in a greenlet, task or thread of its own, as soon as the worker
        is ready. It runs until its worker is stopped, killed, or hangs, and is called again in
        is ready. It runs until its worker is stopped, killed, or hangs; then another worker calls
        it. When it returns it is done: no worker calls it again as long as a worker lives that
        knows so. When it raises it is called again after a while, in another worker

        To end it, a greenlet is killed, and a coroutine cancelled. A thread cannot be ended: its
        function is to look at :attr:`Lease.held`, or to wait by :meth:`Lease.wait`.

        :param name: letters, digits and ``._:-``; it means the same in all workers.
        :param function: with :class:`AsyncZmqManager` a coroutine function.
        :raises TypeError: when ``function`` is not a function of that kind.
        :raises ValueError: when ``name`` cannot be a name, for a second function under it, and
            in a write-only manager.
        """

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            self._register(name, function)
            return function

        self._check_name(name)
        return register if function is None else register(function)

    def _check_name(self, name: object) -> None:
        if not is_name(name):
            raise ValueError(
                f"run_once({name!r:.80}): a name has 1 to {RUN_ONCE_NAME} letters, digits and "
                "._:- of ASCII"
            )
        if self.write_only:
            raise ValueError(
                f"run_once({name!r}) with write_only=True: such a manager runs nothing"
            )
        if name not in self._tasks_once and len(self._tasks_once) >= RUN_ONCE_TASKS:
            raise ValueError(f"run_once({name!r}): there are {RUN_ONCE_TASKS} already, the limit")

    def _register(self, name: str, function: Callable[..., Any]) -> None:
        takes_lease = _takes_lease(name, function)
        is_async = inspect.iscoroutinefunction(function)
        if is_async is not (self.LEASE is AsyncLease):
            kind = "a plain function" if is_async else "a coroutine function (async def)"
            raise TypeError(
                f"run_once({name!r}): {type(self).__name__} takes {kind}, not {_describe(function)}"
            )
        known = self._tasks_once.get(name)
        if known is not None:
            if known.function == function:
                return
            raise ValueError(
                f"run_once({name!r}) has a function already, {_describe(known.function)}: give "
                f"{_describe(function)} another name"
            )
        task = Task(name, function, takes_lease, partial(self._make_lease, name))
        self._tasks_once[name] = task
        if self._add_task is not None:
            self._add_task(task)

    def _make_lease(self, name: str, number: int, until: float) -> Union[Lease, AsyncLease]:
        return self.LEASE(name, number, until, self._create_event())

    def run_tasks_by(self, add: Callable[[Task], None]) -> None:
        """:param add: gets each task, now and later; in any thread."""
        self._add_task = add
        for task in list(self._tasks_once.values()):
            add(task)

    def _run_tasks_here(self) -> None:
        """Run them here when the process has no worker, and no cluster."""
        if not sessions.has_worker():
            self.run_tasks_by(self._run_task)

    def _run_task(self, task: Task) -> None:
        number = int(time.time() * 1000)
        self.server.start_background_task(task.call, task.lease(number, math.inf))


def _takes_lease(name: str, function: object) -> bool:
    """:raises TypeError: when it can be called neither with a lease nor without."""
    if not callable(function):
        raise TypeError(f"run_once({name!r}): {function!r:.80} is not a function")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a function written in C
        return False
    for arguments in ((None,), ()):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return bool(arguments)
    raise TypeError(
        f"run_once({name!r}): {_describe(function)} is called with a lease, or without an "
        "argument, and takes neither"
    )


def _describe(function: Any) -> str:
    module, name = (getattr(function, key, "") for key in ("__module__", "__qualname__"))
    return f"{module}.{name}" if module and name else f"{function!r:.80}"
