"""Tracebacks in a worker's log: a client decides how often a handler fails."""

from __future__ import annotations

import logging
import time
from collections import Counter
from types import TracebackType
from typing import Callable, NamedTuple

from ..common.limits import TRACEBACKS
from .runtime import Runtime

#: Seconds over which those of a place are counted.
_WINDOW = 1.0


class _Place(NamedTuple):
    """Where an error was raised, and who logs it."""

    logger: str
    level: int
    error: str
    file: str
    line: int


class FewTracebacks(logging.Filter):
    """Lets ``TRACEBACKS`` of a place in the code pass each second, and tells how many more it had.

    :param now: the clock, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._counts: Counter[_Place] = Counter()
        self._began = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        error, _, trace = record.exc_info or (None, None, None)
        if error is None or trace is None:
            return True
        if self._counts and self._now() - self._began >= _WINDOW:
            self.tell()  # nobody has looked since
        if not self._counts:
            self._began = self._now()
        place = _Place(record.name, record.levelno, error.__name__, *_raised_at(trace))
        self._counts[place] += 1
        return self._counts[place] <= TRACEBACKS

    def look(self, runtime: Runtime) -> None:
        """Tell from here on, also when no more come; in the loop."""
        runtime.call_later(_WINDOW, self.look, runtime)
        if self._counts and self._now() - self._began >= _WINDOW:
            runtime.soon(self.tell)

    def tell(self) -> None:
        """The end of a second, for those that were counted in it."""
        counts, self._counts = self._counts, Counter()
        for place, count in list(counts.items()):  # other threads may add to it yet
            if count > TRACEBACKS:
                logging.getLogger(place.logger).log(
                    place.level, "and %d more of %s at %s:%d", count - TRACEBACKS, *place[2:]
                )


#: One for all loggers: a logger has a filter once, however often it is added.
FEW_TRACEBACKS = FewTracebacks()


def _raised_at(trace: TracebackType) -> tuple[str, int]:
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename, trace.tb_lineno
