"""What all runtimes share: calls in later turns, the date, and the timer of the deadlines."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from email.utils import formatdate
from typing import Any, Callable, Optional

from ..cluster.sessions import Outlet
from ..engine.deadlines import Deadlines
from ..engine.engine import Engine
from .access import AccessLog
from .event_figures import EventFigures
from .output import Writes
from .refused import refusals
from .runtime import Threads, Watch

logger = logging.getLogger("supervisor_sio.worker")

#: Seconds between two checks of the deadlines, when some expire soon: the shortest deadline is
#: 0.1 s, for a poll during the upgrade of its session. No check is made until so long before the
#: next deadline, as a worker without traffic would spend half of its time on them.
RESOLUTION = 0.05

#: Seconds by which a check may be late in a busy process; after more, it was suspended or blocked.
_LATE = 1.0


class BaseRuntime(ABC):
    """The part of a :class:`.Runtime` that needs only :meth:`_in_next_turn`, :meth:`call_later`."""

    has_threads = False

    def __init__(self) -> None:
        self.deadlines = Deadlines(time.monotonic)
        self.deadlines.on_earlier = self._set_timer
        self.engines: list[Engine] = []
        self.outlets: list[Outlet] = []
        self.threads: Optional[Threads] = None
        self.access: Optional[AccessLog] = None
        self.events: Optional[EventFigures] = None
        self.writes = Writes(self.call_soon)
        #: The calls for the next turn of the loop.
        self._calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self._date = ""
        self._second = 0
        #: For the next check, when it is due, and whether it only comes near the deadline.
        self._timer: Optional[Watch] = None
        self._look_at = 0.0
        self._far = False
        #: Whether the last check was skipped; and whether one is being made.
        self._left_out = False
        self._checking = False

    @abstractmethod
    def run(self, task: Callable[..., Any], *args: Any) -> None:
        """:meth:`.Runtime.run`"""

    def run_answer(self, task: Callable[..., Any], *args: Any) -> None:
        """:meth:`.Runtime.run_answer`"""
        self.run(task, *args)

    @abstractmethod
    def _in_next_turn(self, call: Callable[[], None]) -> None:
        """Let the loop itself call this in its next turn."""

    def call_soon(self, task: Callable[..., Any], *args: Any) -> None:
        """:meth:`.Runtime.call_soon`"""
        if not self._calls:
            self._in_next_turn(self._call_all)  # once for all calls of a turn
        self._calls.append((task, args))

    def _call_all(self) -> None:
        calls, self._calls = self._calls, []
        for task, args in calls:
            try:
                task(*args)
            except Exception as error:  # do not skip the other calls
                self.log(logger, logging.ERROR, "error in a call of the loop", exc_info=error)

    @abstractmethod
    def call_later(self, seconds: float, task: Callable[..., Any], *args: Any) -> Watch:
        """:meth:`.Runtime.call_later`"""

    @abstractmethod
    def log(
        self,
        logger: logging.Logger,
        level: int,
        message: str,
        *args: Any,
        exc_info: Optional[BaseException] = None,
    ) -> None:
        """:meth:`.Runtime.log`"""

    @abstractmethod
    def _make_threads(self) -> Threads:
        """The object through which other threads call the loop; called in the loop's thread."""

    async def start_up(self, app: Any) -> None:
        """:meth:`.Runtime.start_up`; a WSGI application has nothing to prepare."""
        return

    def lifespan_state(self) -> dict[str, Any]:
        """:meth:`.Runtime.lifespan_state`"""
        return {}

    async def shut_down(self) -> None:
        """:meth:`.Runtime.shut_down`"""
        return

    @property
    def busy(self) -> bool:
        """:meth:`.Runtime.busy`"""
        return False

    def date(self) -> str:
        """:meth:`.Runtime.date`"""
        second = int(time.time())
        if second != self._second:
            self._second, self._date = second, formatdate(second, usegmt=True)
        return self._date

    def count(self, reason: str, source: str) -> None:
        """:meth:`.Runtime.count`"""
        line = refusals.counted(reason, source)
        if line:
            self.log(logger, logging.WARNING, "%s", line)

    def prepare_threads(self) -> None:
        """:meth:`.Runtime.prepare_threads`"""
        if self.threads is None:
            self.threads = self._make_threads()
            for outlet in self.outlets:
                outlet.threads = self.threads

    def _set_timer(self) -> None:
        """Set the timer for the next check; that of a far deadline sets it once more.

        So the loop runs for RESOLUTION before a deadline is checked: what clients have sent while
        it was blocked is read first.
        """
        due = self.deadlines.next()
        if due is None or self._checking:
            return
        now = self.deadlines.clock()
        left = due - now - RESOLUTION
        far = left > RESOLUTION
        look_at = now + (left if far else RESOLUTION)
        if self._timer is not None:
            if self._look_at <= look_at:
                return
            self._timer.cancel()
        self._far, self._look_at = far, look_at
        self._timer = self.call_later(look_at - now, self._check)

    def _check(self) -> None:
        self._timer = None
        now = self.deadlines.clock()
        self._left_out = now > self._look_at + _LATE and not self._left_out
        if not self._far and not self._left_out:
            self._checking = True
            try:
                self._tell_expired(now)
            finally:
                self._checking = False
        self._set_timer()

    def _tell_expired(self, now: float) -> None:
        for item in self.deadlines.expired(now):
            try:
                item.on_deadline(now)
            except Exception as error:  # do not skip the other deadlines
                self.log(logger, logging.ERROR, "error at a deadline", exc_info=error)


def write_log(
    logger: logging.Logger,
    level: int,
    message: str,
    args: tuple[Any, ...],
    exc_info: Optional[BaseException],
) -> None:
    """Write a log line; the task that :meth:`BaseRuntime.log` starts in some runtimes."""
    logger.log(level, message, *args, exc_info=exc_info)
