from __future__ import annotations

import random
import re
from typing import Any, Callable, Optional

import pytest

from supervisor_sio.common.limits import (
    DRAIN_TIME,
    RECYCLE_DRAIN,
    RECYCLE_EARLY,
    RECYCLE_NOTICE,
    RECYCLE_PAUSE,
    RECYCLE_QUIET,
    RECYCLE_START,
)
from supervisor_sio.supervisord import recycling as module
from supervisor_sio.supervisord.overdue import Limits, Overdue, Reason, Seen, pause_after
from supervisor_sio.supervisord.recycling import Do, Recycling, Step

MB = 2**20
MEMORY = Limits(max_memory=500 * MB)
W0, W1, W2 = (f"w:w_{number}" for number in range(3))

#: Seconds between two looks.
BEAT = 0.5


class Cluster:
    """Workers and a supervisord that executes the actions, with a simulated clock."""

    def __init__(
        self,
        limits: Limits,
        workers: int = 3,
        takes: bool = False,
        chance: Callable[[], float] = lambda: 0.5,
    ) -> None:
        self.now = 1000.0
        self.overdue = Overdue(limits, chance=chance)
        self.recycling = Recycling(self.overdue)
        self.pids = iter(range(100, 1000))
        self.workers: dict[str, Seen] = {}
        #: Seconds that a worker takes to end, and to be ready again; ``None`` for ever.
        self.ends_in: Optional[float] = 1.0
        self.starts_in: Optional[float] = 2.0
        #: When, to whom, and what.
        self.due: list[tuple[float, str, Callable[[], None]]] = []
        #: The workers as they were at the last look.
        self.seen: dict[str, Seen] = {}
        self.done: list[tuple[float, Do, str]] = []
        self.lines: list[str] = []
        #: Called after each look.
        self.after: Callable[[], None] = lambda: None
        for number in range(workers):
            name = f"w:w_{number}"
            self.workers[name] = Seen(
                name, next(self.pids), "ready", True, True, takes, 100 * MB, 10, 0, 15
            )
        self.look()

    def set(self, name: str, **changes: Any) -> None:
        self.workers[name] = self.workers[name]._replace(**changes)

    def look(self) -> None:
        for one in self.due[:]:
            if one[0] <= self.now and one in self.due:
                self.due.remove(one)
                one[2]()
        self.seen = dict(self.workers)
        for action in self.recycling.look(self.now, self.workers.values()):
            self._do(action.do, action.name)
            if action.line:
                self.lines.append(action.line)
        self.after()

    def run(self, seconds: float) -> list[tuple[Do, str]]:
        """Let time pass; returns the executed actions."""
        before, end = len(self.done), self.now + seconds
        while self.now < end:
            self.now += BEAT
            for name, worker in self.workers.items():
                self.set(name, age=worker.age + BEAT)
            self.look()
        return [(do, name) for _, do, name in self.done[before:]]

    def _do(self, do: Do, name: str) -> None:
        self.done.append((self.now, do, name))
        if do is Do.DRAIN:
            self.set(name, state="drained")
        elif do is Do.UNDRAIN:
            self.set(name, state="ready")
        elif do is Do.STOP:
            self.set(name, state="draining")
            if self.ends_in is not None:
                self.due.append((self.now + self.ends_in, name, lambda: self.ended(name)))
        elif do is Do.KILL:
            self.ended(name)

    def ended(self, name: str) -> None:
        self.set(name, process=0, state="backoff", steady=False, joined=False, silent=0)
        self.forget_due(name)
        self.due.append((self.now + BEAT, name, lambda: self.start(name)))

    def start(self, name: str) -> None:
        self.set(name, process=next(self.pids), state="starting", memory=90 * MB, age=0)
        if self.starts_in is not None:
            self.due.append(
                (
                    self.now + self.starts_in,
                    name,
                    lambda: self.set(name, state="ready", steady=True, joined=True),
                )
            )

    def forget_due(self, name: str) -> None:
        self.due = [one for one in self.due if one[1] != name]

    @property
    def step(self) -> Step:
        return self.recycling._step

    @property
    def away(self) -> list[str]:
        """The workers that take no new sessions now."""
        return [worker.name for worker in self.workers.values() if worker.state != "ready"]

    def until(self, step: Step, seconds: float = 60) -> None:
        end = self.now + seconds
        while self.step is not step:
            assert self.now < end, f"{self.step} after {seconds} s"
            self.run(BEAT)


