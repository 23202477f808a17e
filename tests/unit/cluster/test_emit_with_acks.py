from __future__ import annotations

import time
from typing import Any

import pytest
import socketio

from supervisor_sio import ZmqManager
from supervisor_sio.cluster.gathering import Answers
from supervisor_sio.relay.message import RelayMessage
from unit.cluster.others import OTHER, Sent, Start, heard
from unit.polling import PollingClient


def test_all_answer(manager: ZmqManager, clients: list[PollingClient], start: Start) -> None:
    future = start(manager.emit_with_acks, "ask", {"n": 1}, timeout=10)
    for number, client in enumerate(clients):
        ack_id, event = client.question()
        assert event == ["ask", {"n": 1}] and not future.done()
        client.answer(ack_id, number)
    answers = future.result(20)
    assert isinstance(answers, Answers)
    assert sorted(answers) == [0, 1, 2, 3]
    assert (answers.timed_out, answers.missing) == (False, 0)


@pytest.mark.parametrize(
    ("values", "answer"), [((), None), ((1,), 1), ((1, "b"), (1, "b")), (([1],), [1])]
)
def test_an_answer_is_as_that_of_a_call(
    manager: ZmqManager, server: socketio.Server, start: Start, values: Any, answer: Any
) -> None:
    client = PollingClient(server)
    future = start(manager.emit_with_acks, "ask", timeout=10)
    ack_id, event = client.question()
    assert event == ["ask"]
    client.answer(ack_id, *values)
    assert future.result(20) == [answer]


def test_only_those_who_are_asked_are_waited_for(
    manager: ZmqManager, clients: list[PollingClient], start: Start
) -> None:
    future = start(
        manager.emit_with_acks,
        "ask",
        (1, 2),
        room=["even", "low"],
        except_room=clients[2].sid,
        skip_sid=[clients[1].sid],
        timeout=10,
    )
    ack_id, event = clients[0].question()
    assert event == ["ask", 1, 2]
    clients[0].answer(ack_id, "yes")
    assert future.result(20) == ["yes"]
    assert heard(manager, clients) == [False] * 4


@pytest.mark.parametrize("room", [None, [], "nobody"])
def test_nobody_to_ask(manager: ZmqManager, room: Any) -> None:
    before = time.monotonic()
    answers = manager.emit_with_acks("ask", room=room, timeout=10)
    assert (answers, answers.timed_out, answers.missing) == ([], False, 0)
    assert time.monotonic() - before < 9


@pytest.mark.tries(4)
def test_the_time_is_up(manager: ZmqManager, clients: list[PollingClient], start: Start) -> None:
    future = start(manager.emit_with_acks, "ask", timeout=0.5)
    questions = [client.question()[0] for client in clients]
    clients[1].answer(questions[1], "in time")
    answers = future.result(20)
    assert (answers, answers.timed_out, answers.missing) == (["in time"], True, 3)
    clients[2].answer(questions[2], "too late")
    assert answers == ["in time"] and manager._calls == {}


@pytest.mark.tries(4)
def test_an_answer_that_comes_twice(
    manager: ZmqManager, clients: list[PollingClient], start: Start
) -> None:
    future = start(manager.emit_with_acks, "ask", room="low", timeout=0.3)
    ack_id, _ = clients[0].question()
    clients[0].answer(ack_id, 1)
    clients[0].answer(ack_id, 2)
    answers = future.result(20)
    assert (answers, answers.timed_out, answers.missing) == ([1], True, 1)


@pytest.mark.parametrize("how", ["it leaves", "it is told to"])
def test_a_client_that_disconnects_is_not_waited_for(
    manager: ZmqManager,
    server: socketio.Server,
    clients: list[PollingClient],
    start: Start,
    how: str,
) -> None:
    future = start(manager.emit_with_acks, "ask", room="low", timeout=60)
    ack_id, _ = clients[0].question()
    clients[1].question()
    clients[0].answer(ack_id, "yes")
    if how == "it leaves":
        clients[1].close()
    else:
        server.disconnect(clients[1].sid)
    answers = future.result(20)
    assert (answers, answers.timed_out, answers.missing) == (["yes"], False, 1)


def test_two_questions_at_a_time(
    manager: ZmqManager, server: socketio.Server, start: Start
) -> None:
    client = PollingClient(server)
    first = start(manager.emit_with_acks, "first", timeout=10)
    first_id, _ = client.question()
    second = start(manager.emit_with_acks, "second", timeout=10)
    second_id, _ = client.question()
    client.answer(second_id, 2)
    assert second.result(20) == [2] and not first.done()
    client.answer(first_id, 1)
    assert first.result(20) == [1]


def test_a_question_that_cannot_be_encoded(
    manager: ZmqManager, clients: list[PollingClient]
) -> None:
    with pytest.raises(TypeError):
        manager.emit_with_acks("ask", object())
    assert heard(manager, clients) == [False] * 4
    assert manager._calls == {}


def test_another_asks_clients(
    manager: ZmqManager, clients: list[PollingClient], sent: Sent
) -> None:
    packets = manager._encode(2, "/", ["ask", 1], 77)
    fields = {"method": "emit", "namespace": "/", "packet": manager._packet_format()}
    asked = {**fields, "room": "low", "ack": 77, "request": 9, "timeout": 5}
    manager._on_emit(RelayMessage(OTHER, 1, asked, packets))
    for client in clients[:2]:
        assert client.question() == (77, ["ask", 1])
    clients[0].answer(77, "yes", 2)
    clients[1].close()
    reply = {"request": 9, "worker": manager.host_id}
    assert [(tag, {**fields, "packet": ""}, data) for tag, fields, data in sent] == [
        (OTHER, {"method": "expect", **reply, "count": 2, "packet": ""}, None),
        (OTHER, {"method": "answer", **reply, "client": True, "packet": ""}, ["yes", 2]),
        (OTHER, {"method": "answer", **reply, "packet": ""}, None),
    ]


def test_a_call_of_one_client(manager: ZmqManager, server: socketio.Server, start: Start) -> None:
    """Like sio.call(), but a client that is absent or leaves is not waited for."""
    client = PollingClient(server)
    called = start(manager.call, "ask", (1, 2), to=client.sid)
    ack_id, event = client.question()
    assert event == ["ask", 1, 2]
    client.answer(ack_id, "a", 3)
    assert called.result(30) == ("a", 3)
    for sid in (client.sid, "nobody"):
        called = start(manager.call, "ask", sid=sid)
        if sid == client.sid:
            client.question()
            server.disconnect(sid)
        with pytest.raises(socketio.exceptions.TimeoutError):
            called.result(30)
