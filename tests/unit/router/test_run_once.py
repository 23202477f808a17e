"""Who has which task: the workers, and their clock, are those of the test."""

from __future__ import annotations

from typing import Any, Callable, Optional

import pytest

from supervisor_sio.common import run_once
from supervisor_sio.common.channel import ChannelError, Message
from supervisor_sio.common.limits import (
    RUN_ONCE_LEASE,
    RUN_ONCE_OFFER,
    RUN_ONCE_PAUSE,
    RUN_ONCE_TASKS,
)
from supervisor_sio.common.run_once import End, Word
from supervisor_sio.router.pool import Member
from supervisor_sio.router.run_once import Row, RunOnce


class Timer:
    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at = at
        self.call: Optional[Callable[[], None]] = call

    def cancel(self) -> None:
        self.call = None


class Worker:
    """A channel to a worker that records what is sent."""

    def __init__(self, tag: str) -> None:
        self.member = Member(tag, f"workers:{tag}", 1, ready=True)
        self.told: list[Message] = []

    def tell(self, message: Message) -> None:
        self.told.append(message)

    def pass_on(self, data: bytes, descriptors: object) -> bool:
        raise AssertionError

    def offered(self) -> Optional[int]:
        """The number of the last offer that has come since the last call."""
        told, self.told = self.told, []
        numbers = [m["number"] for m in told if m["type"] == "task-offer"]
        return numbers[-1] if numbers else None


class Cluster:
    def __init__(self, sure_at: float = 0.0) -> None:
        self.now = 100.0
        self.wall = 5.0
        self.workers: dict[str, Worker] = {}
        self.timers: list[Timer] = []
        self.all_stop = False
        #: What is read before something is given away because of its time.
        self.unread: list[tuple[Worker, Message]] = []
        self.can_catch_up = True
        #: Seconds that it takes to read, and to do anything else between two looks at the clock.
        self.reading = self.pace = 0.0
        self.tasks = RunOnce(
            self.workers.get,  # type: ignore[arg-type]
            self._catch_up,
            lambda: self.all_stop,
            self._call_later,
            sure_at,
            self._clock,
            lambda: self.wall,
        )

    def _clock(self) -> float:
        self.now += self.pace
        return self.now

    def _call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.now + seconds, call))
        return self.timers[-1]

    def _catch_up(self) -> bool:
        if self.can_catch_up:
            self.now += self.reading
            unread, self.unread = self.unread, []
            for worker, message in unread:
                self.tasks.handle(worker, message)
        return self.can_catch_up

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while True:
            due = [t for t in self.timers if t.call is not None and t.at <= until]
            if not due:
                break
            first = min(due, key=lambda timer: timer.at)
            call, first.call = first.call, None
            self.now = max(self.now, first.at)
            assert call is not None
            call()
        self.now = until

    def join(self, *tags: str) -> list[Worker]:
        for tag in tags:
            self.workers[tag] = Worker(tag)
            self.say(self.workers[tag], run_once.task("ticker", Word.WANTS))
        return [self.workers[tag] for tag in tags]

    def say(self, worker: Worker, message: Message) -> None:
        self.tasks.handle(worker, message)

    def take(self, worker: Worker) -> int:
        """Answer the offer."""
        number = worker.offered()
        assert number is not None
        self.say(worker, run_once.holds("ticker", number, 0))
        return number

    def lose(self, worker: Worker, dies: bool = True) -> None:
        del self.workers[worker.member.tag]
        self.tasks.lost(worker)
        if dies:
            self.tasks.died(worker.member.tag)

    @property
    def row(self) -> Row:
        (row,) = self.tasks.rows()
        return row


def test_one_gets_it_and_the_next_one_when_its_process_has_ended() -> None:
    cluster = Cluster()
    first, second = cluster.join("a", "b")
    number = cluster.take(first)
    assert second.told == [] and cluster.row[:4] == ("ticker", "running", "a", number)
    cluster.lose(first)
    later = cluster.take(second)
    assert later > number and cluster.row.tag == "b" and cluster.row.given == 2


