"""Tracebacks in a worker's log: a client decides how often a handler fails."""

from __future__ import annotations

import logging
import time
from collections import Counter
from types import TracebackType
from typing import Callable, NamedTuple

from ..common.limits import TRACEBACKS
from .runtime import Runtime

#: Seconds after which a place may have tracebacks again.
_WINDOW = 60.0
#: Seconds from one line about those that were left out to the next.
_TELL = 1.0


class _Place(NamedTuple):
    """Where an error was raised, and who logs it."""

    logger: str
    level: int
    error: str
    file: str
    line: int


class FewTracebacks(logging.Filter):
    """Lets ``TRACEBACKS`` of a place in the code pass each minute, and tells each second how many
    more it had.

    :param now: the clock, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._passed: Counter[_Place] = Counter()
        self._passed_since = 0.0
        self._left_out: Counter[_Place] = Counter()
        self._left_out_since = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        error, _, trace = record.exc_info or (None, None, None)
        if error is None or trace is None:
            return True
        now = self._now()
        self._tell_when_due(now)  # nobody may have looked since
        if now - self._passed_since >= _WINDOW:
            self._passed = Counter()
            self._passed_since = now
        place = _Place(record.name, record.levelno, error.__name__, *raised_at(trace))
        if self._passed[place] < TRACEBACKS:
            self._passed[place] += 1
            return True
        if not self._left_out:
            self._left_out_since = now
        self._left_out[place] += 1
        return False

    def look(self, runtime: Runtime) -> None:
        """Tell from here on, also when no more come; in the loop."""
        runtime.call_later(_TELL, self.look, runtime)
        if self._left_out:
            runtime.soon(self._tell_when_due, self._now())

    def _tell_when_due(self, now: float) -> None:
        if self._left_out and now - self._left_out_since >= _TELL:
            self.tell()

    def tell(self) -> None:
        """One line for each place of which tracebacks were left out."""
        left_out, self._left_out = self._left_out, Counter()
        for place, count in list(left_out.items()):  # other threads may add to it yet
            logging.getLogger(place.logger).log(
                place.level, "and %d more of %s at %s:%d", count, *place[2:]
            )


#: One for all loggers: a logger has a filter once, however often it is added.
FEW_TRACEBACKS = FewTracebacks()


def raised_at(trace: TracebackType) -> tuple[str, int]:
    """File and line."""
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename, trace.tb_lineno
