from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import socketio
from socketio import packet as sio_packet

from supervisor_sio import ZmqManager
from supervisor_sio.cluster.emitting import as_arguments
from supervisor_sio.relay.message import RelayMessage
from unit.cluster.others import OtherPacket, heard, relayed
from unit.polling import PollingClient, make_server


def test_an_emit_reaches_all(server: socketio.Server) -> None:
    clients = [PollingClient(server) for _ in range(3)]
    server.emit("news", {"text": "ü"})
    assert [client.event() for client in clients] == [["news", {"text": "ü"}]] * 3


@pytest.mark.parametrize(
    ("data", "arguments"),
    [(None, []), ((), []), (("a", 1), ["a", 1]), (["a", 1], [["a", 1]]), ("", [""]), (0, [0])],
)
def test_arguments(server: socketio.Server, data: Any, arguments: list[Any]) -> None:
    client = PollingClient(server)
    server.emit("news", data)
    assert client.event() == ["news", *arguments]
    assert as_arguments(data) == arguments  # the same on its way to others


def test_an_emit_reaches_those_it_is_for(server: socketio.Server) -> None:
    first, second, third = (PollingClient(server) for _ in range(3))
    server.enter_room(first.sid, "room")
    server.enter_room(second.sid, "room")
    server.emit("n", 1, room="room")
    server.emit("n", 2, to=third.sid)
    server.emit("n", 3, skip_sid=first.sid)
    server.emit("n", 4, room=["room", third.sid], skip_sid=[second.sid])
    server.leave_room(first.sid, "room")
    server.emit("n", 5, room="room")
    server.close_room("room")
    server.emit("n", 6, room="room")
    server.emit("last", None)
    received = [
        [json.loads(packet[2:])[1:] for packet in client.receive()]
        for client in (first, second, third)
    ]
    assert received == [[[1], [4], []], [[1], [3], [5], []], [[2], [3], [4], []]]


def test_namespaces_are_apart(server: socketio.Server) -> None:
    server.on("connect", lambda sid, environ: None, namespace="/chat")
    client, other = PollingClient(server, "/chat"), PollingClient(server)
    server.emit("n", 1, namespace="/chat")
    server.emit("n", 2)
    assert client.event() == ["n", 1]
    assert other.event() == ["n", 2]


def test_binary(server: socketio.Server) -> None:
    client = PollingClient(server)
    server.emit("file", {"name": "x", "data": b"\xff\0"})
    event, attachment = client.receive()
    assert json.loads(event.partition("-")[2])[1]["name"] == "x"
    assert event.startswith("451-") and attachment == "b/wA="


@pytest.mark.parametrize(
    ("room", "except_room", "expected"),
    [
        (None, "even", [1, 3]),
        (None, ["even", "low"], [3]),
        ("even", "low", [2]),
        (["even", "odd"], ["nobody"], [0, 1, 2, 3]),
        ([], None, []),
        ((), None, []),
        (["nobody"], None, []),
        (None, [], [0, 1, 2, 3]),
    ],
)
@pytest.mark.parametrize("local", [False, True])
def test_whom_an_emit_reaches(
    manager: ZmqManager,
    clients: list[PollingClient],
    room: Any,
    except_room: Any,
    expected: list[int],
    local: bool,
) -> None:
    manager.emit("news", 1, room=room, except_room=except_room, local=local)
    reached = [number for number, yes in enumerate(heard(manager, clients)) if yes]
    assert reached == expected


def test_skipped_and_excepted(manager: ZmqManager, clients: list[PollingClient]) -> None:
    manager.emit("news", 1, except_room="low", skip_sid=clients[3].sid)
    assert heard(manager, clients) == [False, False, True, False]


def test_an_acknowledgement_comes_back_once(server: socketio.Server) -> None:
    client = PollingClient(server)
    answers: list[Any] = []
    server.emit("question", 1, to=client.sid, callback=lambda *args: answers.append(args))
    (packet,) = client.receive()
    ack_id = int(packet[2 : packet.index("[")])
    client.answer(ack_id, "yes", 2)
    client.answer(ack_id, "again")
    client.answer(ack_id + 1, "of nothing")
    assert answers == [("yes", 2)]


