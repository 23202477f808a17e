"""Counting who was turned away and what failed, with at most one log line a second and reason."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import Callable

from .reasons import TABLE, Counted, counted_as

_QUIET = {reason.name for reason in TABLE.values() if reason.quiet}


class Untold:
    """Counts by reason, and says when it is time for a line in the log: each second at most.

    :param now: the clock, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        #: When the last line was, and how many there have been since.
        self._logged: dict[str, tuple[float, int]] = {}

    def count(self, reason: str, times: int = 1) -> int:
        """So many more; all since the last line, if it is time for one, else 0."""
        last, untold = self._logged.get(reason, (float("-inf"), 0))
        now = self._now()
        if now - last < 1.0:
            self._logged[reason] = (last, untold + times)
            return 0
        self._logged[reason] = (now, 0)
        return untold + times


class Refusals:
    """Counters by reason.

    :param now: the clock, in seconds.
    """

    def __init__(self, logger: logging.Logger, now: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self.by_reason: Counter[str] = Counter()
        self._untold = Untold(now)

    def count(self, reason: str, source: str, times: int = 1) -> None:
        """So many more of ``reason``; ``source`` says who, for the log."""
        line = self.counted(reason, source, times)
        if line:
            self._logger.warning("%s", line)

    def counted(self, reason: str, source: str, times: int = 1) -> str:
        """As :meth:`count`, where no log may be waited for: the line for it, or nothing."""
        untold = self._count(reason, times)
        if not untold or reason in _QUIET:
            return ""
        counted = counted_as(reason)
        if counted in (Counted.NOT_MOVED, Counted.NOT_RECOVERED):
            return f"{counted.value} {untold} ({reason}), last: {source}"
        return f"refused {untold} ({reason}), last from {source}"

    def count_failure(self, what: str, source: str) -> None:
        """The same for what the exception that is being handled has ended: with its traceback."""
        untold = self._count(what)
        if untold:
            self._logger.exception("%s failed %d times, last of %s", what, untold, source)

    def noted(self, reason: str, text: str) -> str:
        """As :meth:`counted`, of what refuses nobody; ``text`` says what became of the last."""
        untold = self._untold.count(reason)
        return f"{text}: {reason} ({untold} times)" if untold else ""

    def _count(self, reason: str, times: int = 1) -> int:
        self.by_reason[reason] += times
        return self._untold.count(reason, times)
