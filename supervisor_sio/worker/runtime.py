"""The interface of a runtime: its loop, tasks that may wait, timers, and descriptors.

All methods of the engine and of connections are called in the loop of the runtime, where nothing
may block. Code that waits is a coroutine that awaits :meth:`Runtime.sleep`, :meth:`Event.wait`, or
another such coroutine. On asyncio and with threads it runs as a task of the loop; on eventlet it
blocks its greenlet, see :mod:`supervisor_sio.common.blocking`.
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
    """A scheduled call, or a watched descriptor."""

    def cancel(self) -> None:
        """Cancel the call; may be called again."""


class DescriptorOwner(Protocol):
    """The owner of a watched descriptor."""

    def descriptor_lost(self) -> None:
        """Other code has closed the descriptor, and another file has its number now: do not use or
        close it. Only eventlet notices that.
        """


class Event(Protocol):
    """An event that happens once; tasks of the loop can wait for it."""

    def set(self) -> None:
        """Set it; call this only in the loop's thread. May be called again."""

    def is_set(self) -> bool: ...

    async def wait(self, timeout: Optional[float] = None) -> bool:
        """Wait until it is set; false if it is not set within ``timeout`` seconds."""


class Runtime(Protocol):
    """A loop with the sessions of this process."""

    #: The deadlines of this process's sessions and connections.
    deadlines: Deadlines
    #: The engines of the Socket.IO servers in this process. ``outlets`` reach their clients.
    engines: list[Engine]
    outlets: list[Outlet]
    #: The connections with output to write.
    writes: Writes
    #: Through it other threads call the loop; ``None`` before the first connection.
    threads: Optional[Threads]
    #: ``None`` unless ``access_log`` is on.
    access: Optional[AccessLog]
    #: ``None`` unless ``event_metrics`` is on.
    events: Optional[EventFigures]
    #: Whether the application runs in threads, which cannot be cancelled.
    has_threads: bool

    def date(self) -> str:
        """The current value of the Date field (RFC 9110, 5.6.7)."""

    def prepare_threads(self) -> None:
        """Set ``threads``, at the first call; in the thread of the loop."""

    # --- tasks and calls, from the thread of the loop -------------------------------

    def run(self, task: Callable[..., Any], *args: Any) -> None:
        """Start a task now; return when it has ended, or waits. Its exceptions are logged."""

    def run_apart(
        self,
        name: str,
        function: Callable[[], Any],
        may_run: Callable[[], bool],
        ended: Callable[[Optional[BaseException]], None],
    ) -> Watch:
        """Run a function of the application that may never return, in its own greenlet, task or
        thread. Cancelling the result ends the greenlet or task; a thread continues.

        :param name: of its thread.
        :param may_run: called before the function starts, and each time it continues after it has
            waited. When it returns false, the greenlet or task is ended; a thread continues.
        :param ended: called in a later turn of the loop when the function has ended, with the
            exception that it raised. If it was cancelled, that is not an :exc:`Exception`.
        """

    def run_answer(self, task: Callable[..., Any], *args: Any) -> None:
        """Like :meth:`run`, for the acknowledgement for which another task may wait."""

    def soon(self, task: Callable[..., Any], *args: Any) -> None:
        """Start a task in a later turn of the loop; tasks start in the order of the calls."""

    def call_soon(self, task: Callable[..., Any], *args: Any) -> None:
        """Call a function that does not block in a later turn, in the loop itself, in order."""

    def call_later(self, seconds: float, task: Callable[..., Any], *args: Any) -> Watch:
        """Call a function that does not block after this many seconds, in the loop itself."""

    def log(
        self,
        logger: logging.Logger,
        level: int,
        message: str,
        *args: Any,
        exc_info: Optional[BaseException] = None,
    ) -> None:
        """Log a message, without blocking the loop in the application's logging handlers."""

    def count(self, reason: str, source: str) -> None:
        """Count a fault of a client, and log it at most once a second.

        :param reason: see :mod:`supervisor_sio.common.reasons`.
        """

    # --- descriptors ------------------------------------------------------------------

    def descriptor_opened(self, descriptor: int) -> None:
        """A file was opened outside the runtime: the previous file of this number was closed."""

    def add_reader(
        self,
        descriptor: int,
        call: Callable[..., None],
        owner: Optional[DescriptorOwner] = None,
    ) -> Watch:
        """Call ``call`` in the loop whenever the descriptor is readable, or the peer has closed it.

        Cancel the watch before the descriptor is closed.

        :param call: gets no argument, or the descriptor. It must not block or raise.
        """

    def add_writer(
        self,
        descriptor: int,
        call: Callable[..., None],
        owner: Optional[DescriptorOwner] = None,
    ) -> Watch:
        """As :meth:`add_reader`, whenever the descriptor is writable."""

    # --- the life of the worker ---------------------------------------------------------

    def event(self) -> Event:
        """Create an event."""

    async def sleep(self, seconds: float) -> None: ...

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> Watch:
        """Run a coroutine as a new task of the loop; its exceptions are logged."""

    def run_until_complete(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run the loop in the calling thread until the coroutine returns."""

    def on_signal(self, numbers: Iterable[int], call: Callable[[int], None]) -> None:
        """Call ``call`` in the loop after each of these signals; use this once in a process.

        It replaces the signals' handlers. A Python signal handler alone would not interrupt the
        loop's wait (PEP 475).
        """

    def leave_in_child(self, at_end: Callable[[], None]) -> None:
        """In a forked child: leave this loop, whose descriptors are the parent's.

        :param at_end: called when the forking handler has returned, if the process exits then.
        """

    # --- the application ------------------------------------------------------------------

    async def start_up(self, app: Any) -> None:
        """Run the application's startup, before the first request.

        :raises ApplicationError: if it fails.
        """

    def lifespan_state(self) -> dict[str, Any]:
        """The state that the application's ASGI lifespan has stored; empty without a lifespan."""

    async def shut_down(self) -> None:
        """Run the application's shutdown, after all connections have ended; errors are logged."""

    @property
    def busy(self) -> bool:
        """Whether the application still does work that belongs to no connection."""

    def serve(self, connection: Connection, head: Head) -> None:
        """Let the application answer a request; it may pass the request on to the engine."""
