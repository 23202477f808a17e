from __future__ import annotations

import itertools
import json
import os
import socket
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Optional

import pytest
import socketio
import zmq
from hypothesis import given
from hypothesis import strategies as st
from socketio import packet as sio_packet

from supervisor_sio import ZmqManager
from supervisor_sio.cluster import manager as manager_module
from supervisor_sio.cluster import relaying, sessions
from supervisor_sio.cluster.emitting import as_arguments
from supervisor_sio.cluster.manager import MessageTooLong, RelayUnreachable
from supervisor_sio.cluster.rooms import tags_of
from supervisor_sio.common import identity
from supervisor_sio.common.rundir import ENVIRONMENT_VARIABLE, ClusterInfo, OwnedRunDir
from supervisor_sio.relay.message import RelayMessage, topic_for_all, topic_for_one
from supervisor_sio.relay.proxy import Relay
from unit.polling import PollingClient, make_server


@pytest.fixture(autouse=True)
def outside_supervisord(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)


@pytest.fixture
def server() -> socketio.Server:
    return make_server(client_manager=ZmqManager())


# --- alone: a laptop, a unit test ---------------------------------------------


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


def test_a_disconnect(server: socketio.Server) -> None:
    gone = []
    server.on("disconnect", lambda sid, reason: gone.append(sid))
    client = PollingClient(server)
    server.disconnect(client.sid)
    assert gone == [client.sid]
    server.disconnect(client.sid)
    server.disconnect("nobody")


def test_alone_there_is_nothing_to_wait_for_or_lose(server: socketio.Server) -> None:
    assert set(server.manager.figures().values()) == {0}
    server.manager.wait_joined(lambda: pytest.fail("it waits"))
    server.manager.initialize()


# --- what a constructor is told -----------------------------------------------


@pytest.mark.parametrize(
    "url", ["zmq+tcp://127.0.0.1:5555", "zmq+ipc://run/app", "/run/app", "", "zmq+ipc:/run/app"]
)
def test_another_url(url: str) -> None:
    with pytest.raises(ValueError) as caught:
        ZmqManager(url)
    assert str(caught.value) == (
        f"url {url!r} is not supported: leave url out in a worker, or write "
        "zmq+ipc:///run/myapp-sio (the run_dir)"
    )


def test_write_only_needs_to_know_where() -> None:
    with pytest.raises(ValueError, match="set SUPERVISOR_SIO_RUN_DIR or pass url='zmq"):
        ZmqManager(write_only=True)


def test_no_supervisord_is_there(tmp_path: Path) -> None:
    manager = ZmqManager(f"zmq+ipc://{tmp_path}", write_only=True)
    with pytest.raises(RelayUnreachable, match=f"{tmp_path} is not the run directory of a running"):
        manager.emit("news", 1)


def test_supervisord_is_there_but_no_relay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "_JOIN_TIMEOUT", 0.1)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    run_dir = OwnedRunDir(str(tmp_path))
    run_dir.write_cluster(ClusterInfo())
    with pytest.raises(RelayUnreachable) as caught:
        ZmqManager(write_only=True).emit("news", 1)
    run_dir.close()
    assert str(caught.value) == (
        f"no relay answers in {tmp_path}: is supervisord running, with [eventlistener:sio]?"
    )


def test_a_callback_needs_a_server_and_a_room(tmp_path: Path) -> None:
    url = f"zmq+ipc://{tmp_path}"
    with pytest.raises(
        RuntimeError,
        match=r"^call\(\) and callbacks work only inside a worker: this process serves no",
    ):
        ZmqManager(url, write_only=True).emit("n", 1, to="x", callback=print)
    with pytest.raises(ValueError, match="Cannot use callback without a room set"):
        make_server(client_manager=ZmqManager(url)).emit("n", 1, callback=print)


# --- which workers an emit concerns -------------------------------------------

tags = st.text("0123456789abcdef", min_size=8, max_size=8)
ends = st.text(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-", min_size=20, max_size=20
)


@given(st.lists(st.tuples(tags, ends), min_size=1))
def test_session_ids_name_their_workers(parts: list[tuple[str, str]]) -> None:
    assert tags_of([f"{tag}.{end}" for tag, end in parts]) == {tag for tag, _ in parts}


@given(tags, ends, st.none() | st.text(max_size=12) | st.integers())
def test_one_other_room_concerns_all(tag: str, end: str, room: Any) -> None:
    assert tags_of([room]) == {None}
    assert tags_of([f"{tag}.{end}", room]) == {None}


@pytest.mark.parametrize(
    "room",
    [
        "0a1b2c3d.short",
        "0a1b2c3d",
        "0A1B2C3D.abcdefghijklmnopqrst",
        "0a1b2c3dabcdefghijklmnopqrst",
        "0a1b2c3d.abcdefghijklmno pqrst",
        "0a1b2c3d.abcdefghijklmnopqrst\n",
        "x0a1b2c3d.abcdefghijklmnopqrst",
        "０a1b2c3d.abcdefghijklmnopqrst",
    ],
)
def test_rooms_that_look_almost_like_a_session(room: str) -> None:
    assert tags_of([room]) == {None}


