"""The timing wheel: each deadline expires once and in time; moving one to later costs nothing."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio.engine.deadlines import NEVER, NOWHERE, RATE, Deadlines

#: Seconds by which everything comes early at least, and at most.
SLOT = 1 / RATE
EARLY = 2 * SLOT


class Thing:
    def __init__(self) -> None:
        self.deadline = NEVER
        self.slot = NOWHERE

    def on_deadline(self, now: float) -> None:
        raise NotImplementedError


def make(now: float = 100.0) -> Deadlines:
    return Deadlines(lambda: now)


def test_what_is_due_is_due_once() -> None:
    wheel, one, two = make(), Thing(), Thing()
    assert wheel.next() is None and list(wheel.expired(1e9)) == []
    wheel.set(one, 110.0)
    wheel.after(two, 5)
    assert wheel.next() == 105.0 - SLOT
    assert list(wheel.expired(105.0 - EARLY)) == []
    assert list(wheel.expired(105.0 - SLOT)) == [two]
    assert wheel.next() == 110.0 - SLOT
    assert list(wheel.expired(200.0)) == [one] and wheel.next() is None
    assert one.deadline == two.deadline == NEVER


def test_a_deadline_that_is_moved() -> None:
    wheel, thing = make(), Thing()
    wheel.set(thing, 110.0)
    wheel.set(thing, 150.0)
    assert wheel.next() == 110.0 - SLOT
    assert list(wheel.expired(120.0)) == [] and wheel.next() == 150.0 - SLOT
    wheel.set(thing, 130.0)
    assert list(wheel.expired(140.0)) == [thing]
    assert list(wheel.expired(160.0)) == []


def test_moved_by_a_store() -> None:
    wheel, thing = make(), Thing()
    wheel.set(thing, 110.0)
    thing.deadline = 120.0
    assert list(wheel.expired(110.0)) == []
    thing.deadline = NEVER
    assert list(wheel.expired(130.0)) == [] and wheel.next() is None
    wheel.set(thing, 140.0)
    assert list(wheel.expired(140.0)) == [thing]


def test_what_is_removed_is_not_kept() -> None:
    wheel, thing, other = make(), Thing(), Thing()
    wheel.remove(thing)
    wheel.set(thing, 110.0)
    wheel.set(other, 110.0)
    wheel.remove(thing)
    references = sys.getrefcount(thing)
    gone = Thing()
    assert references == sys.getrefcount(gone)
    assert list(wheel.expired(120.0)) == [other]


def test_earlier_and_later_again_is_still_once() -> None:
    wheel, thing = make(), Thing()
    for when in (110.0, 105.0, 110.0):
        wheel.set(thing, when)
    assert list(wheel.expired(105.0)) == []
    wheel.set(thing, 110.0)
    assert list(wheel.expired(110.0)) == [thing]


moves = st.lists(st.tuples(st.integers(0, 3), st.floats(0, 50), st.floats(0, 20)), max_size=40)


@given(moves=moves)
def test_nothing_comes_late_or_more_than_two_slots_early(
    moves: list[tuple[int, float, float]],
) -> None:
    now = 0.0
    wheel = Deadlines(lambda: now)
    things = [Thing() for _ in range(4)]
    expected: dict[Thing, float] = {}
    for index, seconds, passes in moves:
        wheel.after(things[index], seconds)
        expected[things[index]] = now + seconds
        now += passes
        due = list(wheel.expired(now))
        assert len(set(due)) == len(due)
        for thing in due:
            assert expected.pop(thing) < now + EARLY
        assert all(when > now + SLOT for when in expected.values())
        following = wheel.next()
        assert (following is None) <= (not expected)
        assert not expected or following is not None and following <= min(expected.values())


def test_what_another_item_removes_or_moves_is_not_due() -> None:
    wheel, things = make(), [Thing() for _ in range(4)]
    for thing in things:
        wheel.set(thing, 110.0)
    came = []
    for item in wheel.expired(110.0):
        came.append(item)
        if item is things[0]:
            wheel.remove(things[1])
            wheel.set(things[2], 120.0)
    assert came == [things[0], things[3]]
    assert list(wheel.expired(120.0)) == [things[2]] and wheel.next() is None