def test_numbers_are_the_time_and_grow_though_the_clock_does_not() -> None:
    cluster = Cluster()
    (worker,) = cluster.join("a")
    number = cluster.take(worker)
    assert number == 5000
    cluster.wall = 1.0
    cluster.say(worker, run_once.ends("ticker", number, End.GIVEN_BACK))
    number = cluster.take(worker)
    assert number > 5000
    # One that is told of is the least, too.
    cluster.say(worker, run_once.ends("ticker", number, End.GIVEN_BACK))
    worker.told.clear()
    cluster.say(worker, run_once.holds("other", 90_000, 0))
    cluster.say(worker, run_once.task("third", Word.WANTS))
    assert worker.offered() == 90_001


def test_who_does_not_take_it_is_asked_last() -> None:
    cluster = Cluster()
    first, second, third = cluster.join("a", "b", "c")
    assert first.offered() and second.offered() is third.offered() is None
    cluster.wait(RUN_ONCE_OFFER)
    number = third.offered()  # the youngest
    assert number and second.offered() is None
    cluster.wait(RUN_ONCE_OFFER)
    assert second.offered()
    cluster.wait(RUN_ONCE_OFFER)
    assert third.offered()
    # Too late, but nobody has been asked meanwhile.
    cluster.say(first, run_once.holds("ticker", 5000, 0))
    assert first.told[-1] == run_once.lost("ticker", 5000)


def test_a_worker_that_is_silent_loses_it_after_all_was_read() -> None:
    cluster = Cluster()
    first, second = cluster.join("a", "b")
    number = cluster.take(first)
    cluster.wait(RUN_ONCE_LEASE - 0.1)
    # It has said so in time, and it was this process that did not run.
    cluster.unread.append((first, run_once.holds("ticker", number, 6)))
    cluster.wait(RUN_ONCE_LEASE - 0.1)
    assert cluster.row.tag == "a" and second.offered() is None
    cluster.wait(RUN_ONCE_LEASE)
    assert second.offered()
    cluster.say(first, run_once.holds("ticker", number, 20))
    assert first.told[-1] == run_once.lost("ticker", number)


def test_a_lease_that_ends_while_the_router_looks_is_read_for_first() -> None:
    cluster = Cluster()
    first, second = cluster.join("a", "b")
    number = cluster.take(first)
    cluster.now += RUN_ONCE_LEASE - 0.001
    cluster.unread.append((first, run_once.holds("ticker", number, 6)))
    cluster.pace = 0.0006  # over at the second look at the clock, and not at the first
    cluster.tasks.look()
    assert cluster.row.state == "running" and second.offered() is None
    cluster.pace = 0.0
    cluster.wait(1)
    assert cluster.row[:4] == ("ticker", "running", "a", number) and not cluster.unread


def test_a_lease_that_ends_while_the_router_reads_is_read_for_again() -> None:
    cluster = Cluster()
    first, second = cluster.join("a", "b")
    number = cluster.take(first)
    cluster.say(first, run_once.holds("early", number + 1, 0))
    cluster.now += 1
    cluster.say(first, run_once.holds("ticker", number, 1))
    cluster.reading = 1.5  # what comes after it has begun is not read
    cluster.wait(RUN_ONCE_LEASE - 1)
    row = {row.name: row for row in cluster.tasks.rows()}["ticker"]
    assert row.state == "running" and second.offered() is None
    cluster.unread.append((first, run_once.holds("ticker", number, 7)))
    cluster.wait(1)
    row = {row.name: row for row in cluster.tasks.rows()}["ticker"]
    assert row[:4] == ("ticker", "running", "a", number)


def test_an_offer_has_all_its_time_however_long_was_read_before() -> None:
    cluster = Cluster()
    cluster.join("a")
    (second,) = cluster.join("b")
    cluster.reading = 5.0
    cluster.wait(RUN_ONCE_OFFER)
    (offer,) = second.told
    assert offer["until"] == 100.0 + RUN_ONCE_OFFER + 5.0 + RUN_ONCE_OFFER


