"""Limits a library's log lines, because clients can trigger any number of them."""

from __future__ import annotations

import logging
import time
from typing import Callable

from ..common.refusals import Untold


class FewLines(logging.Filter):
    """Passes one warning or error per second from each place in the code that logs; the next one
    says how many there were. :class:`.FewTracebacks` limits those with a traceback.

    :param now: returns the time in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._untold = Untold(now)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or (record.exc_info and record.exc_info[0]):
            return True
        untold = self._untold.count(f"{record.pathname}:{record.lineno}")
        if untold > 1:
            record.msg, record.args = f"{record.getMessage()} ({untold} times)", ()
        return bool(untold)


#: Shared by all loggers, since a logger keeps the same filter only once.
FEW_LINES = FewLines()
