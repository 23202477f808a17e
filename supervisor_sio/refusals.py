"""Counting who was turned away and why, with at most one log line a second and reason."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import Callable

#: Ends that are nobody's fault, and not worth a line.
_QUIET = {"closed-early", "reset", "idle"}


class Refusals:
    """Counters by reason.

    :param now: the clock, in seconds.
    """

    def __init__(self, logger: logging.Logger, now: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self.by_reason: Counter[str] = Counter()
        self._now = now
        self._logged: dict[str, tuple[float, int]] = {}

    def count(self, reason: str, source: str) -> None:
        """One more of ``reason``; ``source`` says who, for the log."""
        self.by_reason[reason] += 1
        if reason in _QUIET:
            return
        total = self.by_reason[reason]
        last, told = self._logged.get(reason, (0.0, 0))
        if not told or self._now() - last >= 1.0:
            self._logged[reason] = (self._now(), total)
            self._logger.warning("refused %d (%s), last from %s", total - told, reason, source)