def test_one_over_its_memory_is_drained_stopped_and_started() -> None:
    cluster = Cluster(MEMORY)
    assert cluster.run(60) == []
    cluster.set(W1, memory=512 * MB)
    cluster.until(Step.DRAINING)
    started = cluster.now
    cluster.until(Step.STARTING)
    assert cluster.now - started >= DRAIN_TIME
    cluster.until(Step.IDLE)
    assert [(do, name) for _, do, name in cluster.done] == [(Do.DRAIN, W1), (Do.STOP, W1)]
    assert cluster.lines == ["recycling w:w_1 (pid 101): memory 512 MB of 500"]
    assert cluster.recycling.recycled == {"memory": 1}
    assert cluster.run(60) == []


def test_all_at_once_over_their_memory_go_one_at_a_time() -> None:
    cluster = Cluster(MEMORY)
    cluster.run(20)

    def check() -> None:
        assert len(cluster.away) <= 1, cluster.away

    cluster.after = check
    for number, name in enumerate(cluster.workers):
        cluster.set(name, memory=(600 + number) * MB)
    cluster.run(60)
    stopped = [name for _, do, name in cluster.done if do is Do.STOP]
    assert stopped == [W2, W1, W0]  # the one with most of it first
    times = [when for when, do, _ in cluster.done if do is Do.STOP]
    assert all(b - a > RECYCLE_QUIET + RECYCLE_NOTICE for a, b in zip(times, times[1:]))


def test_with_takeover_it_is_not_drained_as_others_would_get_its_sessions() -> None:
    cluster = Cluster(MEMORY, takes=True)
    cluster.set(W1, memory=512 * MB)
    assert cluster.run(30) == [(Do.STOP, W1)]


def test_the_only_one_is_not_drained() -> None:
    cluster = Cluster(MEMORY, workers=1)
    cluster.set(W0, memory=512 * MB)
    assert cluster.run(30) == [(Do.STOP, W0)]


def test_each_process_has_a_lifetime_of_its_own_below_the_limit() -> None:
    chances = iter([0.0, 1.0, 0.5])
    cluster = Cluster(Limits(max_lifetime=100), chance=lambda: next(chances, 0.0))
    cluster.run(79.5)
    assert cluster.done == []
    cluster.run(5)
    assert cluster.done[0][1:] == (Do.DRAIN, W1)
    assert cluster.recycling.shown(cluster.now)["text"] == "lifetime 90 s of 100"
    cluster.run(15)
    assert [name for _, do, name in cluster.done if do is Do.STOP] == [W1, W2]
    assert cluster.recycling.recycled == {"lifetime": 2}


# --- one that hangs ---------------------------------------------------------------------


def test_one_that_hangs_is_killed_once_when_its_time_is_over() -> None:
    cluster = Cluster(Limits(hung_timeout=10))
    cluster.set(W1, state="hung", silent=9)
    assert cluster.run(2) == []
    cluster.set(W1, silent=10)
    cluster.look()
    assert cluster.done[0][1:] == (Do.KILL, W1)
    (line,) = cluster.lines
    assert line == "killing w:w_1 (pid 101): it hangs: no report for 10 s (hung_timeout 10)"
    assert cluster.recycling.ends(W1, 101) is Reason.HUNG
    assert cluster.recycling.ends(W0, 100) is None
    assert cluster.run(60) == [] and cluster.recycling.recycled == {"hung": 1}


