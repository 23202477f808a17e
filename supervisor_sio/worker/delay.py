"""The same delay for many: one timer of the hub for all of them."""

from __future__ import annotations

import logging
import time
from collections import deque
from functools import partial
from typing import Callable, Deque, Generic, TypeVar

from eventlet import hubs

from .eventlet import greenlets

logger = logging.getLogger("supervisor_sio.worker")

Item = TypeVar("Item")

#: Seconds by which a call may come early, so that one timer serves many.
_EARLY = 0.05


class Delay(Generic[Item]):
    """Calls a function with each item that was added, once, when its time has come.

    The delay is the same for all, so who came first is due first.

    :param seconds: the delay.
    :param call: called in the hub, where nothing may wait.
    """

    def __init__(self, seconds: float, call: Callable[[Item], None]) -> None:
        self._seconds = seconds
        self._call = call
        self._due: Deque[tuple[float, Item]] = deque()

    def add(self, item: Item) -> None:
        if not self._due:
            hubs.get_hub().schedule_call_global(self._seconds, self._look)
        self._due.append((time.monotonic() + self._seconds, item))

    def _look(self) -> None:
        now = time.monotonic() + _EARLY
        due: list[Item] = []
        while self._due and self._due[0][0] <= now:
            due.append(self._due.popleft()[1])
        if self._due:
            hubs.get_hub().schedule_call_global(self._due[0][0] - now + _EARLY, self._look)
        for item in due:
            try:
                self._call(item)
            except Exception as error:  # the others are due as well
                greenlets.run(partial(logger.error, "what was due", exc_info=error))
