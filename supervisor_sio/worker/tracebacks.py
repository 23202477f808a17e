"""Limits tracebacks in a worker's log, because clients can make a handler fail at any rate."""

from __future__ import annotations

import logging
import time
from collections import Counter
from types import TracebackType
from typing import Callable, NamedTuple

from ..common.limits import TRACEBACKS
from .runtime import Runtime

#: Seconds for which ``TRACEBACKS`` limits the tracebacks of a place.
_WINDOW = 60.0
#: Seconds between lines that count the omitted tracebacks.
_TELL = 1.0


class _Place(NamedTuple):
    """Where an error was raised, and the logger that reports it."""

    logger: str
    level: int
    error: str
    file: str
    line: int


class FewTracebacks(logging.Filter):
    """Passes ``TRACEBACKS`` tracebacks per minute from each place in the code, and each second
    logs how many more were omitted.

    :param now: returns the time in seconds.
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
        self._tell_when_due(now)  # look() may not be running
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
        """Start logging the counts regularly; call it in the loop."""
        runtime.call_later(_TELL, self.look, runtime)
        if self._left_out:
            runtime.soon(self._tell_when_due, self._now())

    def _tell_when_due(self, now: float) -> None:
        if self._left_out and now - self._left_out_since >= _TELL:
            self.tell()

    def tell(self) -> None:
        """Log one line for each place whose tracebacks were omitted."""
        left_out, self._left_out = self._left_out, Counter()
        for place, count in list(left_out.items()):  # other threads may still add to it
            logging.getLogger(place.logger).log(
                place.level, "and %d more of %s at %s:%d", count, *place[2:]
            )


#: Shared by all loggers, since a logger keeps the same filter only once.
FEW_TRACEBACKS = FewTracebacks()


def raised_at(trace: TracebackType) -> tuple[str, int]:
    """The file and line that raised the error."""
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename, trace.tb_lineno
