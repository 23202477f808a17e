"""What the worker needs of a runtime: a loop, tasks that may wait, a clock, and descriptors.

All methods of the engine, and of connections, are called in the loop of the runtime, where
nothing may wait. What waits is a coroutine that awaits :meth:`Runtime.sleep`,
:meth:`Event.wait`, or another such coroutine. On asyncio and with threads it is a task of the
loop. On eventlet it blocks its greenlet, see :mod:`supervisor_sio.common.blocking`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Coroutine, Iterable, Optional, Protocol, TypeVar

from ..cluster.sessions import Outlet
from ..cluster.sessions import Threads as Threads
from ..engine.deadlines import Deadlines
from ..engine.engine import Engine
from ..engine.http import Head
from .access import AccessLog
from .event_figures import EventFigures

if TYPE_CHECKING:
    import logging

    from .connection import Connection
    from .output import Writes

T = TypeVar("T")


class Watch(Protocol):
    """Something that will be called, until it is cancelled."""

    def cancel(self) -> None:
        """Call it no more; may be called again."""


class DescriptorOwner(Protocol):
    """Who has a descriptor that is watched."""

    def descriptor_lost(self) -> None:
        """Somebody else has closed it, and its number is that of another file now: it must not
        be used any more, nor closed. Only eventlet notices that.
        """


class Event(Protocol):
    """Something that happens once, for those that wait for it in the loop."""

    def set(self) -> None:
        """It has happened; only in the thread of the loop. May be called again."""

    def is_set(self) -> bool: ...

    async def wait(self, timeout: Optional[float] = None) -> bool:
        """Return when it has happened; false when it has not within ``timeout`` seconds."""


class Runtime(Protocol):
    """A loop with the sessions of this process."""

    #: Of the sessions and connections of this process.
    deadlines: Deadlines
    #: Of the Socket.IO servers in this process, and the ways to their clients.
    engines: list[Engine]
    outlets: list[Outlet]
    #: The connections that are to be written to.
    writes: Writes
    #: The thread of the loop; ``None`` until there is a connection.
    threads: Optional[Threads]
    #: Where there is to be one.
    access: Optional[AccessLog]
    #: With ``event_metrics``.
    events: Optional[EventFigures]
    #: Whether the application runs in threads, which nobody can end.
    has_threads: bool

    def date(self) -> str:
        """The value of the field Date for an answer that is made now (RFC 9110, 5.6.7)."""

    def watch(self) -> None:
        """Look at the deadlines from here on, for as long as there are some; sets ``threads``."""

    # --- tasks and calls, from the thread of the loop -------------------------------

    def run(self, task: Callable[..., Any], *args: Any) -> None:
        """Start a task at once, until it is done or waits for something.

        What it raises is logged.
        """

    def run_apart(
        self,
        name: str,
        function: Callable[[], Any],
        may_run: Callable[[], bool],
        ended: Callable[[Optional[BaseException]], None],
    ) -> Watch:
        """Run a function of the application that may never return, in a greenlet, task or thread
        of its own; to cancel it is to end that, which a thread does not notice.

        :param name: of its thread.
        :param may_run: is asked before the function begins, and each time that it goes on after
            it has waited. The first time that it may not, it is ended there; a thread goes on.
        :param ended: is called in the loop, in a later turn, when the function has ended, with
            what it has raised: something that is no :exc:`Exception` when it was ended.
        """

    def run_answer(self, task: Callable[..., Any], *args: Any) -> None:
        """The same for what a task may be waiting for: an acknowledgement of a client."""

    def soon(self, task: Callable[..., Any], *args: Any) -> None:
        """Start a task in a later turn of the loop, in the order of the calls."""

    def call_soon(self, task: Callable[..., Any], *args: Any) -> None:
        """Call what may not wait in a later turn of the loop, in the loop itself; the same."""

    def call_later(self, seconds: float, task: Callable[..., Any], *args: Any) -> Watch:
        """Call what may not wait after so many seconds, in the loop itself."""

    def log(
        self,
        logger: logging.Logger,
        level: int,
        message: str,
        *args: Any,
        exc_info: Optional[BaseException] = None,
    ) -> None:
        """Log something; the loop does not wait for the handlers of the application's log."""

    def count(self, reason: str, source: str) -> None:
        """A client did something that is counted, and logged at most once a second.

        :param reason: of :mod:`supervisor_sio.common.reasons`.
        """

    # --- descriptors ------------------------------------------------------------------

    def descriptor_opened(self, descriptor: int) -> None:
        """A file was opened past the runtime: whoever had its number before has closed it."""

    def add_reader(
        self,
        descriptor: int,
        call: Callable[..., None],
        owner: Optional[DescriptorOwner] = None,
    ) -> Watch:
        """Call it in the loop whenever there is something to read, or the other side has ended.

        A watch is cancelled before its descriptor is closed.

        :param call: gets no argument, or the descriptor. May not wait, and raises nothing.
        """

    def add_writer(
        self,
        descriptor: int,
        call: Callable[..., None],
        owner: Optional[DescriptorOwner] = None,
    ) -> Watch:
        """The same, whenever something can be written."""

    # --- the life of the worker ---------------------------------------------------------

    def event(self) -> Event:
        """A new one."""

    async def sleep(self, seconds: float) -> None: ...

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> Watch:
        """Run a coroutine as a task of its own in the loop; what it raises is logged."""

    def run_until_complete(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run the loop, in the thread of the program, until a coroutine returns."""

    def on_signal(self, numbers: Iterable[int], call: Callable[[int], None]) -> None:
        """Call it in the loop after each of these signals; once for a process.

        Their handlers are replaced. A Python signal handler alone would not end the loop's
        wait (PEP 475).
        """

    def leave_in_child(self, at_end: Callable[[], None]) -> None:
        """In a forked child: go on without this loop, whose descriptors are the parent's.

        :param at_end: called when what has forked is done, if the process ends then.
        """

    # --- the application ------------------------------------------------------------------

    async def start_up(self, app: Any) -> None:
        """Let the application prepare itself, before the first request.

        :raises ApplicationError: when it cannot.
        """

    def lifespan_state(self) -> dict[str, Any]:
        """What it has put into the state of the lifespan; none without one."""

    async def shut_down(self) -> None:
        """Let it end what it has begun: all connections are gone. What it raises is logged."""

    @property
    def busy(self) -> bool:
        """Whether it still does something that belongs to no connection."""

    def serve(self, connection: Connection, head: Head) -> None:
        """Answer a request by the application, which may pass it on to the engine."""
