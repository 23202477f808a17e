"""A worker's tasks, with a router, a clock and functions of the test."""

from __future__ import annotations

import logging
import math
from typing import Any, Callable, Optional

import pytest

from supervisor_sio.cluster import run_once as cluster
from supervisor_sio.cluster.run_once import Lease, Task
from supervisor_sio.common import run_once
from supervisor_sio.common.channel import ChannelError, Message
from supervisor_sio.common.limits import RUN_ONCE_LEASE, RUN_ONCE_PAUSE, RUN_ONCE_RENEWAL
from supervisor_sio.common.run_once import End, Word
from supervisor_sio.worker import lone_tasks
from supervisor_sio.worker.lone_tasks import NoRouter
from supervisor_sio.worker.run_once import RunOnce, State


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.calls: list[tuple[float, Callable[[], None]]] = []

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 5.0

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while True:
            due = [one for one in self.calls if one[0] <= until]
            if not due:
                break
            first = min(due, key=lambda one: one[0])
            self.calls.remove(first)
            self.now = max(self.now, first[0])
            first[1]()
        self.now = until


class Rig:
    """A worker with one task; the test is the runtime and the router."""

    has_threads = False

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.generation = 1
        self.unanswered = False
        self.hears = True
        self.said: list[Message] = []
        #: Called in the middle of sending.
        self.sending: Callable[[], None] = lambda: None
        self.leases: list[Lease] = []
        self.ended: Optional[Callable[[Optional[BaseException]], None]] = None
        self.may_run: Callable[[], bool] = lambda: False
        self.cancelled = 0
        self.no_thread = False
        self.tasks = RunOnce(self, self, clock.monotonic)
        self.tasks.add(self.task())
        self.tasks.welcome(True)

    def task(self, name: str = "ticker", takes_lease: bool = True) -> Task:
        def lease(number: int, until: float) -> Lease:
            return Lease(name, number, until, Event())

        return Task(name, self.leases.append, takes_lease, lease)

    def call_later(self, seconds: float, call: Callable[..., Any], *args: Any) -> Any:
        self.clock.calls.append((self.clock.now + seconds, lambda: call(*args)))

    def run_apart(
        self,
        name: str,
        function: Callable[[], Any],
        may_run: Callable[[], bool],
        ended: Callable[[Optional[BaseException]], None],
    ) -> Any:
        if self.no_thread:
            raise RuntimeError("can't start new thread")
        function()
        self.may_run, self.ended = may_run, ended
        return self

    def cancel(self) -> None:
        self.cancelled += 1

    def log(
        self, logger: logging.Logger, level: int, message: str, *args: Any, exc_info: Any = None
    ) -> None:
        logger.log(level, message, *args, exc_info=exc_info)

    def say_now(self, message: Message) -> bool:
        self.sending()
        if self.hears:
            self.said.append(message)
        return self.hears

    def post(self, message: Message) -> None:
        self.said.append(message)

    def heard(self) -> list[Message]:
        said, self.said = self.said, []
        return said

    def offer(self, number: int = 7, seconds: float = 1.0) -> None:
        self.said.clear()
        self.tasks.handle(run_once.offer("ticker", number, self.clock.now + seconds))

    def finish(self, error: Optional[BaseException] = None) -> None:
        ended, self.ended = self.ended, None
        assert ended is not None
        ended(error)

    @property
    def state(self) -> State:
        return self.tasks.state("ticker")

    @property
    def lease(self) -> Lease:
        return self.leases[-1]


class Event:
    def __init__(self) -> None:
        self.is_set = False

    def set(self) -> None:
        self.is_set = True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(cluster, "time", made)
    monkeypatch.setattr(lone_tasks, "time", made)
    return made


@pytest.fixture
def rig(clock: Clock) -> Rig:
    return Rig(clock)


def holds(number: int, seconds: float) -> Message:
    return run_once.holds("ticker", number, seconds)


def test_an_offer_is_answered_and_the_function_runs_with_its_number(rig: Rig) -> None:
    assert rig.heard() == [run_once.task("ticker", Word.WANTS)]
    rig.offer()
    assert rig.heard() == [holds(7, 0)] and rig.state is State.RUNNING
    assert (rig.lease.name, rig.lease.number, rig.lease.held) == ("ticker", 7, True)
    rig.offer(8)  # it has one
    assert rig.heard() == [] and len(rig.leases) == 1


@pytest.mark.parametrize("why", ["late", "nobody reads"])
def test_an_offer_that_cannot_be_taken(rig: Rig, why: str) -> None:
    rig.hears = why == "late"
    rig.offer(seconds=0 if why == "late" else 1)
    assert rig.state is State.WAITING and not rig.leases


