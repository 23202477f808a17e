"""Limit how often a function is called."""

from __future__ import annotations

import asyncio
from typing import Callable, Optional


class Throttle:
    """Calls a function at once; requests within ``interval`` seconds then cause one more call."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, interval: float, call: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._interval = interval
        self._call = call
        self._timer: Optional[asyncio.TimerHandle] = None
        self._due = False

    def __call__(self) -> None:
        if self._timer is not None:
            self._due = True
            return
        # Before the call, which may request the next one.
        self._timer = self._loop.call_later(self._interval, self._over)
        self._call()

    def _over(self) -> None:
        self._timer = None
        if self._due:
            self._due = False
            self()