def test_one_that_hangs_beyond_its_lifetime_is_killed_for_that() -> None:
    cluster = Cluster(Limits(max_lifetime=60, hung_timeout=90))
    cluster.set(W1, state="hung", silent=89, age=100)
    assert cluster.run(2) == []
    cluster.set(W1, silent=90)
    assert cluster.run(BEAT) == [(Do.KILL, W1)]


@pytest.mark.parametrize("reason", [Reason.HUNG, Reason.MEMORY])
def test_a_successor_that_ends_before_the_next_look_has_ended_by_itself(reason: Reason) -> None:
    """Without a router there is no look in between."""
    cluster = Cluster(Limits(max_memory=500 * MB, hung_timeout=10))
    if reason is Reason.HUNG:
        cluster.set(W1, state="hung", silent=10)
        cluster.run(BEAT)
    else:
        cluster.set(W1, memory=512 * MB)
        cluster.until(Step.STOPPING)
    assert cluster.recycling.ends(W1, 101) is reason
    assert cluster.recycling.ends(W1, 102) is None


def test_one_that_does_not_die_at_once_is_not_killed_and_counted_again() -> None:
    cluster = Cluster(Limits(hung_timeout=10))
    cluster.set(W1, state="hung", silent=12)
    cluster.look()
    cluster.set(W1, process=101, state="hung", silent=13)  # it still waits for a disk
    cluster.due.clear()
    assert cluster.run(10) == [] and cluster.recycling.recycled == {"hung": 1}


@pytest.mark.parametrize("state", ["hung", "drained", "draining"])
def test_all_that_hang_are_killed_without_waiting_for_each_other(state: str) -> None:
    cluster = Cluster(Limits(hung_timeout=10, max_memory=500 * MB))
    cluster.set(W2, memory=600 * MB)
    cluster.until(Step.STOPPING)
    cluster.set(W0, state=state, silent=10)
    cluster.set(W1, state=state, silent=11)
    assert cluster.run(BEAT)[:2] == [(Do.KILL, W0), (Do.KILL, W1)]


def test_one_that_hangs_and_so_is_unknown_to_a_new_router_is_killed() -> None:
    cluster = Cluster(Limits(hung_timeout=10))
    cluster.set(W1, state="hung", silent=7)
    cluster.run(1)
    cluster.now += 20  # without a router there is no look
    cluster.set(W1, state="starting", joined=False, silent=0)
    cluster.run(5)
    cluster.now += 20  # nor now
    assert cluster.run(9.5) == []  # others have so long to connect
    assert cluster.run(1) == [(Do.KILL, W1)]
    assert cluster.recycling.recycled == {"hung": 1}


def test_one_that_has_never_been_ready_may_take_its_time_to_start() -> None:
    cluster = Cluster(Limits(hung_timeout=10))
    cluster.starts_in = None
    cluster.start(W1)
    cluster.set(W1, steady=True, joined=False)
    assert cluster.run(100) == []


@pytest.mark.parametrize("who", ["supervisord", "we"])
def test_one_that_is_stopped_has_its_stopwaitsecs_behind_its_good_bye_to_the_router(
    who: str,
) -> None:
    cluster = Cluster(Limits(max_memory=500 * MB, hung_timeout=6))
    cluster.ends_in = None
    if who == "we":
        cluster.set(W1, memory=512 * MB)
        cluster.until(Step.STOPPING)
    cluster.set(W1, state="starting", joined=False, steady=who == "we")
    assert cluster.run(14) == []
    assert cluster.run(5) == ([(Do.KILL, W1)] if who == "we" else [])
    assert "hung" not in str(cluster.lines)


def test_without_hung_timeout_nobody_is_killed() -> None:
    cluster = Cluster(MEMORY)
    cluster.set(W1, state="hung", silent=1000)
    assert cluster.run(60) == []


