"""When the deadlines are checked: soon enough, seldom, and after what came before."""

from __future__ import annotations

import logging
from typing import Any, Callable, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio.engine.deadlines import RATE
from supervisor_sio.worker.base_runtime import RESOLUTION, BaseRuntime

from .due import Item

#: Seconds by which the wheel may be early.
EARLY = 2 / RATE


class _Timer:
    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at = at
        self.call: Optional[Callable[[], None]] = call

    def cancel(self) -> None:
        self.call = None


class Runtime(BaseRuntime):
    """Its clock stands, except in :meth:`run_until`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.deadlines.clock = lambda: self.now
        self.timers: list[_Timer] = []
        self.calls = 0

    def run(self, task: Callable[..., Any], *args: Any) -> None:
        raise NotImplementedError

    def _in_next_turn(self, call: Callable[[], None]) -> None:
        raise NotImplementedError

    def _make_threads(self) -> Any:
        return object()

    def call_later(self, seconds: float, task: Callable[..., Any], *args: Any) -> _Timer:
        timer = _Timer(self.now + seconds, task)
        self.timers.append(timer)
        return timer

    def log(
        self, logger: logging.Logger, level: int, message: str, *args: Any, **options: Any
    ) -> None:
        raise NotImplementedError

    def run_until(self, end: float) -> None:
        while True:
            due = [one for one in self.timers if one.call is not None and one.at <= end]
            if not due:
                break
            first = min(due, key=lambda one: one.at)
            self.now = max(self.now, first.at)
            call, first.call = first.call, None
            assert call is not None
            self.calls += 1
            call()
        self.timers = [one for one in self.timers if one.call is not None]
        self.now = max(self.now, end)


@pytest.fixture
def runtime() -> Runtime:
    return Runtime()


def test_a_far_deadline_takes_few_checks(runtime: Runtime) -> None:
    item = Item()
    runtime.deadlines.after(item, 25)
    runtime.run_until(runtime.now + 24.9)
    assert not runtime.calls
    runtime.run_until(runtime.now + 0.2)
    assert item.due == 1 and runtime.calls <= 3 and not runtime.timers


def test_one_that_is_moved_all_the_time(runtime: Runtime) -> None:
    """Each pong moves one to later."""
    item = Item()
    for _ in range(100):
        runtime.deadlines.after(item, 45)
        runtime.run_until(runtime.now + 25)
    assert not item.due and runtime.calls < 2 * 2500 / 25


def test_an_earlier_one_is_in_time(runtime: Runtime) -> None:
    late, soon = Item(), Item()
    runtime.deadlines.after(late, 25)
    runtime.run_until(runtime.now + 3)
    runtime.deadlines.after(soon, 0.1)
    runtime.run_until(runtime.now + 0.1 + RESOLUTION)
    assert soon.due == 1 and not late.due
    assert len(runtime.timers) == 1


def test_one_that_a_deadline_sets(runtime: Runtime) -> None:
    item, next_one = Item(), Item()
    item.on_deadline = lambda now: runtime.deadlines.after(next_one, 0.1)  # type: ignore[method-assign]
    runtime.deadlines.after(item, 5)
    runtime.run_until(runtime.now + 5.3)
    assert next_one.due == 1 and not runtime.timers


@pytest.mark.parametrize("blocked", (0.97, 1.3, 60.0))
def test_the_loop_runs_before_a_deadline_is_checked(runtime: Runtime, blocked: float) -> None:
    """For example a pong that arrived while a handler computed, or the process was stopped."""
    item = Item()
    runtime.deadlines.after(item, 1)
    runtime.now += blocked
    began = runtime.now
    runtime.run_until(began)  # timers that are due come first
    assert not item.due
    runtime.run_until(began + RESOLUTION / 2)
    assert not item.due
    runtime.run_until(began + 2 * RESOLUTION)
    assert item.due == 1


def test_a_deadline_is_checked_although_the_loop_is_blocked_again_and_again(
    runtime: Runtime,
) -> None:
    item = Item()
    runtime.deadlines.after(item, 1)
    for _ in range(5):
        runtime.now += 10
        runtime.run_until(runtime.now)
    assert item.due == 1


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0.1, 30)), max_size=20))
def test_all_are_in_time(pauses_and_deadlines: list[tuple[float, float]]) -> None:
    runtime = Runtime()
    told: list[tuple[float, float]] = []
    for pause, seconds in pauses_and_deadlines:
        runtime.run_until(runtime.now + pause)
        at, item = runtime.now + seconds, Item()
        item.on_deadline = lambda now, at=at: told.append((at, now))  # type: ignore[method-assign]
        runtime.deadlines.set(item, at)
    runtime.run_until(runtime.now + 31)
    assert len(told) == len(pauses_and_deadlines)
    for at, now in told:
        assert at - EARLY <= now <= at + RESOLUTION
    assert not runtime.timers and runtime.calls <= 4 * len(told)
