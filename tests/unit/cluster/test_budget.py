from __future__ import annotations

import pytest

from supervisor_sio.cluster import budget
from supervisor_sio.cluster.budget import Budget, Full, Share

MOST = 100


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MISSED_BYTES", MOST)


def join(of: Budget, now: float = 0) -> Share:
    share = Share()
    of.join(share, now)
    return share


def test_one_reads_at_a_time() -> None:
    """The size of missed events is not known before they are read."""
    mine = Budget()
    first, second, third = join(mine), join(mine), join(mine)
    assert [one.may_read for one in (first, second, third)] == [True, False, False]
    mine.has_read(first, 10)
    assert second.may_read and not third.may_read
    mine.has_read(second, 10)
    assert third.may_read and mine.size == 20


def test_they_wait_for_room_in_their_order() -> None:
    mine = Budget()
    first, second, third = join(mine), join(mine), join(mine)
    mine.has_read(first, MOST)
    assert not second.may_read and mine.is_awaited
    mine.give(first, 0)
    mine.end(first)
    assert second.may_read and not third.may_read
    mine.end(second)  # it could not be read
    assert third.may_read and not mine.is_awaited and mine.size == 0


def test_one_alone_may_be_larger() -> None:
    mine = Budget()
    first = join(mine)
    mine.has_read(first, 7 * MOST)
    second = join(mine)
    assert first.may_read and not second.may_read
    mine.end(first)
    assert second.may_read


def test_one_may_be_let_in() -> None:
    mine = Budget()
    first, second, third = join(mine), join(mine), join(mine)
    mine.let_in(second)
    mine.let_in(first)  # it may already
    assert second.may_read and not third.may_read
    mine.has_read(second, MOST)
    mine.has_read(first, MOST)
    assert mine.size == 2 * MOST and not third.may_read
    mine.end(first)
    assert not third.may_read
    mine.end(second)
    assert third.may_read


def test_who_waits_no_more_is_passed_over() -> None:
    mine = Budget()
    first, second, third = join(mine), join(mine), join(mine)
    mine.end(second)
    mine.has_read(first, 1)
    assert not second.may_read and third.may_read


def test_what_a_client_has_taken_makes_room() -> None:
    mine = Budget()
    first = join(mine)
    mine.has_read(first, MOST + 50)
    mine.give(first, 0, "it")
    second = join(mine)
    waiting = {"it": MOST}
    mine.look(waiting.__getitem__)
    assert mine.size == MOST and not second.may_read
    waiting["it"] = 300  # it has been sent more since
    mine.look(waiting.__getitem__)
    assert mine.size == MOST and not second.may_read
    waiting["it"] = MOST - 1
    mine.look(waiting.__getitem__)
    assert mine.size == MOST - 1 and second.may_read
    waiting["it"] = 0
    mine.look(waiting.__getitem__)
    mine.end(first)
    assert mine.size == 0


def test_who_takes_nothing_is_not_waited_for() -> None:
    mine = Budget()
    for eio_sid in ("a client", ""):
        share = join(mine)
        mine.has_read(share, MOST)
        mine.give(share, 5.0, eio_sid)
        following = join(mine, 5.0 + budget.MISSED_HELD - 0.1)
        assert not following.may_read
        mine.expire(5.0 + budget.MISSED_HELD)
        assert following.may_read and mine.size == 0
        mine.give(share, 6.0)  # it has been ended
        mine.end(following)


def test_so_many_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MISSED_WAITING", 2)
    mine = Budget()
    first, second, third = join(mine), join(mine), join(mine)
    with pytest.raises(Full):
        join(mine)
    mine.has_read(first, 1)
    fourth = join(mine)
    assert second.may_read and not third.may_read and not fourth.may_read