# --- beside others ----------------------------------------------------------------------


@pytest.mark.parametrize("takes", [False, True])
def test_an_operator_who_begins_meanwhile_goes_first(takes: bool) -> None:
    cluster = Cluster(MEMORY, takes=takes)
    cluster.set(W1, memory=512 * MB)
    cluster.until(Step.ANNOUNCED)
    cluster.set(W0, state="drained")  # the first step of `sio reload`, or of `sio drain`
    assert cluster.run(BEAT) == [] and cluster.step is Step.IDLE
    cluster.set(W0, process=0, state="stopped")
    cluster.run(BEAT)
    cluster.set(W0, process=777, state="starting")
    assert cluster.run(20) == []  # it has not come back
    cluster.set(W0, state="ready")
    cluster.run(RECYCLE_QUIET)
    # The next step comes sooner than that.
    assert cluster.done == []
    cluster.until(Step.STOPPING)


def test_an_operator_who_begins_while_it_is_drained_gets_it_back() -> None:
    cluster = Cluster(MEMORY)
    cluster.set(W1, memory=512 * MB)
    cluster.until(Step.DRAINING)
    cluster.set(W0, process=0, state="stopped")  # supervisorctl stop
    assert cluster.run(BEAT) == [(Do.UNDRAIN, W1)]
    assert cluster.step is Step.IDLE and cluster.workers[W1].state == "ready"
    # One that is stopped for good does not keep the others from it.
    cluster.until(Step.STARTING)


@pytest.mark.parametrize("step", [Step.STOPPING, Step.STARTING])
def test_one_that_an_operator_stops_stays_stopped(step: Step) -> None:
    cluster = Cluster(MEMORY)
    cluster.starts_in = None
    cluster.set(W1, memory=512 * MB)
    cluster.until(step)
    cluster.due.clear()
    cluster.set(W1, process=0, state="stopped")
    assert cluster.run(60) == [] and cluster.step is Step.IDLE


def test_one_that_is_removed_is_forgotten() -> None:
    cluster = Cluster(MEMORY)
    cluster.set(W1, memory=512 * MB)
    cluster.until(Step.DRAINING)
    del cluster.workers[W1]
    assert cluster.run(10) == []
    assert cluster.step is Step.IDLE and not cluster.recycling.shown(cluster.now)["waiting"]


def test_one_that_is_restarted_meanwhile_is_left_alone() -> None:
    cluster = Cluster(MEMORY)
    cluster.set(W1, memory=512 * MB)
    cluster.until(Step.DRAINING)
    cluster.set(W1, process=555, state="ready", memory=100 * MB)
    assert cluster.run(60) == [] and cluster.step is Step.IDLE


@pytest.mark.parametrize("state", ["fatal", "failing", "backoff", "exited"])
def test_nobody_is_recycled_while_another_one_cannot_start(state: str) -> None:
    cluster = Cluster(MEMORY)
    cluster.set(W0, state=state)
    cluster.set(W1, memory=512 * MB)
    assert cluster.run(100) == [(Do.SAY, W1)]
    assert cluster.lines == [f"{W1} is due (memory 512 MB of 500), but waits: {W0} does not run"]
    (row,) = cluster.recycling.shown(cluster.now)["waiting"]
    assert row == {"worker": W1, "text": f"is due, memory 512 MB of 500, waits for {W0} ({state})"}
    cluster.set(W0, state="ready")
    cluster.until(Step.STARTING)


def test_one_that_does_not_come_back_keeps_the_others() -> None:
    cluster = Cluster(MEMORY)
    cluster.starts_in = None
    cluster.set(W1, memory=512 * MB)
    cluster.set(W2, memory=511 * MB)
    cluster.until(Step.STARTING)
    cluster.run(RECYCLE_START + 60)
    assert [name for _, do, name in cluster.done if do is Do.STOP] == [W1]
    assert cluster.lines[1] == (
        f"{W1} was recycled, and its new process is not ready (starting): no further worker is "
        "recycled until it is"
    )
    cluster.set(W1, state="failing")
    cluster.run(60)
    assert [name for _, do, name in cluster.done if do is Do.STOP] == [W1]


