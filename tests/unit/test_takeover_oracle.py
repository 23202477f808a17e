"""The oracle of tests/bench/takeover.py sees what it is for."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))

from takeover_oracle import Delays, Handled, Hearing, Sent, Verdict, judge  # noqa: E402

EMITTER, SID, ROOM = "workers_00:1", "tag.sid", "room-3"
EVERY = ["all", "room-3", "tag.sid", "room-4", "tag.sid", "all"]
SENT = "".join(f"{at}.0 {target}\n" for at, target in enumerate(EVERY))
TARGETS = [target for target in EVERY if target != "room-4"]


def heard(*which: int, begins: bool = True) -> Hearing:
    """Of a client that gets those of the emits for it, by their place."""
    hearing = Hearing(begins)
    totals = [n for n, target in enumerate(EVERY, 1) if target != "room-4"]
    for place in which:
        number = TARGETS[: place + 1].count(TARGETS[place])
        hearing.hear(EMITTER, totals[place], TARGETS[place], number)
    return hearing


def verdict(
    hearing: Hearing, handled: str = "", sent: str | Sent = SENT, acked: int = 2, **changed: Any
) -> Verdict:
    calls = Handled()
    calls.read(handled or f"connect {SID}\nup 3 1 1.0 1.5\nup 3 2 2.0 2.5\n")
    client = {
        "key": "3",
        "sid": SID,
        "connects": 1,
        "ends": [],
        "sent": 2,
        "acked": acked,
        "last": hearing.last,
        "faults": hearing.faults,
        "examples": hearing.examples,
        **changed,
    }
    return judge([client], {EMITTER: Sent.read(sent) if isinstance(sent, str) else sent}, calls, 20)


def test_everything_has_come() -> None:
    found = verdict(heard(0, 1, 2, 3, 4))
    assert found.right, found.examples
    assert (found.heard, found.emitted, found.sent) == (5, 6, 2)


@pytest.mark.parametrize("missing", range(5))
def test_a_gap_a_head_and_a_tail_are_lost(missing: int) -> None:
    found = verdict(heard(*(place for place in range(5) if place != missing)))
    assert found.faults == {"lost to clients": 1}, found.examples


def test_doubled() -> None:
    assert verdict(heard(0, 1, 2, 3, 4, 4)).faults == {"doubled to clients": 1}


def test_out_of_order_in_a_stream_and_among_streams() -> None:
    assert verdict(heard(0, 1, 3, 2, 4)).faults["out of order to clients"] >= 1
    assert verdict(heard(1, 0, 2, 3, 4)).faults == {"out of order to clients": 1}


def test_an_emit_that_has_not_returned_may_have_come_or_not() -> None:
    unfinished = SENT[:-1]
    assert verdict(heard(0, 1, 2, 3), sent=unfinished).right
    assert verdict(heard(0, 1, 2, 3, 4), sent=unfinished).right


def test_what_threads_emit_when_their_worker_has_left_may_be_missing() -> None:
    emits = Sent.read(SENT, left=4.5)
    assert emits.late == {"all": 1} and not Sent.read(SENT).late
    last = Sent.read(SENT, left=5.5)
    for sent, faults in ((emits, {}), (last, {"lost to clients": 1})):
        found = verdict(heard(0, 1, 2, 3), sent=sent)
        assert found.faults == faults and found.late == (not faults)


def test_who_comes_later_may_begin_anywhere() -> None:
    assert not heard(2, 3, 4, begins=False).faults
    assert heard(0, 2, 3, begins=False).last == {f"{EMITTER} all": 1, f"{EMITTER} {SID}": 2}


@pytest.mark.parametrize(
    ("handled", "fault"),
    [
        ("up 3 1 1 1\n", "lost to servers"),
        ("up 3 1 1 1\nup 3 2 1 2\nup 3 1 1 3\n", "doubled to servers"),
        ("up 3 1 1 2\nup 3 2 1 1\n", "out of order to servers"),
        ("up 3 1 1 1\nup 3 2 1 2\nconnect tag.sid\n", "connect handlers"),
        ("up 3 1 1 1\nup 3 2 1 2\ndisconnect tag.sid transport close\n", "disconnect handlers"),
        ("up 3 1 1 1\nup 3 2 1 2\nwrong tag.sid 3\n", "wrong sessions or answers"),
    ],
)
def test_what_handlers_tell(handled: str, fault: str) -> None:
    found = verdict(heard(0, 1, 2, 3, 4), f"connect {SID}\ntakeover {SID}\n{handled}")
    assert found.faults[fault] >= 1 and not found.right, found.examples
    assert set(found.faults) <= {fault, "out of order to servers"}


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"acked": 1}, "not acknowledged"),
        ({"ends": ["transport close"]}, "disconnects"),
        ({"connects": 2}, "connect handlers"),
    ],
)
def test_what_clients_tell(changed: dict[str, Any], fault: str) -> None:
    assert verdict(heard(0, 1, 2, 3, 4), **changed).faults == {fault: 1}


def test_delays() -> None:
    delays = Delays()
    for milliseconds in range(1, 1001):
        delays.add(milliseconds / 1000)
    assert delays.percentile(0.5) == pytest.approx(0.5, rel=0.03)
    assert delays.percentile(0.999) == pytest.approx(0.999, rel=0.03)
    other = Delays()
    other.merge(delays.counts.items(), delays.worst)
    assert (other.percentile(0.5), other.worst) == (delays.percentile(0.5), 1.0)
    assert isinstance(delays.counts, Counter)
