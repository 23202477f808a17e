"""A library's lines in a worker's log: a client decides how often it complains."""

from __future__ import annotations

import logging
import time
from typing import Callable

from ..common.refusals import Untold


class FewLines(logging.Filter):
    """Lets one warning or error a second pass of each place in the code that logs one; the next
    says how many there were. Those with a traceback are :class:`.FewTracebacks`' to judge.

    :param now: the clock, in seconds.
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


#: A logger has a filter once, however often it is added.
FEW_LINES = FewLines()
