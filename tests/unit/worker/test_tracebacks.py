from __future__ import annotations

import logging
import sys
from typing import Any

import pytest

from supervisor_sio.common.limits import TRACEBACKS
from supervisor_sio.worker.tracebacks import FewTracebacks


class Clock:
    time = 1000.0

    def __call__(self) -> float:
        return self.time


def record(exc_info: Any) -> logging.LogRecord:
    name = "supervisor_sio.worker"
    return logging.LogRecord(name, logging.ERROR, __file__, 1, "a handler failed", (), exc_info)


def fail(how: str) -> Any:
    try:
        if how == "here":
            raise ValueError(how)
        raise ValueError(how)
    except ValueError:
        return sys.exc_info()


def test_a_few_of_each_place(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    few = FewTracebacks(clock)
    for how in ("here", "there"):
        passed = [few.filter(record(fail(how))) for _ in range(10)]
        assert passed == [True] * TRACEBACKS + [False] * (10 - TRACEBACKS)
    assert not caplog.records
    few.tell()
    lines = [line.getMessage() for line in caplog.records]
    assert len(lines) == 2
    assert all(line.startswith(f"and {10 - TRACEBACKS} more of ValueError at ") for line in lines)
    few.tell()
    assert len(caplog.records) == 2


def test_where_the_hub_does_not_run_the_next_error_tells(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    few = FewTracebacks(clock)
    for _ in range(TRACEBACKS + 5):
        few.filter(record(fail("here")))
    clock.time += 1.0
    assert not few.filter(record(fail("here")))
    assert "and 5 more of ValueError" in caplog.text


def test_a_place_has_tracebacks_again_after_a_minute() -> None:
    clock = Clock()
    few = FewTracebacks(clock)
    passed = 0
    for _ in range(120):
        passed += few.filter(record(fail("here")))
        clock.time += 1.0
    assert passed == 2 * TRACEBACKS


def test_lines_without_a_traceback_pass() -> None:
    few = FewTracebacks()
    assert all(few.filter(record(None)) for _ in range(100))
    assert all(few.filter(record((None, None, None))) for _ in range(100))