def test_nothing_is_given_away_while_workers_cannot_be_heard() -> None:
    cluster = Cluster()
    first, second = cluster.join("a", "b")
    number = cluster.take(first)
    cluster.can_catch_up = False
    cluster.wait(3 * RUN_ONCE_LEASE)
    assert second.offered() is None
    cluster.unread.append((first, run_once.holds("ticker", number, 18)))
    cluster.can_catch_up = True
    cluster.wait(1)
    assert second.offered() is None and cluster.row.tag == "a"


def test_its_channel_ends_and_not_its_process() -> None:
    """The worker may still hold the task, or connect again."""
    cluster = Cluster()
    first, second = cluster.join("a", "b")
    number = cluster.take(first)
    cluster.lose(first, dies=False)
    cluster.wait(RUN_ONCE_LEASE - 0.1)
    assert second.offered() is None and cluster.tasks.has("a")
    cluster.join("a")
    cluster.say(cluster.workers["a"], run_once.holds("ticker", number, 9))
    cluster.wait(RUN_ONCE_LEASE - 0.1)
    assert cluster.row[:4] == ("ticker", "running", "a", number) and cluster.row.seconds == 11
    cluster.lose(cluster.workers["a"], dies=False)
    cluster.tasks.died("a")
    assert second.offered()


def test_the_answer_to_an_offer_is_lost_with_the_channel() -> None:
    cluster = Cluster()
    first, second = cluster.join("a", "b")
    cluster.lose(first, dies=False)
    cluster.wait(RUN_ONCE_LEASE - 0.1)
    assert second.offered() is None
    cluster.wait(0.1)
    assert second.offered()


def test_a_new_router_waits_for_those_it_has_not_heard_of() -> None:
    cluster = Cluster(sure_at=104.0)
    first, second = cluster.join("a", "b")
    cluster.wait(3.9)
    assert first.offered() is second.offered() is None and cluster.row.state == "waiting"
    cluster.say(second, run_once.holds("ticker", 7000, 60))
    cluster.wait(0.2)
    assert first.offered() is None and cluster.row[:4] == ("ticker", "running", "b", 7000)
    assert cluster.row.seconds == 60
    cluster.lose(second)
    assert cluster.take(first) > 7000


def test_a_new_router_of_which_nobody_holds_it() -> None:
    cluster = Cluster(sure_at=104.0)
    (worker,) = cluster.join("a")
    cluster.wait(4)
    assert worker.offered()


def test_who_claims_with_a_larger_number_has_it() -> None:
    cluster = Cluster()
    first, second = cluster.join("a", "b")
    number = cluster.take(first)
    cluster.say(second, run_once.holds("ticker", number + 1, 1))
    assert first.told == [run_once.lost("ticker", number)] and cluster.row.tag == "b"


def test_one_that_has_returned_is_done_until_nobody_knows_it() -> None:
    cluster = Cluster()
    first, second = cluster.join("a", "b")
    number = cluster.take(first)
    cluster.say(first, run_once.ends("ticker", number, End.DONE))
    assert second.told == [run_once.done("ticker")] and cluster.row.state == "done"
    (third,) = cluster.join("c")
    assert third.told == [run_once.done("ticker")]
    for worker in (first, second):
        cluster.lose(worker)
    cluster.say(third, run_once.holds("ticker", number, 1))
    assert third.told[-1] == run_once.lost("ticker", number)
    cluster.lose(third)
    assert cluster.tasks.rows() == []
    (fourth,) = cluster.join("d")
    assert fourth.offered()


def test_a_worker_is_lost_as_it_is_told_that_it_is_done() -> None:
    cluster = Cluster()
    first, *others = cluster.join("a", "b", "c")
    number = cluster.take(first)
    for worker in others:
        # It has just ended, which the router learns by sending.
        worker.tell = lambda message, worker=worker: cluster.lose(worker)  # type: ignore
    cluster.say(first, run_once.ends("ticker", number, End.DONE))
    assert cluster.row.state == "done" and list(cluster.workers) == ["a"]


def test_a_new_router_is_told_that_it_is_done() -> None:
    cluster = Cluster(sure_at=104.0)
    (first,) = cluster.join("a")
    cluster.workers["b"] = second = Worker("b")
    cluster.say(second, run_once.task("ticker", Word.DONE))
    cluster.wait(10)
    assert first.offered() is None and cluster.row.state == "done"