# --- what goes wrong --------------------------------------------------------------------


def test_one_that_does_not_end_is_killed_after_its_stopwaitsecs() -> None:
    cluster = Cluster(MEMORY)
    cluster.ends_in = None
    cluster.set(W1, memory=512 * MB, stop_time=7)
    cluster.until(Step.STOPPING)
    began = cluster.now
    cluster.until(Step.STARTING)
    assert 7 <= cluster.now - began <= 7 + 2 * BEAT
    assert cluster.done[-1][1:] == (Do.KILL, W1)
    assert cluster.lines[-1].endswith("it has not ended within 7 s (stopwaitsecs)")
    assert cluster.recycling.recycled == {"memory": 1}


def test_a_router_that_was_killed_with_the_command_unread_gets_it_again() -> None:
    cluster = Cluster(MEMORY)
    cluster.set(W1, memory=512 * MB)
    cluster.until(Step.DRAINING)
    cluster.set(W1, state="ready")
    assert cluster.run(BEAT) == [(Do.DRAIN, W1)]
    cluster.until(Step.STARTING)


def test_one_that_is_never_drained_is_given_up_for_now() -> None:
    cluster = Cluster(MEMORY)
    cluster.set(W1, memory=512 * MB)
    cluster.until(Step.DRAINING)
    began = cluster.now

    def refuse() -> None:
        cluster.set(W1, state="ready")

    cluster.after = refuse
    cluster.until(Step.IDLE)
    assert cluster.now - began >= RECYCLE_DRAIN and cluster.done[-1][1:] == (Do.UNDRAIN, W1)


@pytest.mark.parametrize("router", ["the same", "a new one"])
def test_one_that_is_given_up_is_undrained_until_the_router_has_done_it(router: str) -> None:
    cluster = Cluster(MEMORY)
    cluster.set(W1, memory=512 * MB)
    cluster.until(Step.DRAINING)
    cluster.after = lambda: cluster.set(W1, state="drained")  # whatever it is told
    cluster.set(W0, process=0, state="stopped")
    assert cluster.run(3 * BEAT) == [(Do.UNDRAIN, W1)] * 3
    if router == "a new one":
        cluster.after = lambda: cluster.set(W1, state="starting", joined=False)
        cluster.run(3 * BEAT)
    cluster.after = lambda: None
    cluster.set(W1, state="drained", joined=True)
    assert cluster.run(BEAT) == [(Do.UNDRAIN, W1)] and cluster.workers[W1].state == "ready"
    cluster.run(BEAT)
    cluster.set(W1, state="drained")  # now it is an operator
    assert cluster.run(30) == []


def test_the_next_process_of_one_that_is_given_up_is_not_undrained() -> None:
    cluster = Cluster(MEMORY)
    cluster.set(W1, memory=512 * MB)
    cluster.until(Step.DRAINING)
    cluster.set(W0, process=0, state="stopped")
    cluster.run(BEAT)
    cluster.set(W1, process=555, state="drained", memory=100 * MB)
    assert cluster.run(30) == []


def test_a_limit_below_what_a_worker_begins_with_is_said_once_and_recycles_nobody() -> None:
    cluster = Cluster(Limits(max_memory=100 * MB))
    assert cluster.lines == [
        f"max_memory is too low: {W0} has 100 MB of 100 when it is ready, so it is not recycled "
        "for its memory; set a larger limit"
    ]
    assert cluster.run(100) == [] and len(cluster.lines) == 1
    rows = cluster.recycling.shown(cluster.now)["waiting"]
    assert [row["worker"] for row in rows] == [W0, W1, W2]
    assert (
        rows[0]["text"] == "is not recycled for its memory: it began with the 100 MB of max_memory"
    )
    # Its successor begins with less: that is recycled.
    cluster.start(W1)
    cluster.run(5)
    cluster.set(W1, memory=120 * MB)
    cluster.until(Step.STARTING)


