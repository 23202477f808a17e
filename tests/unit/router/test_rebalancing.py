"""A rebalance, with workers that close connections, and clients that come back a second later."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any, Callable, Optional

import pytest

from supervisor_sio.common.limits import (
    REBALANCE_RATE,
    REBALANCE_ROUNDS,
    REBALANCE_START,
    REBALANCE_WAIT,
)
from supervisor_sio.router.pool import Member, Pool
from supervisor_sio.router.rebalancing import TICK, Rebalancing, why_not
from supervisor_sio.router.supervisord import CommandError


class Cluster:
    """Workers with so many clients, of which those that were closed are away for a second."""

    def __init__(self, *counts: int, method: str = "random") -> None:
        self.now = 1000.0
        self.pool = Pool(method)
        self.expected: list[str] = []
        self.held = 0
        self.changes = 0
        #: By tag, how many clients a worker closes at most; none answers that is not in it.
        self.closes: dict[str, Optional[int]] = {}
        self.closed: Counter[str] = Counter()
        #: When clients come back.
        self.away: list[float] = []
        self.away_for = 1.0
        #: Answers that are held back, where a test wants that.
        self.answers: Optional[list[Callable[[], None]]] = None
        self._calls: list[tuple[float, Callable[[], None]]] = []
        for number, count in enumerate(counts):
            self.add(f"t{number}", count)
        self.rebalancing = Rebalancing(
            pool=self.pool,
            ask=self._ask,
            expected=lambda: self.expected,
            held=lambda: self.held,
            call_later=lambda seconds, call: self._calls.append((self.now + seconds, call)),
            changed=self._count_change,
            clock=lambda: self.now,
        )

    def add(self, tag: str, count: int) -> Member:
        member = Member(tag, f"w:{tag}", 1, ready=True, figures={"sessions": count})
        self.pool.add(member)
        return member

    def member(self, tag: str) -> Member:
        return next(member for member in self.pool if member.tag == tag)

    def _count_change(self) -> None:
        self.changes += 1

    def _ask(self, tag: str, most: int, done: Callable[[int], None]) -> None:
        allowed = self.closes.get(tag, most)
        if allowed is None:
            done(0)
            return
        closed = min(allowed, most)
        member = self.member(tag)
        member.figures = {**member.figures, "sessions": member.figures["sessions"] - closed}
        self.closed[tag] += closed
        self.away += [self.now + self.away_for] * closed
        if self.answers is None:
            done(closed)
        else:
            self.answers.append(partial(done, closed))

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK)):
            self.now += TICK
            due = [call for at, call in self._calls if at <= self.now + 1e-6]
            self._calls = [one for one in self._calls if one[0] > self.now + 1e-6]
            for call in due:
                call()
            for at in [at for at in self.away if at <= self.now]:
                self.away.remove(at)
                member = self.pool.place_handshake()
                if member is None:
                    self.away.append(self.now + self.away_for)
                else:
                    member.handshakes += 1  # the report of the others is late
                    opened = member.figures.get("opened", 0) + 1
                    member.figures = {**member.figures, "opened": opened}

    def run_to_its_end(self) -> dict[str, Any]:
        for _ in range(100):
            if self.shown["state"] == "idle":
                return self.shown
            self.run(1)
        raise AssertionError(self.shown)

    @property
    def shown(self) -> dict[str, Any]:
        return self.rebalancing.shown()

    @property
    def loads(self) -> list[int]:
        return [member.load for member in self.pool]


@pytest.mark.parametrize("method", ["least-connection", "round-robin", "random"])
def test_clients_go_to_those_that_have_fewer(method: str) -> None:
    """Whatever the method is by which others are placed."""
    cluster = Cluster(40, 40, 0, 0, method=method)
    cluster.rebalancing.begin()
    assert cluster.pool.evens_out
    shown = cluster.run_to_its_end()
    assert cluster.loads == [20, 20, 20, 20]
    assert cluster.closed == {"t0": 20, "t1": 20}
    assert not cluster.pool.evens_out
    assert (shown["result"], shown["closed"], shown["number"], shown["round"]) == ("even", 40, 1, 1)
    assert 1 <= shown["seconds"] <= 3


def test_some_a_second() -> None:
    cluster = Cluster(2000, 0)
    cluster.rebalancing.begin()
    for second in range(1, 10):
        cluster.run(1)
        assert abs(cluster.closed["t0"] - second * REBALANCE_RATE) <= REBALANCE_RATE * TICK
    shown = cluster.shown
    assert shown["state"] == "closing" and shown["closed"] + shown["left"] == 1000
    assert 0 < shown["away"] <= 2 * REBALANCE_RATE and shown["seconds"] == 9
    assert cluster.run_to_its_end()["result"] == "even" and cluster.loads == [1000, 1000]


def test_all_that_have_too_many_take_turns() -> None:
    cluster = Cluster(500, 500, 0, 0)
    cluster.rebalancing.begin()
    cluster.run(1)
    assert cluster.closed["t0"] == cluster.closed["t1"]
    assert abs(sum(cluster.closed.values()) - REBALANCE_RATE) <= REBALANCE_RATE * TICK


def test_an_even_load_stays_as_it_is() -> None:
    cluster = Cluster(21, 20, 19)
    cluster.rebalancing.begin()
    assert cluster.shown["state"] == "idle" and cluster.shown["result"] == "even"
    assert cluster.shown["number"] == 1 and not cluster.closed
    assert cluster.changes == 1, "who waits for the result has it"


def test_a_second_one_waits_for_the_first() -> None:
    cluster = Cluster(40, 0)
    cluster.rebalancing.begin()
    with pytest.raises(CommandError, match="another rebalance is under way"):
        cluster.rebalancing.begin()
    cluster.run_to_its_end()
    assert cluster.closed == {"t0": 20}
    cluster.rebalancing.begin()
    assert cluster.shown["number"] == 2


def test_it_can_be_stopped_and_begun_again() -> None:
    cluster = Cluster(400, 0)
    cluster.rebalancing.begin()
    cluster.answers = []
    cluster.run(TICK)
    cluster.rebalancing.stop()
    assert cluster.shown["result"] == "stopped" and not cluster.pool.evens_out
    late, cluster.answers = cluster.answers, None
    closed = cluster.closed["t0"]
    cluster.run(5)
    assert cluster.closed["t0"] == closed > 0
    cluster.rebalancing.begin()
    part = cluster.shown["closed"]
    for answer in late:
        answer()  # of the first one: it says nothing of this one
    assert cluster.shown["closed"] == part
    assert cluster.run_to_its_end()["result"] == "even"
    assert cluster.loads == [200, 200]
    cluster.rebalancing.stop()
    assert cluster.shown["result"] == "even", "there is none to be stopped"


def test_a_worker_that_has_not_answered_is_not_asked_again() -> None:
    cluster = Cluster(400, 0)
    cluster.answers = []
    cluster.rebalancing.begin()
    cluster.run(2)
    assert len(cluster.answers) == 1 and cluster.shown["closed"] == 0
    late, cluster.answers = cluster.answers, None
    late[0]()
    assert cluster.run_to_its_end()["closed"] == 200


@pytest.mark.parametrize("seconds", [5, REBALANCE_START - 5])
def test_a_worker_dies_and_comes_again(seconds: float) -> None:
    """Its clients are at the others then; a second round gives the new process its share, even if
    that takes long to start."""
    cluster = Cluster(40, 40, 0, 0)
    cluster.rebalancing.begin()
    cluster.run(0.5)
    (dead, lost) = cluster.member("t1"), cluster.member("t1").load
    cluster.pool.remove(dead)
    cluster.away += [cluster.now + 1.0] * lost
    cluster.expected = ["w:t1"]
    cluster.run(seconds)
    assert cluster.shown["state"] == "waiting" and cluster.shown["round"] == 1
    cluster.expected = []
    cluster.add("t4", 0)
    shown = cluster.run_to_its_end()
    assert shown["result"] == "even" and shown["round"] == 2
    assert sum(cluster.loads) == 80 and max(cluster.loads) - min(cluster.loads) <= 2


def test_a_worker_that_starts_again_and_again_is_not_waited_for_long() -> None:
    cluster = Cluster(40, 0)
    cluster.rebalancing.begin()
    cluster.expected = ["w:t2"]
    cluster.run(REBALANCE_START - 1)
    assert cluster.shown["state"] == "waiting"
    assert cluster.run_to_its_end()["result"] == "even"
    assert cluster.now - 1000 < REBALANCE_START + REBALANCE_WAIT + 2


def test_after_a_worker_has_started_its_clients_have_time_to_come() -> None:
    """They may have waited for it."""
    cluster = Cluster(40, 0)
    cluster.away_for = REBALANCE_START / 2 + REBALANCE_WAIT - 1
    cluster.rebalancing.begin()
    cluster.expected = ["w:t2"]
    cluster.run(REBALANCE_START / 2)
    cluster.expected = []
    assert cluster.run_to_its_end()["result"] == "even"
    assert cluster.loads == [20, 20]


def test_the_only_one_that_is_left_has_its_share() -> None:
    cluster = Cluster(40, 0)
    cluster.rebalancing.begin()
    cluster.pool.remove(cluster.member("t1"))
    assert cluster.run_to_its_end()["result"] == "even"


def test_clients_that_leave_by_themselves_need_not_be_closed() -> None:
    cluster = Cluster(400, 0)
    cluster.rebalancing.begin()
    cluster.run(0.3)
    member = cluster.member("t0")
    member.figures = {"sessions": 150}
    closed = cluster.closed["t0"]
    cluster.run(0.5)
    assert cluster.closed["t0"] == closed and cluster.shown["state"] == "waiting"


def test_clients_that_do_not_come_back_are_waited_for_a_while() -> None:
    cluster = Cluster(40, 0)
    cluster.away_for = 1000.0
    cluster.rebalancing.begin()
    cluster.run(REBALANCE_WAIT - 1)
    shown = cluster.shown
    assert (shown["state"], shown["closed"], shown["away"]) == ("waiting", 20, 20)
    shown = cluster.run_to_its_end()
    assert shown["result"] == "uneven" and shown["round"] == 1, "no others are disconnected"
    assert cluster.loads == [20, 0]


MOST_AWAY = round(REBALANCE_RATE * REBALANCE_WAIT)


def test_no_others_are_disconnected_while_nobody_comes_back() -> None:
    cluster = Cluster(10_000, 0)
    cluster.away_for = 1000.0
    cluster.rebalancing.begin()
    cluster.run(REBALANCE_WAIT + 5)
    shown = cluster.shown
    assert (shown["state"], shown["closed"], shown["away"]) == ("closing", MOST_AWAY, MOST_AWAY)
    shown = cluster.run_to_its_end()
    assert (shown["result"], shown["round"], shown["closed"]) == ("uneven", 1, MOST_AWAY)
    assert cluster.now - 1000 < 2 * REBALANCE_WAIT + 2


def test_others_are_disconnected_when_the_first_are_back() -> None:
    cluster = Cluster(10_000, 0)
    cluster.away_for = 1.5 * REBALANCE_WAIT  # longer than most, but not so long that it ends
    cluster.rebalancing.begin()
    most_away = 0
    while cluster.shown["state"] != "idle":
        cluster.run(1)
        most_away = max(most_away, cluster.shown["away"])
    assert cluster.shown["result"] == "even" and cluster.closed["t0"] == 5000
    assert most_away == MOST_AWAY


def leave_for_good(member: Member, count: int) -> None:
    sessions = member.figures["sessions"] - count
    member.figures = {**member.figures, "sessions": sessions}


def test_clients_that_leave_for_good_are_not_waited_for() -> None:
    """So many that as many more would be too many, if they had been disconnected."""
    cluster = Cluster(10_000, 4000)
    cluster.rebalancing.begin()
    cluster.run(5)
    leave_for_good(cluster.member("t1"), 3 * MOST_AWAY // 2)
    cluster.run(2)
    assert cluster.shown["away"] <= 2 * REBALANCE_RATE, "only those that were disconnected just now"
    shown = cluster.run_to_its_end()
    assert (shown["result"], shown["round"]) == ("even", 2)
    assert sum(cluster.loads) == 14_000 - 3 * MOST_AWAY // 2


def test_clients_that_leave_for_good_at_the_end_of_a_round_do_not_keep_the_next_one() -> None:
    cluster = Cluster(40, 20, 0)
    cluster.rebalancing.begin()
    cluster.run(0.5)
    assert cluster.shown["state"] == "waiting"
    leave_for_good(cluster.member("t0"), 12)
    shown = cluster.run_to_its_end()
    assert (shown["result"], shown["round"]) == ("even", 2)
    assert cluster.now - 1000 < REBALANCE_WAIT


@pytest.mark.parametrize("state", ["drained", "draining", "hung"])
def test_a_worker_that_takes_no_new_clients_any_more_is_left_out(state: str) -> None:
    """It need not have disconnected all of its clients."""
    cluster = Cluster(6000, 0, 4000)
    cluster.rebalancing.begin()
    cluster.run(2)
    setattr(cluster.member("t2"), state, True)
    shown = cluster.run_to_its_end()
    assert (shown["result"], shown["round"]) == ("even", 2)
    first, second, left_out = cluster.loads
    assert abs(first - second) <= 1 and left_out > 3000


def test_who_has_come_back_is_not_away_when_the_worker_goes() -> None:
    cluster = Cluster(300, 0)
    cluster.rebalancing.begin()
    cluster.expected = ["w:t3"]
    cluster.run(0.5)
    new = cluster.add("t2", 0)
    cluster.run(5)
    assert cluster.shown["away"] == 0 and new.load > 0
    cluster.pool.remove(new)
    assert cluster.shown["away"] == 0


def test_who_is_refused_and_tries_again_is_away() -> None:
    cluster = Cluster(40, 0)
    cluster.away_for = 1000.0
    cluster.rebalancing.begin()
    cluster.run(1)
    member = cluster.member("t1")
    member.handshakes += 100
    member.figures = {**member.figures, "handshakes_seen": 100}
    assert cluster.shown["away"] == 20


def test_a_worker_that_has_not_reported_again_had_clients_that_came() -> None:
    cluster = Cluster(40, 0)
    cluster.rebalancing.begin()
    cluster.expected = ["w:t3"]
    cluster.run(5)
    assert cluster.shown["away"] == 0
    cluster.pool.remove(cluster.member("t1"))
    cluster.add("t1", 0)
    assert cluster.shown["away"] == 0


def test_all_workers_go() -> None:
    cluster = Cluster(40, 0)
    cluster.rebalancing.begin()
    for tag in ("t0", "t1"):
        cluster.pool.remove(cluster.member(tag))
    assert cluster.run_to_its_end()["result"] == "uneven"


def test_new_clients_do_not_delay_the_end() -> None:
    """Workers that have disconnected their clients are above their share of the beginning then."""
    cluster = Cluster(40, 0)
    cluster.rebalancing.begin()
    cluster.run(0.5)
    for tag in ("t0", "t1"):
        member = cluster.member(tag)
        member.figures = {"sessions": member.figures["sessions"] + 5}
    assert cluster.run_to_its_end()["result"] == "even"
    assert cluster.now - 1000 < REBALANCE_WAIT / 2
    assert cluster.loads == [25, 25]


@pytest.mark.parametrize("most", [None, 0, 3])
def test_a_worker_that_closes_fewer_ends_no_earlier_than_it_has_to(most: Optional[int]) -> None:
    """One of an older version, for example."""
    cluster = Cluster(40, 0)
    cluster.closes["t0"] = most
    cluster.rebalancing.begin()
    shown = cluster.run_to_its_end()
    assert shown["result"] == "uneven"
    assert cluster.closed["t0"] == (most or 0) * REBALANCE_ROUNDS
    assert cluster.now - 1000 < REBALANCE_WAIT + 2


def test_figures_that_are_late_close_nothing_twice() -> None:
    """A session counts until its disconnect handler has ended."""
    cluster = Cluster(40, 0)
    cluster.rebalancing.begin()
    member = cluster.member("t0")
    for _ in range(60):
        member.figures = {"sessions": 40}  # as if nobody had gone yet
        cluster.run(TICK)
    assert cluster.shown["state"] == "waiting"
    assert cluster.closed["t0"] == 20
    member.figures = {"sessions": 20}
    assert cluster.run_to_its_end()["result"] == "even"
    assert cluster.closed["t0"] == 20 and cluster.loads == [20, 20]


def test_slow_disconnect_handlers_let_no_others_be_disconnected() -> None:
    cluster = Cluster(40, 0)
    cluster.rebalancing.begin()
    member = cluster.member("t0")
    while cluster.shown["state"] != "idle":
        member.figures = {"sessions": 40}  # all handlers still run
        cluster.run(TICK)
    assert cluster.shown["result"] == "uneven" and cluster.shown["round"] == 1
    assert cluster.closed["t0"] == 20


READY: dict[str, Any] = {"ready": True}


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        ([READY, READY], ""),
        ([READY, READY, {**READY, "hung": True}], ""),
        ([READY, READY, {**READY, "drained": True}], ""),
        ([READY, READY, {**READY, "drained": True, "drained_at": 998}], "w:2 is drained: a reload"),
        ([READY, READY, {**READY, "draining": True}], "w:2 is draining: a reload"),
        ([READY, READY, {}], ""),
        ([READY, {}], "at least two workers must be ready; 1 is ready"),
        ([READY, {**READY, "hung": True}], "at least two workers must be ready; 1 is ready"),
        ([], "at least two workers must be ready; none is ready"),
    ],
)
def test_when_clients_cannot_be_spread(states: list[dict[str, Any]], reason: str) -> None:
    members = [Member(f"t{n}", f"w:{n}", n, **state) for n, state in enumerate(states)]
    assert why_not(members, [], 0, 1000.0).startswith(reason)
    assert bool(why_not(members, [], 0, 1000.0)) == bool(reason)


def test_workers_and_sessions_that_are_about_to_be_there() -> None:
    cluster = Cluster(40, 0)
    cluster.expected = ["w:3"]
    with pytest.raises(CommandError, match="^w:3 is starting, or was stopped just now: a reload"):
        cluster.rebalancing.begin()
    cluster.expected, cluster.held = [], 3
    with pytest.raises(CommandError, match="^sessions are on their way from one worker"):
        cluster.rebalancing.begin()
    assert cluster.shown["number"] == 0 and cluster.changes == 0