def test_after_failures_pauses_grow_and_others_are_asked_first() -> None:
    cluster = Cluster()
    first, second = cluster.join("a", "b")
    for worker, pause in ((first, 1), (second, 2), (first, 4), (second, 8)):
        number = cluster.take(worker)
        cluster.say(worker, run_once.ends("ticker", number, End.FAILED))
        assert (cluster.row.state, cluster.row.pause) == ("failed", pause)
        cluster.wait(pause - 0.1)
        assert worker.told == []
        cluster.wait(0.1)
    assert (cluster.row.failures, cluster.row.failed) == (4, 4)
    number = cluster.take(first)
    for _ in range(int(RUN_ONCE_PAUSE)):
        cluster.wait(1)
        cluster.say(first, run_once.holds("ticker", number, 0))
    # It was well for long.
    cluster.say(first, run_once.ends("ticker", number, End.FAILED))
    assert (cluster.row.failures, cluster.row.failed, cluster.row.pause) == (1, 5, 1)


@pytest.mark.parametrize("how", ["given back", "dies", "silent", "done", "claimed by another"])
def test_failures_are_forgotten_when_it_has_run_for_long(how: str) -> None:
    cluster = Cluster()
    first, second = cluster.join("a", "b")
    cluster.say(first, run_once.ends("ticker", cluster.take(first), End.FAILED))
    cluster.wait(1)
    number = cluster.take(second)
    assert cluster.row.failures == 1
    for _ in range(int(RUN_ONCE_PAUSE)):
        cluster.wait(1)
        cluster.say(second, run_once.holds("ticker", number, 0))
    if how == "given back":
        cluster.say(second, run_once.ends("ticker", number, End.GIVEN_BACK))
    elif how == "dies":
        cluster.lose(second)
    elif how == "silent":
        cluster.wait(RUN_ONCE_LEASE)
    elif how == "done":
        cluster.say(second, run_once.ends("ticker", number, End.DONE))
    else:
        cluster.say(first, run_once.holds("ticker", number + 1, 1))
    assert cluster.row.failures == 0 and cluster.row.failed == 1


def test_one_that_is_done_has_no_failures() -> None:
    cluster = Cluster()
    (worker,) = cluster.join("a")
    cluster.say(worker, run_once.ends("ticker", cluster.take(worker), End.FAILED))
    cluster.wait(1)
    cluster.say(worker, run_once.ends("ticker", cluster.take(worker), End.DONE))
    assert (cluster.row.state, cluster.row.failures) == ("done", 0)


def test_it_has_failed_until_it_may_be_tried_again() -> None:
    cluster = Cluster()
    (worker,) = cluster.join("a")
    cluster.say(worker, run_once.ends("ticker", cluster.take(worker), End.FAILED))
    assert (cluster.row.state, cluster.row.pause) == ("failed", 1)
    cluster.wait(1)  # it is offered
    assert (cluster.row.state, cluster.row.pause, cluster.row.failures) == ("waiting", 0, 1)
    cluster.say(worker, run_once.ends("ticker", cluster.take(worker), End.FAILED))
    worker.member.ready = False
    cluster.wait(2)  # there is nobody to try it
    assert (cluster.row.state, cluster.row.pause, cluster.row.failures) == ("waiting", 0, 2)


def test_pauses_have_a_bound() -> None:
    cluster = Cluster()
    (worker,) = cluster.join("a")
    for _ in range(20):
        number = cluster.take(worker)
        cluster.say(worker, run_once.ends("ticker", number, End.FAILED))
        assert cluster.row.pause <= RUN_ONCE_PAUSE
        cluster.wait(RUN_ONCE_PAUSE)


@pytest.mark.parametrize("fault", ["draining", "hung", "not ready"])
def test_who_is_not_well_is_not_asked(fault: str) -> None:
    cluster = Cluster()
    cluster.workers["a"] = worker = Worker("a")
    if fault == "not ready":
        worker.member.ready = False
    else:
        setattr(worker.member, fault, True)
    cluster.say(worker, run_once.task("ticker", Word.WANTS))
    assert worker.offered() is None and cluster.row.state == "waiting"
    worker.member.ready, worker.member.draining, worker.member.hung = True, False, False
    cluster.tasks.look()
    assert worker.offered()


