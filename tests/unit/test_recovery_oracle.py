"""The oracle of tests/bench/recovery.py sees what it is for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))

from recovery_oracle import Kill, Verdict, balance, judge  # noqa: E402
from takeover_oracle import Handled, Hearing, Sent  # noqa: E402

DEAD, ALIVE, SID, ROOM = "workers_00:1", "workers_01:2", "tag.sid", "room-3"
SENT = Sent.read("".join(f"{at}.0 {target}\n" for at, target in enumerate(["all", ROOM, "all"])))
UPS = "up 3 1 1.0 1.5\nup 3 2 2.0 2.5\n"
KILLS = [Kill(DEAD, 100.0)]


def heard(emitter: str, count: int, begins: bool = True) -> Hearing:
    hearing = Hearing(begins)
    for total, (target, number) in enumerate([("all", 1), (ROOM, 1), ("all", 2)][:count], 1):
        hearing.hear(emitter, total, target, number)
    return hearing


def verdict(hearing: Hearing, emitter: str, ups: str = UPS, **changed: Any) -> Verdict:
    handled = Handled()
    handled.read(ups)
    client = {
        "key": "3",
        "sid": SID,
        "connects": 2,
        "recovered": 1,
        "anew": [],
        "sent": 2,
        "acked": 1,
        "last": hearing.last,
        "faults": hearing.faults,
        "examples": hearing.examples,
        **changed,
    }
    return judge([client], {emitter: SENT}, handled, KILLS, 20, capable=10, recovery=20.0)


def test_nothing_is_missing() -> None:
    found = verdict(heard(ALIVE, 3), ALIVE)
    assert found.right, found.examples
    assert (found.came_back, found.recovered, found.share, found.with_workers) == (1, 1, 1.0, 0)


def test_the_end_of_what_a_worker_has_emitted_may_die_with_it() -> None:
    assert verdict(heard(DEAD, 1), DEAD).right
    found = verdict(heard(ALIVE, 1), ALIVE)
    assert found.faults == {"lost to clients": 2}


def test_a_new_session_begins_somewhere() -> None:
    hearing = heard(ALIVE, 1)
    hearing.begin_anew()
    hearing.hear(ALIVE, 3, "all", 2)
    found = verdict(hearing, ALIVE, recovered=0)
    assert found.right, found.examples
    assert found.share == 0.0
    assert verdict(hearing, ALIVE).faults == {"lost to clients": 1}


def test_who_comes_too_late_is_counted_apart() -> None:
    hearing = heard(ALIVE, 3)
    found = verdict(hearing, ALIVE, connects=4, recovered=1, anew=[19.9, 20.1])
    assert (found.came_back, found.late, found.share) == (3, 1, 0.5)


def test_who_cannot_recover_is_counted_apart() -> None:
    found = verdict(heard(ALIVE, 3), ALIVE, key="13", recovered=0, ups="")
    assert (found.came_back, found.anew, found.share) == (0, 1, 1.0)


@pytest.mark.parametrize(
    ("ups", "fault"),
    [
        ("up 3 1 1.0 1.5\n", ""),
        (UPS + "up 3 2 2.0 3.0\n", "doubled to servers"),
        ("up 3 2 1.0 1.5\nup 3 1 2.0 2.5\n", "out of order to servers"),
    ],
)
def test_events_of_clients(ups: str, fault: str) -> None:
    """Some are lost with the worker that had them; the others come once and in order."""
    assert [*verdict(heard(ALIVE, 3), ALIVE, ups).faults] == [fault] * bool(fault)


@pytest.mark.parametrize(
    ("alive", "dead", "fault", "cut_off"),
    [
        ("connect a @1.0\ndisconnect a server error @2.0\n", "", "", 0),
        ("connect a @1.0\n", "", "never disconnected", 0),
        ("", "connect a @1.0\n", "never disconnected", 0),
        ("", "connect a @99.9\n", "", 1),
        ("connect a @1.0\ndisconnect a x @2.0\n", "disconnect a x @99.9\n", "", 1),
        ("connect a @1.0\ndisconnect a x @2.0\ndisconnect a x @3.0\n", "", "disconnected twice", 0),
        ("connect a @1.0\nconnect a @1.5\ndisconnect a x @2.0\n", "", "disconnected twice", 0),
        ("disconnect a x @2.0\n", "", "disconnected twice", 0),
    ],
)
def test_the_ledger(alive: str, dead: str, fault: str, cut_off: int) -> None:
    handled, found = Handled(), Verdict()
    handled.read(alive, ALIVE)
    handled.read(dead, DEAD)
    balance(found, handled, KILLS)
    assert ([*found.faults], found.cut_off) == ([fault] * bool(fault), cut_off)
