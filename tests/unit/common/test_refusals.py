from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio.common import reasons
from supervisor_sio.common.refusals import Refusals


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


class Record(logging.Handler):
    """The number that each line tells."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[int] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(int(record.getMessage().split()[1]))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def refusals(clock: Clock, caplog: pytest.LogCaptureFixture) -> Refusals:
    caplog.set_level(logging.INFO, "supervisor_sio.router")
    return Refusals(logging.getLogger("supervisor_sio.router"), clock)


def test_every_refusal_is_counted_by_reason(refusals: Refusals) -> None:
    for reason in ("garbage", "reset", "garbage", "head-timeout"):
        refusals.count(reason, "10.0.0.1")
    assert refusals.by_reason == {"garbage": 2, "reset": 1, "head-timeout": 1}


def test_the_first_is_told_at_once(refusals: Refusals, caplog: pytest.LogCaptureFixture) -> None:
    refusals.count("garbage", "10.0.0.1")
    refusals.count("line-too-long", "10.0.0.2")
    assert caplog.messages == [
        "refused 1 (garbage), last from 10.0.0.1",
        "refused 1 (line-too-long), last from 10.0.0.2",
    ]


def test_one_line_a_second_and_reason(
    refusals: Refusals, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(100):
        refusals.count("garbage", f"10.0.0.{number}")
    clock.time += 0.5
    refusals.count("garbage", "10.0.1.1")
    assert len(caplog.messages) == 1
    clock.time += 0.5
    refusals.count("garbage", "10.0.1.2")
    assert caplog.messages[1:] == ["refused 101 (garbage), last from 10.0.1.2"]


def test_ends_that_are_nobodys_fault_are_only_counted(
    refusals: Refusals, caplog: pytest.LogCaptureFixture
) -> None:
    for reason in ("closed-early", "reset", "idle"):
        refusals.count(reason, "10.0.0.1")
    assert not caplog.messages and sum(refusals.by_reason.values()) == 3


def test_sessions_that_were_not_moved_or_not_recovered(
    refusals: Refusals, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    refusals.count(reasons.NOT_ADOPTED, "worker workers:workers_00", 3)
    refusals.count(reasons.NOT_ADOPTED, "worker workers:workers_01", 1000)
    clock.time += 1
    refusals.count(reasons.NOT_ADOPTED, "worker workers:workers_02", 2)
    assert caplog.messages == [
        "not moved 3 (not-adopted), last: worker workers:workers_00",
        "not moved 1002 (not-adopted), last: worker workers:workers_02",
    ]
    refusals.count(reasons.UNKNOWN_PID, "of 10.0.0.1")
    assert caplog.messages[2:] == ["not recovered 1 (unknown-pid), last: of 10.0.0.1"]
    assert refusals.by_reason == {reasons.NOT_ADOPTED: 1005, reasons.UNKNOWN_PID: 1}


@given(st.lists(st.floats(0, 3), max_size=50))
def test_lines_tell_no_refusal_twice(pauses: list[float]) -> None:
    clock, handler = Clock(), Record()
    logger = logging.getLogger("supervisor_sio.router")
    logger.addHandler(handler)
    try:
        refusals = Refusals(logging.getLogger("supervisor_sio.router"), clock)
        for pause in pauses:
            clock.time += pause
            refusals.count("garbage", "10.0.0.1")
    finally:
        logger.removeHandler(handler)
    assert sum(handler.told) <= len(pauses)
    assert len(handler.told) <= 1 + sum(pauses)


def test_what_refuses_nobody_is_not_counted_with_the_refused(
    refusals: Refusals, clock: Clock
) -> None:
    assert refusals.noted("full", "1 waits") == "1 waits: full (1 times)"
    assert not refusals.noted("full", "2 wait")
    assert refusals.noted("slow", "3 wait") == "3 wait: slow (1 times)"
    clock.time += 1
    assert refusals.noted("full", "4 wait") == "4 wait: full (2 times)"
    assert not refusals.by_reason


def test_failures_are_counted_and_told_once_a_second_with_a_traceback(
    refusals: Refusals, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(times: int, what: str = "handling emit") -> None:
        for _ in range(times):
            try:
                raise ArithmeticError("no")
            except ArithmeticError:
                refusals.count_failure(what, "0a1b2c3d")

    fail(1000)
    fail(1, "handling callback")
    clock.time += 1
    fail(1)
    assert [record.getMessage() for record in caplog.records] == [
        "handling emit failed 1 times, last of 0a1b2c3d",
        "handling callback failed 1 times, last of 0a1b2c3d",
        "handling emit failed 1000 times, last of 0a1b2c3d",
    ]
    assert all(record.exc_info for record in caplog.records)
    assert refusals.by_reason["handling emit"] == 1001
