"""Tests with a process of Supervisor's own class."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, Iterator

import pytest
from supervisor import events
from supervisor.datatypes import RestartUnconditionally, RestartWhenExitUnexpected
from supervisor.process import Subprocess
from supervisor.states import ProcessStates, SupervisorStates

from supervisor_sio.supervisord.guard import Guard
from supervisor_sio.supervisord.pauses import hold_back, starts_again


class Process(Subprocess):  # type: ignore[misc]
    """A process that has exited, and records when it is started."""

    def __init__(self) -> None:
        options = SimpleNamespace(mood=SupervisorStates.RUNNING, logger=SimpleNamespace())
        super().__init__(
            SimpleNamespace(
                name="w",
                options=options,
                autorestart=RestartWhenExitUnexpected,
                exitcodes=[0],
                startretries=0,
                startsecs=1,
                stopsignal=15,
            )
        )
        options.logger.debug = options.logger.info = lambda *_: None
        self.group = SimpleNamespace(config=SimpleNamespace(name="w"))
        self.laststart = 1.0
        self.state, self.exitstatus, self.started = ProcessStates.EXITED, 1, 0

    def spawn(self) -> None:
        self.started += 1
        self.change_state(ProcessStates.STARTING)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


@pytest.fixture
def noted() -> Iterator[list[str]]:
    """Record the states that supervisord announces."""
    states: list[str] = []
    before = events.callbacks[:]
    events.callbacks[:] = [
        (events.ProcessStateEvent, lambda event: states.append(type(event).__name__))
    ]
    yield states
    events.callbacks[:] = before


def held(seconds: float) -> tuple[Process, Guard]:
    guard = Guard(SimpleNamespace(error=lambda text: None))
    process = Process()
    hold_back(process, seconds, guard)
    return process, guard


def test_it_is_started_when_the_time_is_over(clock: Clock, noted: list[str]) -> None:
    process, guard = held(4.0)
    assert process.state == ProcessStates.EXITED and not noted  # until supervisord's next turn
    for _ in range(3):
        process.transition()
        assert (process.state, process.started) == (ProcessStates.BACKOFF, 0)
    clock.now += 3.9
    process.transition()
    assert not process.started
    clock.now += 0.2
    process.transition()
    assert (process.state, process.started) == (ProcessStates.STARTING, 1)
    assert noted == ["ProcessStateBackoffEvent", "ProcessStateStartingEvent"]
    # `startretries` is 0: Supervisor would have given up.
    assert (process.backoff, guard.caught) == (0, 0) and "transition" not in vars(process)


def test_the_wall_clock_does_not_matter(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    process, _ = held(4.0)
    for wall in (10.0**9, 5.0, 2.0 * 10**9):
        monkeypatch.setattr(time, "time", lambda wall=wall: wall)
        process.transition()
        assert not process.started
    clock.now += 5
    process.transition()
    assert process.started == 1


def test_who_stops_it_meanwhile_has_it_stopped(clock: Clock, noted: list[str]) -> None:
    process, _ = held(4.0)
    process.transition()
    assert process.stop() is None
    clock.now += 5
    process.transition()
    assert (process.state, process.started) == (ProcessStates.STOPPED, 0)
    assert noted[-1] == "ProcessStateStoppedEvent" and "transition" not in vars(process)


def test_who_starts_it_meanwhile_does_not_wait(clock: Clock) -> None:
    process, _ = held(4.0)
    process.transition()
    process.spawn()
    process.laststart = time.time()
    process.transition()
    assert process.started == 1 and "transition" not in vars(process)


@pytest.mark.parametrize("turns", [0, 1])
def test_a_supervisord_that_ends_does_not_wait(clock: Clock, turns: int) -> None:
    process, _ = held(4.0)
    for _ in range(turns):
        process.transition()
    process.config.options.mood = SupervisorStates.SHUTDOWN
    clock.now += 5
    process.transition()
    assert not process.started
    assert process.state == (ProcessStates.BACKOFF if turns else ProcessStates.EXITED)
    assert "transition" not in vars(process)


def test_an_error_of_ours_starts_it_at_once(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    process, guard = held(4.0)

    def fail(state: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(process, "change_state", fail)
    monkeypatch.setattr(process, "spawn", lambda: setattr(process, "started", 1))
    process.transition()
    assert (process.started, guard.caught) == (1, 1)


@pytest.mark.parametrize(
    ("autorestart", "expected", "starts"),
    [
        (RestartUnconditionally, True, True),
        (RestartUnconditionally, False, True),
        (RestartWhenExitUnexpected, True, False),
        (RestartWhenExitUnexpected, False, True),
        (False, False, False),
    ],
)
def test_which_supervisord_starts_again(autorestart: Any, expected: bool, starts: bool) -> None:
    process = Process()
    process.config.autorestart = autorestart
    assert starts_again(process, expected) is starts
    # As Supervisor does.
    process.exitstatus = 0 if expected else 1
    process.transition()
    assert process.started == int(starts)
