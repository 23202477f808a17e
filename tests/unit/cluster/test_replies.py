"""Answers to processes without clients, and how those notice missing ones."""

from __future__ import annotations

import random
from typing import Any, Mapping

import pytest

from supervisor_sio.cluster import replies as module
from supervisor_sio.cluster.replies import Came, Key, Replies
from supervisor_sio.common.limits import (
    RELAY_BATCH_BYTES,
    RELAY_KEPT_OVERHEAD,
    REPLIES_BYTES,
    REPLIES_KEPT,
    REPLIES_SECONDS,
)

KEY = Key("asker-1", 1, "w")


class Clock:
    now = 1e-6  # so numbers begin with 1

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def replies(clock: Clock) -> Replies:
    return Replies(clock)


def add(replies: Replies, request: int = 1, packet: str = "") -> Mapping[str, Any]:
    fields = {"method": "answer", "request": request, "worker": "w"}
    return replies.add("asker-1", fields, [packet])


def numbers(replies: Replies, first: int, request: int = 1) -> list[int]:
    key = Key("asker-1", request, "w")
    return [reply.fields["number"] for reply in replies.again(key, first)]


def test_answers_are_numbered_in_their_question(replies: Replies) -> None:
    added = [add(replies, 1), add(replies, 1), add(replies, 2), add(replies, 1)]
    assert [(fields["start"], fields["number"]) for fields in added] == [
        (1, 1),
        (1, 2),
        (3, 3),
        (1, 3),
    ]
    assert numbers(replies, 0) == [1, 2, 3]
    assert numbers(replies, 3) == [3]
    assert numbers(replies, 4) == numbers(replies, 0, request=3) == []


def test_a_batch_has_so_many_and_so_much(replies: Replies, monkeypatch: pytest.MonkeyPatch) -> None:
    few = RELAY_BATCH_BYTES // RELAY_KEPT_OVERHEAD // 2
    for _ in range(few):
        add(replies, 1)
    monkeypatch.setattr(module, "REPLIES_AGAIN", few - 1)
    assert len(numbers(replies, 0)) == few - 1
    for _ in range(3):
        add(replies, 2, "x" * (RELAY_BATCH_BYTES // 2))
    assert len(numbers(replies, 0, request=2)) == 1
    add(replies, 3, "x" * (2 * RELAY_BATCH_BYTES))
    assert len(numbers(replies, 0, request=3)) == 1


def test_they_are_kept_for_so_long(replies: Replies, clock: Clock) -> None:
    add(replies, 1)
    clock.now += REPLIES_SECONDS / 2
    second = add(replies, 2)
    clock.now += REPLIES_SECONDS / 2 + 1
    late = add(replies, 3)
    assert numbers(replies, 0) == []
    assert numbers(replies, 0, request=2) == [second["number"]]
    # Nobody takes one for another that came before, of this worker or of one that it answers for.
    assert add(replies, 1)["start"] > late["number"]
    clock.now += 1
    assert add(Replies(clock), 1)["start"] > add(replies, 1)["number"]


def test_so_many_are_kept(replies: Replies) -> None:
    for request in range(REPLIES_KEPT + 5):
        add(replies, request)
    assert [numbers(replies, 0, request) for request in range(4, 6)] == [[], [6]]
    assert len(replies._answers) == len(replies._in_order) == REPLIES_KEPT


def test_so_much_is_kept(replies: Replies) -> None:
    for request in range(20):
        add(replies, request, "x" * (REPLIES_BYTES // 10))
    assert replies._bytes <= REPLIES_BYTES
    assert len(replies._answers) == 9
    add(replies, 99, "x" * (REPLIES_BYTES + 1))
    assert replies._bytes == len(replies._answers) == 0


def test_what_comes_twice_is_new_once() -> None:
    came = Came()
    assert came.lacks == 0
    order = [(5, 5), (5, 7), (5, 5), (5, 7), (5, 6), (5, 6), (5, 8)]
    assert [came.is_new(*one) for one in order] == [True, True, False, False, True, False, True]
    assert came.lacks == 9
    # The worker had forgotten all, and begins anew; then something from before comes.
    assert [came.is_new(20, 21), came.is_new(5, 8), came.is_new(20, 20)] == [True, False, True]
    assert came.lacks == 22


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_lost_comes_once(
    seed: int, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the answers are lost, also of the repeated ones."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    monkeypatch.setattr(module, "REPLIES_AGAIN", 7)
    replies, came, got = Replies(clock), Came(), []

    def send(fields: Mapping[str, Any]) -> None:
        if chance.random() < 0.5 and came.is_new(fields["start"], fields["number"]):
            got.append(fields["value"])

    for value in range(50):
        fields = {"request": 1, "worker": "w", "value": value}
        send(replies.add("asker-1", fields, []))
    for _ in range(1000):
        for reply in replies.again(KEY, came.lacks):
            send(reply.fields)
    assert sorted(got) == list(range(50))