def test_the_ids_of_this_worker_are_such(server: socketio.Server) -> None:
    assert tags_of([server.eio.generate_id() for _ in range(100)]) == {identity.tag()}


def test_no_rooms_concern_nobody() -> None:
    assert tags_of([]) == set()


# --- packets ------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)

ENCODER = make_server(client_manager=ZmqManager("zmq+ipc:///nowhere"))


@given(
    st.lists(json_values, max_size=3),
    st.sampled_from(["/", "/chat"]),
    st.none() | st.integers(1, 2**53 - 1),
)
def test_a_packet_is_read_as_it_was_written(
    data: list[Any], namespace: str, ack_id: Optional[int]
) -> None:
    manager = ENCODER.manager
    packets = manager._encode(sio_packet.EVENT, namespace, ["event", *data], ack_id)
    assert {type(packet) for packet in packets} <= {str, bytes}
    fields = {"method": "emit", "packet": manager._packet_format()}
    message = RelayMessage.unpack(RelayMessage("a", 1, fields, packets).pack())
    assert manager._decode(message) == ["event", *data]
    packet = sio_packet.Packet(encoded_packet=message.packets[0])
    assert (packet.id, packet.namespace or "/") == (ack_id, namespace)


def test_ack_ids_are_exact_in_javascript_and_not_shared() -> None:
    first, second = ZmqManager(), ZmqManager()
    ids = list(itertools.islice(first._ack_ids, 1000))
    assert len(set(ids)) == 1000
    assert all(0 < number < 2**53 for number in ids)
    assert next(second._ack_ids) not in ids


def relayed(
    manager: ZmqManager,
    *arguments: Any,
    room: Any = None,
    skip: tuple[str, ...] = (),
    ack_id: Optional[int] = None,
) -> RelayMessage:
    """An emit of another worker with this manager, as it comes in from the relay."""
    fields = {
        "method": "emit",
        "namespace": "/",
        "room": room,
        "skip_sid": list(skip),
        "ack": ack_id,
        "packet": manager._packet_format(),
    }
    packets = manager._encode(sio_packet.EVENT, "/", list(arguments), ack_id)
    return RelayMessage.unpack(RelayMessage("ffffffff", 1, fields, packets).pack())


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


class SpacedJson:
    """A JSON module with an output of its own."""

    loads = staticmethod(json.loads)

    @staticmethod
    def dumps(value: Any, **options: Any) -> str:
        return json.dumps(value, **{**options, "separators": (", ", ": ")})


class OtherPacket(sio_packet.Packet):  # type: ignore[misc]
    """Another serializer."""

    json = SpacedJson


def test_an_emit_in_another_serializer_is_encoded_anew() -> None:
    emitter = ZmqManager("zmq+ipc:///nowhere", write_only=True)
    server = make_server(client_manager=ZmqManager(), serializer=OtherPacket)
    assert server.manager._packet_format() == f"{__name__}.OtherPacket"
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


# --- through a relay ----------------------------------------------------------


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[OwnedRunDir]:
    """A run directory with a relay, as supervisord and the router make it."""
    owned = OwnedRunDir(str(tmp_path))
    owned.write_cluster(ClusterInfo("my app", message_maxbytes=2000))
    listeners = [owned.bind(path, socket.SOCK_STREAM) for path in (owned.xsub, owned.xpub)]
    xsub, xpub = (listener.detach() for listener in listeners)
    relay = Relay(owned.xsub, xsub, owned.xpub, xpub)
    yield owned
    relay.close()
    assert not relay.alive
    owned.close()


@pytest.fixture
def subscribe(run_dir: OwnedRunDir) -> Iterator[Callable[[bytes], zmq.Socket[bytes]]]:
    with zmq.Context() as context:

        def make(topic: bytes) -> zmq.Socket[bytes]:
            ear = context.socket(zmq.SUB)
            ear.setsockopt(zmq.LINGER, 0)
            ear.setsockopt(zmq.RCVTIMEO, 5000)
            ear.setsockopt(zmq.SUBSCRIBE, topic)
            ear.connect(f"ipc://{run_dir.xpub}")
            return ear

        yield make
        context.destroy(linger=0)


def heard(ear: zmq.Socket[bytes]) -> RelayMessage:
    """The next numbered message."""
    while True:
        data = ear.recv()
        message = RelayMessage.unpack(data, data.index(b"\0", data.index(b"\0") + 1) + 1)
        if message.sequence:
            return message


