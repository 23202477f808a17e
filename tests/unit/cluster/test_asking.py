from __future__ import annotations

import time

import pytest
import socketio

from supervisor_sio import ZmqManager
from supervisor_sio.relay.message import RelayMessage
from unit.cluster.others import OTHER, Sent, Start, eventually, from_another
from unit.polling import PollingClient


def test_this_worker_counts(manager: ZmqManager) -> None:
    assert manager.server_count() == 1
    manager.set_members({manager.host_id: False, OTHER: True})
    assert manager.server_count() == 2
    assert [manager.lives(tag) for tag in (OTHER, "other")] == [True, False]
    assert [manager.is_remote(tag) for tag in (OTHER, manager.host_id)] == [True, False]
    assert [manager.is_local(tag) for tag in (OTHER, manager.host_id)] == [False, True]
    manager.set_members({})
    assert manager.server_count() == 1


def test_answers_of_others_are_put_together(
    manager: ZmqManager, server: socketio.Server, sent: Sent, start: Start
) -> None:
    client = PollingClient(server)
    manager.set_members({manager.host_id: False, OTHER: False, "dead": False, "mute": False})
    future = start(manager.emit_with_acks, "ask", timeout=10)
    ack_id, _ = client.question()
    eventually(lambda: len(sent) == 1)
    request = sent[0][1]["request"]
    reply = {"request": request, "worker": OTHER}
    from_another(manager, method="expect", **reply, count=3)
    from_another(manager, 1, method="answer", **reply)
    from_another(manager, 2, 3, method="answer", **reply)
    manager._on_answer(RelayMessage(OTHER, 1, {"method": "answer", **reply}))
    from_another(manager, method="expect", request=request, worker="mute", count=0)
    client.answer(ack_id, 4)
    time.sleep(0.05)
    assert not future.done()
    manager.set_members({manager.host_id: False, OTHER: False, "mute": False})
    answers = future.result(20)
    assert sorted(answers, key=str) == [(2, 3), 1, 4]
    assert (answers.timed_out, answers.missing) == (False, 2)
    from_another(manager, 1, method="answer", **reply)  # too late


def test_others_that_say_nothing(
    manager: ZmqManager, clients: list[PollingClient], sent: Sent
) -> None:
    manager.set_members({manager.host_id: False, OTHER: False})
    sockets = manager.fetch_sockets("low", timeout=0.1)
    assert (len(sockets), sockets.timed_out, sockets.missing) == (2, True, 1)
    rooms = manager.fetch_rooms(timeout=0.1)
    assert (rooms["low"], rooms.timed_out, rooms.missing) == (2, True, 1)
    answers = manager.server_side_call("ask", timeout=0.1)
    assert (answers, answers.timed_out, answers.missing) == ([], True, 1)
    assert [tag for tag, _, _ in sent] == [None] * 3
    local = manager.fetch_sockets("low", local=True)
    assert (len(local), local.timed_out, local.missing) == (2, False, 0)
    assert len(sent) == 3


def test_a_write_only_manager_hears_no_answers() -> None:
    manager = ZmqManager("zmq+ipc:///nowhere", write_only=True)
    for ask in (
        manager.server_count,
        lambda: manager.call("ask", to="x"),
        manager.fetch_sockets,
        manager.fetch_rooms,
        lambda: manager.emit_with_acks("ask"),
        lambda: manager.server_side_call("ask"),
    ):
        with pytest.raises(RuntimeError, match=r"answers: make it without write_only=True$"):
            ask()


def test_a_process_that_knows_of_no_cluster() -> None:
    manager = ZmqManager()
    for call in (
        manager.fetch_sockets,
        lambda: manager.emit("n", 1),
        lambda: manager.server_side_emit("n"),
        lambda: manager.sockets_join("room"),
    ):
        with pytest.raises(RuntimeError, match="of no cluster: set SUPERVISOR_SIO_RUN_DIR or pass"):
            call()