def test_one_that_needs_more_only_while_it_starts_is_recycled_when_it_grows_again() -> None:
    cluster = Cluster(Limits(max_memory=100 * MB))
    cluster.run(RECYCLE_EARLY)
    cluster.set(W1, memory=80 * MB)
    cluster.run(30)
    rows = cluster.recycling.shown(cluster.now)["waiting"]
    assert [row["worker"] for row in rows] == [W0, W2]
    cluster.set(W1, memory=120 * MB)
    cluster.until(Step.STARTING)
    assert cluster.lines[1:] == ["recycling w:w_1 (pid 101): memory 120 MB of 100"]


def test_one_that_grows_right_after_each_start_is_recycled_less_and_less_often() -> None:
    cluster = Cluster(MEMORY)

    def grow() -> None:
        for name, worker in cluster.workers.items():
            if name == W1 and worker.state == "ready" and worker.age >= 4:
                cluster.set(name, memory=700 * MB)

    cluster.after = grow
    cluster.run(3000)
    times = [when for when, do, _ in cluster.done if do is Do.STOP]
    pauses = [b - a for a, b in zip(times, times[1:])]
    assert pauses == sorted(pauses) and pauses[1] > 1.5 * RECYCLE_EARLY
    assert pauses[-1] == pauses[-2] and RECYCLE_PAUSE <= pauses[-1] <= RECYCLE_PAUSE + 20
    assert cluster.lines[1].endswith(
        "memory 700 MB of 500 within 10 s after it was ready; its next process runs for 20 s at "
        "least"
    )
    cluster.run(10)
    (row,) = cluster.recycling.shown(cluster.now)["waiting"]
    assert re.fullmatch(
        r"is due, memory 700 MB of 500 in \d+ s, because it grew right after its start", row["text"]
    )


def test_a_slow_leak_makes_no_pause() -> None:
    cluster = Cluster(MEMORY)

    def grow() -> None:
        for name, worker in cluster.workers.items():
            if worker.state == "ready":
                cluster.set(name, memory=worker.memory + 10 * MB)

    cluster.after = grow
    cluster.run(600)
    assert not cluster.overdue._early
    assert all(" within " not in line for line in cluster.lines)
    assert cluster.recycling.recycled["memory"] > 20


def test_the_pause_doubles_up_to_its_limit() -> None:
    assert [pause_after(times) for times in range(4)] == [0, 10, 20, 40]
    assert pause_after(1000) == RECYCLE_PAUSE


# --- at random --------------------------------------------------------------------------


