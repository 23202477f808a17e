"""The oracle of tests/bench/chaos.py sees what it is for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))

from chaos_oracle import Verdict, judge, read_emits, read_sessions  # noqa: E402

STREAM = "workers_00:1 all"


def emits(*numbers: int, unfinished: int = 0) -> list[dict[str, Any]]:
    """One a second, from second 10 on."""
    return [
        {"kind": kind, "at": 9.0 + n, "stream": STREAM, "number": n, "total": n, "size": 5}
        for n in numbers
        for kind in ("begun", "done")
        if (kind, n) != ("done", unfinished)
    ]


def session(*numbers: int, begins: float = 5.0, ends: float = 0.0) -> list[dict[str, Any]]:
    whose = {"sid": "tag.sid", "at": begins}
    lines = [{"kind": "begin", "index": 0, "room": 0, "transports": ["polling"], **whose}]
    lines += [
        {"kind": "got", "stream": STREAM, "number": n, "total": n, "whole": True, **whose}
        for n in numbers
    ]
    return lines + ([{"kind": "end", "sid": "tag.sid", "at": ends}] if ends else [])


def verdict(sent: list[dict[str, Any]], got: list[dict[str, Any]], killed: float = 0.0) -> Verdict:
    when = {"workers_00:1": killed} if killed else {}
    return judge(read_sessions(got), read_emits(sent), when)


def test_everything_has_come() -> None:
    found = verdict(emits(1, 2, 3), session(1, 2, 3))
    assert (found.emitted, found.delivered, found.lasted) == (3, 3, 1)
    assert not (found.lost or found.doubled or found.disordered or found.allowed)


def test_gaps_heads_and_tails_are_lost() -> None:
    for got in ((1, 3), (2, 3), (1, 2)):
        found = verdict(emits(1, 2, 3), session(*got))
        assert len(found.lost) == len(found.missing) == 1


def test_doubled_and_out_of_order() -> None:
    assert verdict(emits(1, 2), session(1, 2, 2)).doubled
    assert verdict(emits(1, 2), session(2, 1)).disordered


def test_who_came_later_or_left_earlier_misses_nothing() -> None:
    assert not verdict(emits(1, 2, 3, 4), session(3, 4, begins=11.5)).lost
    assert not verdict(emits(1, 2, 3, 4), session(1, 2, ends=12.0)).lost
    # But for a hole in the middle.
    assert verdict(emits(1, 2, 3, 4), session(1, 3, ends=20.0)).lost


def test_the_instant_before_a_kill_may_be_missing() -> None:
    found = verdict(emits(1, 2, 3), session(1, 2), killed=12.5)
    assert not found.lost and found.allowed == {("workers_00:1", 3, "tag")}
    assert verdict(emits(1, 2, 3), session(1, 2), killed=14.0).lost
    assert not verdict(emits(1, 2, 3, unfinished=3), session(1, 2)).lost
