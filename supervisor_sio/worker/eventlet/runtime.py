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
        self.now: Callable[[], float] = time.monotonic
        self._date = ""
        self._second = 0
        self._ticking = False

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
        self.hub.schedule_call_global(0, greenlets.run, task, *args)

    def call_soon(self, task: Callable[..., Any], *args: Any) -> None:
        self.hub.schedule_call_global(0, _guarded, task, *args)

    def watch(self) -> None:
        """Look at the deadlines from here on, for as long as there are some."""
        if self.threads is None:
            self.threads = HubThread()
            for outlet in self.outlets:
                outlet.threads = self.threads
        if not self._ticking:
            self._ticking = True
            self.hub.schedule_call_global(RESOLUTION, self._tick)

    def _tick(self) -> None:
        now = self.now()
        for item in self.deadlines.expired(now):
            try:
                item.on_deadline(now)
            except Exception as error:  # the others are due as well
                log(logging.ERROR, "what was due", error)
        self._ticking = False
        if self.deadlines.next() is not None:
            self.watch()


def _guarded(task: Callable[..., Any], *args: Any) -> None:
    try:
        task(*args)
    except Exception as error:  # the hub would print it
        log(logging.ERROR, "a call in the hub", error)