def test_an_answer_that_is_sent_too_late_is_taken_back(rig: Rig) -> None:
    rig.sending = lambda: rig.clock.wait(2)
    rig.offer()
    assert rig.heard() == [holds(7, 0), run_once.ends("ticker", 7, End.GIVEN_BACK)]
    assert rig.state is State.WAITING and not rig.leases


def test_a_lease_lasts_from_before_it_was_said(rig: Rig) -> None:
    rig.offer()
    rig.sending = lambda: setattr(rig.clock, "now", rig.clock.now + 0.5)
    began = rig.clock.now
    rig.clock.wait(RUN_ONCE_RENEWAL)
    assert rig.heard()[-1] == holds(7, RUN_ONCE_RENEWAL)
    assert rig.lease.until == began + RUN_ONCE_RENEWAL + RUN_ONCE_LEASE


def test_it_is_renewed_as_long_as_the_function_runs(rig: Rig) -> None:
    rig.offer()
    rig.clock.wait(100)
    assert rig.lease.held and rig.may_run() and rig.state is State.RUNNING
    assert len(rig.heard()) == 101


def test_who_cannot_say_so_loses_it(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.offer()
    rig.hears = False
    rig.clock.wait(RUN_ONCE_LEASE - 0.1)
    assert rig.lease.held
    rig.clock.wait(0.1)
    assert not rig.lease.held and not rig.may_run() and rig.state is State.LOST
    assert rig.cancelled == 1 and rig.lease._event.is_set
    assert "task ticker ends: this worker could not renew its lease in time" in caplog.text
    rig.hears = True
    rig.offer(8)
    assert len(rig.leases) == 1  # its function has not ended
    rig.finish(RuntimeError("too late"))
    assert rig.heard() == [run_once.task("ticker", Word.WANTS)]
    rig.offer(9)
    assert rig.lease.number == 9 and rig.lease.held


def test_one_that_was_stopped_does_not_go_on(rig: Rig) -> None:
    """Even before the worker has checked the lease."""
    rig.offer()
    rig.heard()
    rig.clock.now += RUN_ONCE_LEASE
    assert not rig.lease.held and not rig.may_run()
    rig.finish(RuntimeError("ended"))  # before this worker has looked
    assert rig.heard() == [run_once.task("ticker", Word.WANTS)] and rig.state is State.WAITING


def test_a_renewal_that_is_sent_after_the_lease_does_not_count(rig: Rig) -> None:
    rig.offer()
    rig.hears = False
    rig.clock.wait(5.5)
    rig.hears = True
    rig.sending = lambda: setattr(rig.clock, "now", rig.clock.now + 1)
    rig.clock.wait(0.4)
    rig.tasks.greet()
    assert rig.said[-1]["type"] == "task-holds" and not rig.lease.held


def test_the_router_has_given_it_to_another(rig: Rig) -> None:
    rig.offer()
    rig.tasks.handle(run_once.lost("ticker", 6))
    assert rig.lease.held
    rig.tasks.handle(run_once.lost("ticker", 7))
    assert not rig.lease.held and rig.cancelled == 1


def test_a_router_that_does_not_come(rig: Rig) -> None:
    """The router's socket gets the message once, and no task is given away without a router."""
    rig.offer()
    rig.heard()
    rig.generation, rig.unanswered = 2, True
    rig.tasks.greet()
    assert [m["type"] for m in rig.heard()] == ["task-holds"]
    rig.clock.wait(1000)
    assert rig.lease.held and rig.heard() == []
    rig.unanswered = False
    rig.tasks.welcome(True)
    rig.clock.wait(RUN_ONCE_RENEWAL)
    words = [run_once.task("ticker", Word.WANTS), holds(7, 1000 + RUN_ONCE_RENEWAL)]
    assert rig.heard() == words


def test_a_connection_on_which_it_was_not_said(rig: Rig) -> None:
    rig.offer()
    rig.generation, rig.unanswered, rig.hears = 2, True, False
    rig.tasks.greet()
    rig.clock.wait(RUN_ONCE_LEASE)
    assert not rig.lease.held


def test_there_is_no_connection(rig: Rig) -> None:
    rig.offer()
    rig.hears = False
    rig.clock.wait(3)
    assert rig.lease.held
    rig.clock.wait(3)
    assert not rig.lease.held


def test_the_end_of_a_worker(rig: Rig) -> None:
    """The task is given back when its function has ended, and not before."""
    rig.offer()
    rig.tasks.stop()
    assert rig.heard()[-1] == run_once.task("ticker", Word.RESTS)
    assert not rig.lease.held and rig.may_run() and rig.cancelled == 1
    assert rig.tasks.unfinished
    rig.clock.wait(10)
    assert {m["type"] for m in rig.heard()} == {"task-holds"} and rig.may_run()
    rig.finish(RuntimeError("ended"))
    assert rig.heard()[0] == run_once.ends("ticker", 7, End.GIVEN_BACK)
    assert rig.state is State.OVER and not rig.tasks.unfinished
    rig.offer(8)
    assert len(rig.leases) == 1


def test_a_worker_that_ends_waits_for_a_thread_only_if_that_knows_of_it(clock: Clock) -> None:
    for takes_lease in (True, False):
        rig = Rig(clock)
        rig.has_threads = True
        rig.tasks = RunOnce(rig, rig, clock.monotonic)
        task = rig.task()._replace(takes_lease=takes_lease)
        rig.tasks.add(task if takes_lease else task._replace(function=lambda: None))
        rig.tasks.welcome(True)
        rig.offer()
        rig.tasks.stop()
        assert rig.tasks.unfinished is takes_lease


def test_a_function_that_returns_is_done(rig: Rig) -> None:
    rig.offer()
    rig.heard()
    rig.finish()
    assert rig.heard() == [run_once.ends("ticker", 7, End.DONE)] and rig.state is State.DONE
    rig.tasks.greet()
    rig.tasks.welcome(True)
    assert rig.heard() == [run_once.task("ticker", Word.DONE)]
    rig.offer(8)
    assert len(rig.leases) == 1


def test_one_that_another_worker_has_done(rig: Rig) -> None:
    rig.tasks.handle(run_once.done("ticker"))
    rig.offer()
    assert rig.state is State.DONE and not rig.leases


def test_a_function_that_raises(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.offer()
    rig.heard()
    rig.finish(ArithmeticError("as the test wants it"))
    assert rig.heard() == [run_once.ends("ticker", 7, End.FAILED)] and rig.state is State.WAITING
    assert "task ticker failed" in caplog.text and "as the test wants it" in caplog.text
    assert not rig.lease.held


def test_there_is_no_thread_for_it(rig: Rig) -> None:
    rig.no_thread = True
    rig.offer()
    assert rig.heard() == [holds(7, 0), run_once.ends("ticker", 7, End.FAILED)]
    assert rig.state is State.WAITING


def test_a_forked_child_has_none(rig: Rig) -> None:
    rig.offer()
    rig.tasks.abandon()
    assert not rig.lease.held and not rig.lease._event.is_set
    rig.clock.wait(10)
    assert [m for m in rig.heard() if m["type"] == "task-holds"] == [holds(7, 0)]


def test_an_older_router(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(clock)
    rig.said.clear()
    rig.tasks.welcome(False)
    rig.tasks.add(rig.task("other"))
    assert rig.said == [] and "the router runs an older release" in caplog.text


def test_one_function_for_a_name(rig: Rig) -> None:
    rig.tasks.add(rig.task())  # the same once more
    with pytest.raises(ValueError, match=r"run_once\('ticker'\): two managers"):
        rig.tasks.add(rig.task()._replace(function=print))


def test_what_is_not_understood(rig: Rig) -> None:
    rig.tasks.handle(run_once.offer("unknown", 7, math.inf))
    for message in (
        {"type": "task-offer", "name": "ticker", "number": 7},
        {"type": "task-offer", "name": "ticker", "number": "7", "until": 1},
        {"type": "task-lost", "name": "ticker"},
        {"type": "task-done"},
    ):
        with pytest.raises(ChannelError):
            rig.tasks.handle(message)


def test_alone_it_runs_what_it_wants_again_after_failures_and_never_when_done(
    rig: Rig, clock: Clock
) -> None:
    alone = NoRouter(rig)
    rig.tasks = RunOnce(rig, alone, clock.monotonic)
    alone.answer = rig.tasks.handle
    rig.tasks.add(rig.task())
    assert rig.state is State.WAITING
    rig.tasks.welcome(True)
    numbers = []
    for pause in (1, 2, 4, 8, 16, 32, RUN_ONCE_PAUSE, RUN_ONCE_PAUSE):
        clock.wait(0)
        assert rig.lease.held
        numbers.append(rig.lease.number)
        rig.finish(ArithmeticError())
        clock.wait(pause - 0.1)
        assert rig.state is State.WAITING
        clock.wait(0.1)
    assert numbers == list(range(5000, 5008)) and rig.lease.held
    clock.wait(1000)
    assert rig.lease.held
    # It was stopped for long.
    clock.now += 1000
    clock.wait(0)
    assert rig.state is State.LOST
    rig.finish(RuntimeError("ended"))
    clock.wait(0)
    assert rig.lease.held
    rig.finish()
    clock.wait(1000)
    assert rig.state is State.DONE