def test_what_a_write_only_manager_sends(
    run_dir: OwnedRunDir,
    subscribe: Callable[[bytes], zmq.Socket[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, run_dir.path)
    everyone, one = (
        subscribe(topic_for_all("my app")),
        subscribe(topic_for_one("my app", "0a1b2c3d")),
    )
    time.sleep(0.3)  # until both are known to the relay
    manager = ZmqManager(write_only=True)
    for number in range(100):
        manager.emit("news", number)
    manager.emit("file", b"\xff", to="0a1b2c3d.abcdefghijklmnopqrst", skip_sid="x")
    with pytest.raises(TypeError):
        manager.emit("news", 1, room=object())  # type: ignore[arg-type]
    manager.emit("news", "last", namespace="/chat", room=["a", "b"])

    messages = [heard(everyone) for _ in range(101)]
    assert [message.sequence for message in messages] == list(range(1, 102))
    assert {message.sender for message in messages} == {manager.host_id}
    assert [message.packets for message in messages[:3]] == [
        ['2["news",0]'],
        ['2["news",1]'],
        ['2["news",2]'],
    ]
    last = messages[-1]
    assert last.packets == ['2/chat,["news","last"]']
    assert (last.fields["namespace"], last.fields["room"]) == ("/chat", ["a", "b"])

    message = heard(one)
    assert message.sequence == 1
    assert message.packets == ['51-["file",{"_placeholder":true,"num":0}]', b"\xff"]
    assert message.fields["skip_sid"] == ["x"]
    assert (message.after, last.fields["after"]) == (100, {"0a1b2c3d": 1})
    with pytest.raises(MessageTooLong, match="event 'news' has 20.. bytes, over the limit of 2000"):
        manager.emit("news", "x" * 2000)
    manager.close()


def test_the_json_module_of_a_write_only_manager(
    run_dir: OwnedRunDir, subscribe: Callable[[bytes], zmq.Socket[bytes]]
) -> None:
    ear = subscribe(topic_for_all("other"))
    time.sleep(0.3)
    url = f"zmq+ipc://{run_dir.path}"
    manager = ZmqManager(url, channel="other", write_only=True, json=SpacedJson)
    manager.emit("news", 1)
    assert heard(ear).packets == ['2["news", 1]']
    manager.close()


def test_who_emits_before_it_serves_goes_on_under_its_own_name(
    run_dir: OwnedRunDir,
    subscribe: Callable[[bytes], zmq.Socket[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also a manager without a server in a worker: that has another one under its name."""
    monkeypatch.setattr(relaying, "channels_in_use", set())
    monkeypatch.setattr(ZmqManager, "_thread", lambda self: None)
    ear = subscribe(topic_for_all("my app"))
    own = subscribe(topic_for_one("my app", identity.tag()))
    time.sleep(0.3)
    url = f"zmq+ipc://{run_dir.path}"
    manager = ZmqManager(url)
    server = make_server(client_manager=manager)
    server.emit("early", 1)
    early = heard(ear)
    assert early.packets == ['2["early",1]'] and early.sender == manager.host_id
    assert manager.hears is None
    manager.initialize()
    assert manager.host_id == identity.tag() != early.sender
    assert manager.hears == "my app"
    with pytest.raises(RuntimeError, match="two ZmqManagers on channel 'my app'"):
        make_server(client_manager=ZmqManager(url)).manager.initialize()
    assert manager._publisher is not None
    while not own.poll(10):  # nothing is published before the relay knows the publisher
        manager._publisher.probe()
    server.emit("served", 2)
    served = heard(ear)
    assert (served.sender, served.sequence) == (identity.tag(), 1)

    monkeypatch.setattr(sessions, "_worker_pid", os.getpid())
    other = ZmqManager(url)
    other.emit("beside", 3)
    assert heard(ear).sender == other.host_id != identity.tag()
    other.close()
    subscriber = manager._subscriber
    manager.close()
    assert subscriber is not None
    subscriber.release()


def test_the_child_of_a_fork_has_nothing_of_its_parent(
    run_dir: OwnedRunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = ZmqManager(f"zmq+ipc://{run_dir.path}")
    server = make_server(client_manager=manager)
    client = PollingClient(server)
    server.enter_room(client.sid, "room")
    manager._joining.acquire()
    monkeypatch.setattr(manager_module, "_managers", [manager])
    manager_module._forget_parent()  # as os.fork() does
    assert manager.rooms == {} and list(manager.get_participants("/", None)) == []
    assert manager._publisher is manager._subscriber is manager.hears is None
    assert manager._joining.acquire(blocking=False)
    with pytest.raises(RuntimeError, match="this process serves no clients"):
        manager.fetch_sockets()


# --- what fails while others are heard -------------------------------------------


def test_messages_that_fail_are_not_a_traceback_each(
    server: socketio.Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"method": "emit", "namespace": "/", "packet": server.manager._packet_format()}

    class Heard:
        catching_up = False

        def messages(self) -> Iterator[RelayMessage]:
            for _ in range(1000):
                yield RelayMessage("0a1b2c3d", 1, fields, ['2["x"]'])

    def fail(*args: Any) -> None:
        raise ArithmeticError("no")

    monkeypatch.setattr(server.manager, "_audience", fail)
    monkeypatch.setattr(server.manager, "_subscriber", Heard())
    server.manager._hear()
    lines = [r for r in caplog.records if "handling emit (ArithmeticError)" in r.getMessage()]
    assert 1 <= len(lines) <= 5  # not 1000, however slow this host is
    assert lines[0].exc_info
