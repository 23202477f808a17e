from __future__ import annotations

import logging
import sys
from typing import Any

from supervisor_sio.worker.few_lines import FewLines


class Clock:
    time = 1000.0

    def __call__(self) -> float:
        return self.time


def record(line: int = 1, level: int = logging.WARNING, exc_info: Any = None) -> logging.LogRecord:
    text = "returned %r"
    return logging.LogRecord("uvicorn.error", level, __file__, line, text, (line,), exc_info)


def test_a_line_a_second_for_each_place() -> None:
    clock = Clock()
    few = FewLines(clock)
    told = []
    for number in range(250):
        for line in (1, 2) if number < 150 else (1,):
            one = record(line, logging.ERROR if number % 2 else logging.WARNING)
            if few.filter(one):
                told.append(one.getMessage())
        clock.time += 1 / 64
    assert told == [
        *("returned 1", "returned 2"),
        *("returned 1 (64 times)", "returned 2 (64 times)") * 2,
        "returned 1 (64 times)",
    ]


def test_what_nobody_calls_an_error_and_tracebacks_pass() -> None:
    few = FewLines()
    try:
        raise ValueError
    except ValueError:
        error = sys.exc_info()
    assert all(few.filter(record(level=logging.INFO)) for _ in range(100))
    assert all(few.filter(record(exc_info=error)) for _ in range(100))
    assert [few.filter(record(exc_info=(None, None, None))) for _ in range(3)] == [
        True,
        False,
        False,
    ]
