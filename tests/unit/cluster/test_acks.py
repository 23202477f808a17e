"""Acknowledgements that do not come; what they cost a worker: tests/ledger/test_acks.py."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor_sio.cluster.acks import Callbacks, Clients, Question
from supervisor_sio.common.limits import ACK_TIMEOUT, ACKS_PER_CLIENT, ACKS_PER_WORKER


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def clients(clock: Clock) -> Clients:
    return Clients(clock)


def nothing(*args: Any) -> None:
    pass


def test_each_client_answers_once(clients: Clients) -> None:
    clients.ask(["a", "b"], Question(7, nothing))
    assert clients.answered("b", 7) is nothing
    assert clients.answered("b", 7) is None
    assert clients.answered("c", 7) is None
    assert clients.answered("a", 0) is None
    assert clients.answered("a", None) is None
    assert clients.answered("a", 7) is nothing
    assert clients._asked == {}


def test_an_answer_that_comes_too_late(clients: Clients, clock: Clock) -> None:
    clients.ask(["a"], Question(1, nothing))
    clients.ask(["a"], Question(2, nothing, timeout=5))
    clock.now += 5
    assert clients.answered("a", 2) is None
    clock.now += ACK_TIMEOUT
    assert clients.answered("a", 1) is None
    assert clients._asked == {}


def test_what_has_expired_is_not_kept(clients: Clients, clock: Clock) -> None:
    for ack_id in range(10):
        clients.ask(["a"], Question(ack_id, nothing, timeout=5))
    clock.now += 5
    clients.ask(["a"], Question(10, nothing))
    assert list(clients._asked["a"]) == [10]


def test_a_client_that_never_answers_is_asked_so_many_things_at_most(clients: Clients) -> None:
    clients.ask(["other"], Question(0, nothing))
    for ack_id in range(3 * ACKS_PER_CLIENT):
        clients.ask(["silent"], Question(ack_id, nothing))
    assert len(clients._asked["silent"]) == ACKS_PER_CLIENT
    assert clients.answered("silent", 0) is None
    assert clients.answered("silent", 3 * ACKS_PER_CLIENT - 1) is nothing
    assert clients.answered("other", 0) is nothing


def test_who_leaves_answers_no_more(clients: Clients) -> None:
    gone: list[str] = []
    clients.ask(["a", "b"], Question(1, nothing, lambda: gone.append("answer")))
    clients.ask(["a"], Question(2, nothing))
    for call in clients.left("a"):
        call()
    assert gone == ["answer"]
    assert clients.left("a") == clients.left("nobody") == []
    assert clients.answered("a", 1) is None
    assert clients.answered("b", 1) is nothing


def test_callbacks_are_called_once_and_in_time(clock: Clock) -> None:
    callbacks = Callbacks(clock)
    callbacks.add(1, nothing)
    assert callbacks.take(1) is nothing
    assert callbacks.take(1) is callbacks.take(2) is None
    callbacks.add(3, nothing)
    clock.now += ACK_TIMEOUT
    callbacks.add(4, nothing)
    assert list(callbacks._waiting) == [4]
    callbacks.add(5, nothing)
    clock.now += ACK_TIMEOUT
    assert callbacks.take(5) is None


def test_so_many_callbacks_wait_at_most(clock: Clock) -> None:
    callbacks = Callbacks(clock)
    for ack_id in range(ACKS_PER_WORKER + 10):
        callbacks.add(ack_id, nothing)
    assert len(callbacks._waiting) == ACKS_PER_WORKER
    assert callbacks.take(9) is None and callbacks.take(10) is nothing