class Operator:
    """Does at random what operators do and what happens to workers."""

    def __init__(self, cluster: Cluster, chance: random.Random) -> None:
        self.cluster = cluster
        self.chance = chance
        #: Who was drained, and not by this one.
        self.drained: set[str] = set()
        self.checked = 0
        cluster.after = self.check

    def act(self) -> None:
        cluster, name = self.cluster, self.chance.choice(list(self.cluster.workers))
        worker = cluster.workers[name]
        what = self.chance.choice(("grow", "grow", "hang", "stop", "start", "drain", "end", "gap"))
        if what == "grow" and worker.state == "ready":
            cluster.set(name, memory=600 * MB)
        elif what == "hang" and worker.state == "ready":
            cluster.set(name, state="hung", silent=self.chance.choice((7, 30)))
        elif what == "stop" and worker.process:
            cluster.forget_due(name)
            cluster.set(name, process=0, state="stopped", steady=False, joined=False)
        elif what == "start" and worker.state == "stopped":
            cluster.start(name)
        elif what == "drain" and worker.state in ("ready", "drained") and name not in self.drained:
            cluster.set(name, state="ready" if worker.state == "drained" else "drained")
        elif what == "end" and worker.process:
            cluster.ended(name)
        elif what == "gap":
            cluster.now += 10  # there was no router

    def check(self) -> None:
        new, self.checked = self.cluster.done[self.checked :], len(self.cluster.done)
        for _, do, name in new:
            others = {w.state for w in self.cluster.seen.values() if w.name != name}
            if do in (Do.DRAIN, Do.STOP):
                assert others <= {"ready", "hung", "drained", "stopped"}, "never two at a time"
            if do in (Do.STOP, Do.KILL):
                assert self.cluster.seen[name].process
            if do is Do.DRAIN:
                self.drained.add(name)
            else:
                self.drained.discard(name)
        for name in list(self.drained):
            if self.cluster.workers[name].state not in ("drained", "ready"):
                self.drained.discard(name)

    def end(self) -> None:
        """Undo everything that this operator has stopped, drained or made hang."""
        for name, worker in self.cluster.workers.items():
            if worker.state == "stopped":
                self.cluster.start(name)
            elif worker.state == "hung" or (worker.state, name in self.drained) == ("drained", 0):
                self.cluster.set(name, state="ready", silent=0)


@pytest.mark.parametrize("takes", [False, True])
def test_whatever_happens_it_is_one_at_a_time_and_nobody_stays_away(takes: bool) -> None:
    for seed in range(10):
        print(f"seed {seed}")
        cluster = Cluster(Limits(max_memory=500 * MB, hung_timeout=20), takes=takes)
        operator = Operator(cluster, random.Random(seed))
        for _ in range(200):
            if operator.chance.random() < 0.2:
                operator.act()
            cluster.run(BEAT)
        operator.end()
        cluster.run(2 * RECYCLE_PAUSE)
        states = {(worker.state, worker.memory > 500 * MB) for worker in cluster.workers.values()}
        assert states == {("ready", False)} and cluster.step is Step.IDLE


# --- what is shown ----------------------------------------------------------------------


def test_what_is_shown() -> None:
    assert not Recycling(Overdue(Limits())).on
    assert Recycling(Overdue(Limits())).shown(0.0)["state"] == "off"
    cluster = Cluster(Limits(500 * MB, 86400, 20))
    cluster.set(W1, memory=512 * MB)
    cluster.set(W2, memory=511 * MB)
    cluster.until(Step.STOPPING)
    cluster.run(BEAT)
    assert cluster.recycling.shown(cluster.now) == {
        "state": "on",
        "worker": W1,
        "reason": "memory",
        "text": "memory 512 MB of 500",
        "step": "waiting for its process to end",
        "seconds": 0,
        "limit": 15,
        "waiting": [
            {
                "worker": W2,
                "text": f"is due, memory 511 MB of 500, waits for {W1} (draining)",
            }
        ],
        "recycled": {"memory": 1, "lifetime": 0, "hung": 0},
    }


def test_how_long_each_step_may_take() -> None:
    cluster = Cluster(MEMORY)
    cluster.set(W1, memory=512 * MB, stop_time=2**40)  # more than an integer of XML-RPC holds
    limits = {}
    for step in (*list(Step)[1:], Step.IDLE):
        if step is Step.STARTING:
            cluster.ended(W1)
        cluster.until(step)
        limits[step] = cluster.recycling.shown(cluster.now)["limit"]
    assert limits == {
        Step.ANNOUNCED: RECYCLE_NOTICE,
        Step.DRAINING: RECYCLE_DRAIN,
        Step.STOPPING: 2**40,
        Step.STARTING: RECYCLE_START,
        Step.IDLE: 0,
    }
    assert all(type(limit) is float for limit in limits.values())


def test_each_step_is_in_the_table() -> None:
    assert module.__doc__ is not None
    rows = re.findall(r"^([A-Z]{2,}) ", module.__doc__, re.M)
    assert set(rows) == {step.name for step in Step}