def test_a_callback_needs_a_server_and_a_room(tmp_path: Path) -> None:
    url = f"zmq+ipc://{tmp_path}"
    with pytest.raises(
        RuntimeError,
        match=r"^call\(\) and callbacks work only inside a worker: this process serves no",
    ):
        ZmqManager(url, write_only=True).emit("n", 1, to="x", callback=print)
    with pytest.raises(ValueError, match="Cannot use callback without a room set"):
        make_server(client_manager=ZmqManager(url)).emit("n", 1, callback=print)


def test_ack_ids_are_exact_in_javascript_and_not_shared() -> None:
    first, second = ZmqManager(), ZmqManager()
    ids = list(itertools.islice(first._ack_ids, 1000))
    assert len(set(ids)) == 1000
    assert all(0 < number < 2**53 for number in ids)
    assert next(second._ack_ids) not in ids


def test_the_emit_of_another_worker(server: socketio.Server) -> None:
    clients = [PollingClient(server) for _ in range(2)]
    server.manager._on_emit(relayed(server.manager, "news", 1))
    server.manager._on_emit(relayed(server.manager, "news", 2, room=clients[0].sid))
    server.manager._on_emit(relayed(server.manager, "news", 3, skip=(clients[0].sid,)))
    server.emit("last", None)
    assert clients[0].receive() == ['42["news",1]', '42["news",2]', '42["last"]']
    assert clients[1].receive() == ['42["news",1]', '42["news",3]', '42["last"]']


def test_binary_of_another_worker(server: socketio.Server) -> None:
    client = PollingClient(server)
    server.manager._on_emit(relayed(server.manager, "file", b"\xff\0"))
    assert client.receive() == ['451-["file",{"_placeholder":true,"num":0}]', "b/wA="]


def test_emits_that_came_together_are_events_of_their_own(server: socketio.Server) -> None:
    """The relay brings the emits of one turn as one message."""
    client = PollingClient(server)
    message, *others = (relayed(server.manager, "news", value) for value in (1, b"\xff\0", 2))
    message.packets = [packet for one in (message, *others) for packet in one.packets]
    server.manager._on_emit(message)
    binary = ['451-["news",{"_placeholder":true,"num":0}]', "b/wA="]
    assert client.receive() == ['42["news",1]', *binary, '42["news",2]']


def test_an_emit_in_another_serializer_is_encoded_anew() -> None:
    emitter = ZmqManager("zmq+ipc:///nowhere", write_only=True)
    server = make_server(client_manager=ZmqManager(), serializer=OtherPacket)
    assert server.manager._packet_format() == f"{OtherPacket.__module__}.OtherPacket"
    client = PollingClient(server)
    server.manager._on_emit(relayed(emitter, "file", b"\xff\0", {"n": 1}))
    assert client.receive() == [
        '451-["file", {"_placeholder": true, "num": 0}, {"n": 1}]',
        "b/wA=",
    ]


def test_an_emit_in_the_same_serializer_goes_on_as_it_came() -> None:
    spaced = make_server(client_manager=ZmqManager(), serializer=OtherPacket).manager
    server = make_server(client_manager=ZmqManager())
    client = PollingClient(server)
    incoming = relayed(spaced, "news", 1)
    incoming.fields = {**incoming.fields, "packet": server.manager._packet_format()}
    server.manager._on_emit(incoming)
    assert client.receive() == ['42["news", 1]']


def test_msgpack_gets_what_a_write_only_manager_emits() -> None:
    msgpack = pytest.importorskip("msgpack")
    emitter = ZmqManager("zmq+ipc:///nowhere", write_only=True)
    manager = make_server(client_manager=ZmqManager(), serializer="msgpack").manager
    incoming = relayed(emitter, "file", b"\xff\0", ack_id=7)
    assert incoming.fields["packet"] != manager._packet_format()
    (encoded,) = manager._encode(sio_packet.EVENT, "/", manager._decode(incoming), 7)
    assert msgpack.unpackb(encoded)["data"] == ["file", b"\xff\0"]


def test_an_answer_from_another_worker_counts_once(server: socketio.Server) -> None:
    manager = server.manager
    answers: list[Any] = []
    manager._callbacks.add(5, lambda *args: answers.append(args))
    packets = manager._encode(sio_packet.ACK, "/", ["yes", b"\0"], 5)
    message = RelayMessage("ffffffff", 1, {"method": "callback", "ack": 5}, packets)
    manager._on_callback(message)
    manager._on_callback(message)
    assert answers == [("yes", b"\0")]
