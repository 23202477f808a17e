"""The loop of this process as :class:`..runtime.Runtime` describes it: eventlet's hub."""

from __future__ import annotations

import logging
import time
from email.utils import formatdate
from typing import Any, Callable, ClassVar, Optional

from eventlet import hubs
from greenlet import getcurrent

from ...cluster.sessions import Outlet
from ...engine.deadlines import Deadlines
from ...engine.engine import Engine
from . import greenlets
from .output import Writes, log
from .threads import HubThread

#: Seconds between looks at what is due: the shortest that anybody waits is 0.1 s, for a poll
#: while its session changes to a websocket.
RESOLUTION = 0.05

#: Seconds that a look may be late, as long as this process just has much to do.
_LATE = 1.0


class HubRuntime:
    """The hub of the thread that makes it, and what all its connections share."""

    _of_this_process: ClassVar[Optional[HubRuntime]] = None

    def __init__(self) -> None:
        self.deadlines = Deadlines(time.monotonic)
        #: Of the Socket.IO servers in this process, and the ways to their clients.
        self.engines: list[Engine] = []
        self.outlets: list[Outlet] = []
        #: This thread, for calls of others; from the first connection on.
        self.threads: Optional[HubThread] = None
        self.hub = hubs.get_hub()
        self.writes = Writes(self.hub)
        #: For the next turn of the hub.
        self._calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self._date = ""
        self._second = 0
        self._ticking = False
        #: When the next look is to be, and whether the one before was left out.
        self._look_at = 0.0
        self._left_out = False

    @classmethod
    def of_this_process(cls) -> HubRuntime:
        """The one of the thread that asked first: that of the program."""
        if cls._of_this_process is None:
            cls._of_this_process = cls()
        return cls._of_this_process

    def begin(self) -> None:
        """It is about to serve: the application may have chosen another hub meanwhile."""
        self.hub = hubs.get_hub()
        self.writes = Writes(self.hub)

    def date(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second, self._date = second, formatdate(second, usegmt=True)
        return self._date

    def run(self, task: Callable[..., Any], *args: Any) -> None:
        if getcurrent() is self.hub.greenlet:
            greenlets.run(task, *args)
        else:
            greenlets.call(task, *args)

    def soon(self, task: Callable[..., Any], *args: Any) -> None:
        self.call_soon(greenlets.run, task, *args)

    def call_soon(self, task: Callable[..., Any], *args: Any) -> None:
        if not self._calls:
            self.hub.schedule_call_global(0, self._call_all)  # one timer for all of a turn
        self._calls.append((task, args))

    def _call_all(self) -> None:
        calls, self._calls = self._calls, []
        for task, args in calls:
            try:
                task(*args)
            except Exception as error:  # the others are to be called as well
                log(logging.ERROR, "a call in the hub", error)

    def watch(self) -> None:
        """Look at the deadlines from here on, for as long as there are some."""
        if self.threads is None:
            self.threads = HubThread()
            for outlet in self.outlets:
                outlet.threads = self.threads
        if not self._ticking:
            self._ticking = True
            self._look_at = self.deadlines.clock() + RESOLUTION
            self.hub.schedule_call_global(RESOLUTION, self._tick)

    def _tick(self) -> None:
        now = self.deadlines.clock()
        self._left_out = now > self._look_at + _LATE and not self._left_out
        if self._left_out:
            # Nothing has run for a while: what clients have sent meanwhile is to be read first.
            self._ticking = False
            self.watch()
            return
        for item in self.deadlines.expired(now):
            try:
                item.on_deadline(now)
            except Exception as error:  # the others are due as well
                log(logging.ERROR, "what was due", error)
        self._ticking = False
        if self.deadlines.next() is not None:
            self.watch()