def test_who_is_drained_by_the_operator_is_asked_when_there_is_no_other() -> None:
    cluster = Cluster()
    cluster.all_stop = True
    first, second = cluster.join("a", "b")
    second.member.drained = True
    cluster.all_stop = False
    cluster.tasks.look()
    number = cluster.take(first)
    assert second.offered() is None
    cluster.say(first, run_once.task("ticker", Word.RESTS))
    cluster.say(first, run_once.ends("ticker", number, End.GIVEN_BACK))
    assert second.offered() and first.offered() is None


def test_tasks_are_spread_and_a_rolling_restart_moves_one_once() -> None:
    cluster = Cluster()
    cluster.all_stop = True
    workers = cluster.join("a", "b", "c")
    for worker in workers:
        for name in ("second", "third"):
            cluster.say(worker, run_once.task(name, Word.WANTS))
    cluster.all_stop = False
    cluster.tasks.look()
    assert {worker.offered() is not None for worker in workers} == {True}
    moved = Cluster()
    first, *_ = moved.join("a", "b", "c")
    moved.take(first)
    moves = 0
    for old, new in (("a", "d"), ("b", "e"), ("c", "f")):
        gone = moved.workers[old]
        moved.lose(gone)
        if any(worker.told for worker in moved.workers.values()):
            (taker,) = [worker for worker in moved.workers.values() if worker.told]
            moved.take(taker)
            moves += 1
        moved.join(new)
    assert moves == 2 and moved.row.tag == "e"  # not three: from the one that ended to the last


def test_nothing_is_offered_while_all_stops() -> None:
    cluster = Cluster()
    first, second = cluster.join("a", "b")
    number = cluster.take(first)
    cluster.all_stop = True
    cluster.say(first, run_once.ends("ticker", number, End.GIVEN_BACK))
    assert second.offered() is None


def test_there_is_a_most_of_tasks(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster()
    (worker,) = cluster.join("a")
    for number in range(RUN_ONCE_TASKS):
        cluster.say(worker, run_once.task(f"task-{number}", Word.WANTS))
    assert len(cluster.tasks.rows()) == RUN_ONCE_TASKS
    assert f"task task-{RUN_ONCE_TASKS - 1} of worker workers:a is not run" in caplog.text
    cluster.say(worker, run_once.holds("one-more", 1, 0))
    assert worker.told[-1] == run_once.lost("one-more", 1)


def test_what_a_worker_says_late_of_a_task_of_another_changes_nothing() -> None:
    cluster = Cluster()
    first, second = cluster.join("a", "b")
    number = cluster.take(first)
    for end in End:
        cluster.say(second, run_once.ends("ticker", number, end))
        cluster.say(first, run_once.ends("ticker", number - 1, end))
    cluster.say(second, run_once.ends("unknown", number, End.DONE))
    assert cluster.row[:4] == ("ticker", "running", "a", number)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "task"},
        {"type": "task", "name": "", "word": "wants"},
        {"type": "task", "name": "x" * 65, "word": "wants"},
        {"type": "task", "name": "with space", "word": "wants"},
        {"type": "task", "name": "a", "word": ["wants"]},
        {"type": "task-holds", "name": "a", "number": 0, "seconds": 0},
        {"type": "task-holds", "name": "a", "number": 2**53, "seconds": 0},
        {"type": "task-holds", "name": "a", "number": True, "seconds": 0},
        {"type": "task-holds", "name": "a", "number": 1, "seconds": -1},
        {"type": "task-holds", "name": "a", "number": 1, "seconds": "1"},
        {"type": "task-ends", "name": "a", "number": 1, "end": "x"},
    ],
)
def test_what_is_not_understood(message: dict[str, Any]) -> None:
    cluster = Cluster()
    (worker,) = cluster.join("a")
    with pytest.raises(ChannelError):
        cluster.say(worker, message)
