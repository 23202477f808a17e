"""Count refused clients and failures, and log at most one line a second for each reason."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import Callable

from .reasons import TABLE, Counted, counted_as

_QUIET = {reason.name for reason in TABLE.values() if reason.quiet}


class Untold:
    """Counts events that are not logged yet, by reason; allows one log line a second for each.

    :param now: the clock, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        #: By reason: the time of the last log line, and the count since then.
        self._logged: dict[str, tuple[float, int]] = {}

    def count(self, reason: str, times: int = 1) -> int:
        """Add ``times``; returns the count since the last line if a line is due, else 0."""
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
        """Add ``times`` to ``reason`` and log it if due; ``source`` names the client."""
        line = self.counted(reason, source, times)
        if line:
            self._logger.warning("%s", line)

    def counted(self, reason: str, source: str, times: int = 1) -> str:
        """As :meth:`count`, but return the log line, or "" if none is due, without logging it."""
        untold = self._count(reason, times)
        if not untold or reason in _QUIET:
            return ""
        counted = counted_as(reason)
        if counted in (Counted.NOT_MOVED, Counted.NOT_RECOVERED):
            return f"{counted.value} {untold} ({reason}), last: {source}"
        return f"refused {untold} ({reason}), last from {source}"

    def count_failure(self, what: str, source: str) -> None:
        """Count ``what``, which the current exception has ended, and log it with its traceback."""
        untold = self._count(what)
        if untold:
            self._logger.exception("%s failed %d times, last of %s", what, untold, source)

    def noted(self, reason: str, text: str) -> str:
        """As :meth:`counted`, for an event that refuses no client; ``text`` describes the last."""
        untold = self._untold.count(reason)
        return f"{text}: {reason} ({untold} times)" if untold else ""

    def _count(self, reason: str, times: int = 1) -> int:
        self.by_reason[reason] += times
        return self._untold.count(reason, times)
