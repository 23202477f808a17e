from __future__ import annotations

import base64
import json
import os
import pickle
from collections import defaultdict
from typing import Any, Optional
from unittest.mock import Mock

import pytest
import socketio
from hypothesis import example, given
from hypothesis import strategies as st
from socketio import packet as sio_packet
from socketio.pubsub_manager import PubSubManager

from supervisor_sio.bridge.format import (
    JSON_PACKET,
    FormatError,
    Outgoing,
    QueueMessage,
    Translator,
    encode,
    head_of,
    number_after,
    origin_of,
    parse,
    seen,
)
from supervisor_sio.cluster.emitting import as_arguments
from supervisor_sio.cluster.manager import ZmqManager
from supervisor_sio.common.limits import BRIDGE_LONGEST_NAME
from supervisor_sio.common.rundir import ENVIRONMENT_VARIABLE
from supervisor_sio.relay.message import RelayMessage
from supervisor_sio.relay.methods import BRIDGE
from unit.polling import make_server

MSGPACK_PACKET = "socketio.msgpack_packet.MsgPackPacket"
WORKER, OTHER = "0a1b2c3d", "1a1b2c3d"
SID, OTHER_SID = f"{WORKER}.AbCdEfGhIjKlMnOpQrSt", f"{OTHER}.AbCdEfGhIjKlMnOpQrSt"


@pytest.fixture(autouse=True)
def outside_supervisord(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)


class StockManager(PubSubManager):  # type: ignore[misc]
    """A stock manager on a queue of JSON messages, like RedisManager."""

    def __init__(self) -> None:
        super().__init__()
        self.published: list[QueueMessage] = []
        self._incoming: list[bytes] = []

    def initialize(self) -> None:
        """No thread: see :meth:`Stock.hear`."""

    def _publish(self, data: dict[str, Any]) -> None:
        self.published.append(json.loads(json.dumps(data)))

    def _listen(self) -> list[bytes]:
        return self._incoming


class Stock:
    """A stock server; its clients are the manager's, without a transport."""

    def __init__(self) -> None:
        self.manager = StockManager()
        self.server = make_server(client_manager=self.manager)
        self.server.logger = Mock()
        self.server._send_eio_packet = lambda client, packet: self._sent[client].append(packet.data)
        self.server.eio.send = lambda client, data: self._sent[client].append(data)
        self._sent: defaultdict[str, list[Any]] = defaultdict(list)
        self.sids: dict[str, str] = {}

    def connect(self, client: str) -> str:
        self.sids[client] = sid = self.manager.connect(client, "/")
        return sid

    def hear(self, message: Optional[QueueMessage]) -> None:
        """Let the manager handle one message of the queue."""
        assert message is not None
        self.manager._incoming = [json.dumps(message).encode()]
        self.manager._thread()
        assert not self.server.logger.exception.called, self.server.logger.exception.mock_calls

    def got(self, client: str) -> list[sio_packet.Packet]:
        """What the client has received since the last call."""
        packets: list[sio_packet.Packet] = []
        for data in self._sent.pop(client, []):
            if isinstance(data, bytes):
                packets[-1].add_attachment(data)
            else:
                packets.append(sio_packet.Packet(encoded_packet=data))
        return packets

    def events(self, client: str) -> list[list[Any]]:
        return [packet.data for packet in self.got(client)]

    @property
    def published(self) -> QueueMessage:
        """The one message that the manager has published."""
        (message,) = self.manager.published
        self.manager.published = []
        return message


@pytest.fixture
def stock() -> Stock:
    return Stock()


@pytest.fixture
def bridge() -> Translator:
    return Translator("bridge-1")


@pytest.fixture
def another() -> Translator:
    return Translator("bridge-2")


def emitted(event: str, data: Any = None, namespace: str = "/", **fields: Any) -> RelayMessage:
    """An emit in the form in which our workers publish it."""
    arguments = [event, *as_arguments(data)]
    packets = ZmqManager()._encode(sio_packet.EVENT, namespace, arguments, fields.get("ack"))
    emit = {"method": "emit", "namespace": namespace, "packet": JSON_PACKET, **fields}
    return RelayMessage(WORKER, 1, emit, packets)


def answered(ack: int, *arguments: Any) -> RelayMessage:
    """An acknowledgement in the form in which our workers send it to the bridge."""
    packets = ZmqManager()._encode(sio_packet.ACK, "/", list(arguments), ack)
    return RelayMessage(
        OTHER, 1, {"method": "callback", "ack": ack, "packet": JSON_PACKET}, packets
    )


def through_json(message: Optional[QueueMessage]) -> QueueMessage:
    assert message is not None
    return parse(json.dumps(message).encode())


def relayed(outgoing: Optional[Outgoing]) -> RelayMessage:
    """A message in the form in which our workers receive it."""
    assert outgoing is not None
    message = RelayMessage("bridge", 1, outgoing.fields, outgoing.packets)
    return RelayMessage.unpack(message.pack())


def arguments_of(message: RelayMessage) -> list[Any]:
    """The arguments that our workers decode."""
    return ZmqManager()._decode(message)


# --- emits, from us to a stock server -------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        None,
        (),
        "ü",
        "",
        0,
        [],
        ["a", 1],
        [None],
        ("a", 1),
        (None, None),
        {"a": [1]},
        b"\xff\0",
        [b"1"],
        ([b"1"], {"b": b"2"}, b""),
        {"name": "x", "data": b"x"},
    ],
    ids=repr,
)
def test_stock_clients_get_what_ours_get(stock: Stock, bridge: Translator, data: Any) -> None:
    stock.connect("a")
    stock.hear(bridge.to_queue(emitted("news", data)))
    assert stock.events("a") == [["news", *as_arguments(data)]]


def test_stock_servers_send_to_whom_it_is_for(stock: Stock, bridge: Translator) -> None:
    for client in "abc":
        stock.connect(client)
    for client in "ab":
        stock.server.enter_room(stock.sids[client], "red")
    for number, fields in enumerate(
        (
            {},
            {"room": "red"},
            {"room": ["red", stock.sids["c"]]},
            {"room": "red", "skip_sid": [stock.sids["a"]]},
            {"room": "blue"},
        )
    ):
        stock.hear(bridge.to_queue(emitted("n", number, **fields)))
    stock.hear(bridge.to_queue(emitted("n", 9, namespace="/chat")))
    numbers = {client: [event[1] for event in stock.events(client)] for client in "abc"}
    assert numbers == {"a": [0, 1, 2], "b": [0, 1, 2, 3], "c": [0, 2]}


def test_stock_servers_heed_room_changes_and_disconnects(stock: Stock, bridge: Translator) -> None:
    sid = stock.connect("a")
    other = stock.connect("b")

    def tell(method: str, **fields: Any) -> None:
        fields = {"method": method, "namespace": "/", **fields}
        stock.hear(bridge.to_queue(RelayMessage(WORKER, 1, fields)))

    tell("enter_room", sid=sid, room="red")
    tell("enter_room", sid=sid, room="blue")
    tell("enter_room", sid=other, room="blue")
    assert set(stock.server.rooms(sid)) == {sid, "red", "blue"}
    tell("leave_room", sid=sid, room="red")
    assert set(stock.server.rooms(sid)) == {sid, "blue"}
    tell("close_room", room="blue")
    assert set(stock.server.rooms(sid)) == {sid}
    tell("disconnect", sid=sid)
    assert not stock.manager.is_connected(sid, "/")
    assert stock.manager.is_connected(other, "/")


def test_several_sids_go_to_each_of_their_workers_once(bridge: Translator) -> None:
    # A worker says it once for each worker of another host.
    rooms = []
    for tag in (WORKER, OTHER):
        message = bridge.to_queue(emitted("n", 1, room=[SID, OTHER_SID], to=tag))
        rooms += through_json(message)["room"]
    assert rooms == [SID, OTHER_SID]
    message = bridge.to_queue(emitted("n", 1, room=["red", SID]))
    assert through_json(message)["room"] == ["red", SID]


def test_except_room_reaches_our_bridges_only(
    stock: Stock, bridge: Translator, another: Translator
) -> None:
    stock.connect("a")
    queued = through_json(bridge.to_queue(emitted("n", 1, except_room=["red"])))
    stock.hear(queued)
    assert stock.events("a") == [["n", 1]]
    assert relayed(another.from_queue(queued)).fields["except_room"] == ["red"]


# --- emits, from a stock server to us -------------------------------------------


@pytest.mark.parametrize(
    ("data", "arguments"),
    [
        (None, []),
        ((), []),
        ("ü", ["ü"]),
        ("", [""]),
        (0, [0]),
        ([], [[]]),
        (["a", 1], [["a", 1]]),
        ([None], [[None]]),
        (("a", 1), ["a", 1]),
        ((None, None), [None, None]),
        ({"a": [1]}, [{"a": [1]}]),
        (b"\xff\0", [b"\xff\0"]),
        ([b"1", b"2"], [[b"1", b"2"]]),
        (({"b": b"1"}, b"", "x"), [{"b": b"1"}, b"", "x"]),
    ],
    ids=repr,
)
def test_our_clients_get_what_stock_ones_get(
    stock: Stock, bridge: Translator, data: Any, arguments: list[Any]
) -> None:
    stock.connect("a")
    stock.server.emit("news", data)
    message = relayed(bridge.from_queue(stock.published))
    assert [arguments_of(message)] == stock.events("a") == [["news", *arguments]]
    assert message.fields == {
        "method": "emit",
        "namespace": "/",
        "packet": JSON_PACKET,
        "room": None,
        "except_room": None,
        "skip_sid": [],
    }


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"room": "red"}, {"room": "red"}),
        ({"to": SID}, {"room": SID}),
        ({"room": ["red", SID]}, {"room": ["red", SID]}),
        ({"skip_sid": SID}, {"skip_sid": [SID]}),
        ({"skip_sid": [SID, "x"]}, {"skip_sid": [SID, "x"]}),
        ({"namespace": "/chat"}, {"namespace": "/chat"}),
    ],
    ids=repr,
)
def test_whom_a_stock_server_emits_to(
    stock: Stock, bridge: Translator, options: dict[str, Any], fields: dict[str, Any]
) -> None:
    for data in (1, b"1"):
        stock.server.emit("news", data, **options)
        outgoing = bridge.from_queue(stock.published)
        message = relayed(outgoing)
        assert outgoing is not None and outgoing.tag is None
        assert {**message.fields, **fields} == message.fields
        assert arguments_of(message) == ["news", data]
        packet = sio_packet.Packet(encoded_packet=message.packets[0])
        assert (packet.namespace or "/") == message.fields["namespace"]


def test_room_changes_and_disconnects_of_a_stock_server(stock: Stock, bridge: Translator) -> None:
    def told() -> dict[str, Any]:
        outgoing = bridge.from_queue(stock.published)
        assert outgoing is not None and outgoing.tag is None and not outgoing.packets
        return outgoing.fields

    stock.server.enter_room(SID, "red")
    room = {"sid": SID, "room": "red", "namespace": "/"}
    assert told() == {"method": "enter_room", **room}
    stock.server.leave_room(SID, "red", namespace="/chat")
    assert told() == {"method": "leave_room", **room, "namespace": "/chat"}
    stock.server.close_room("red")
    assert told() == {"method": "close_room", "room": "red", "namespace": "/"}
    stock.server.disconnect(SID)
    assert told() == {"method": "disconnect", "sid": SID, "namespace": "/"}


def test_a_write_only_stock_manager(bridge: Translator) -> None:
    manager = StockManager()
    manager.write_only = True
    manager.emit("news", b"1", namespace=None)
    (queued,) = manager.published
    assert arguments_of(relayed(bridge.from_queue(queued))) == ["news", b"1"]


# --- any data, any way ----------------------------------------------------------

plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
keys = st.text(max_size=5).filter(lambda key: key != "_placeholder")
nested = st.recursive(
    plain | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
# python-socketio's format has no difference between no argument and one that is None.
several = st.lists(nested, max_size=3).map(tuple).filter(lambda data: data != (None,))
namespaces = st.sampled_from(["/", "/chat"])
ONE_STOCK = Stock()
ONE_STOCK.connect("a")


@given(several, namespaces)
def test_between_our_bridges_arguments_stay_the_same(data: tuple[Any, ...], where: str) -> None:
    queued = through_json(Translator("a").to_queue(emitted("news", data, namespace=where)))
    message = relayed(Translator("b").from_queue(queued))
    assert arguments_of(message) == ["news", *data]
    assert message.fields["namespace"] == where


@given(several)
def test_stock_and_ours_agree_both_ways(data: tuple[Any, ...]) -> None:
    ONE_STOCK.hear(Translator("a").to_queue(emitted("news", data)))
    assert ONE_STOCK.events("a") == [["news", *data]]
    ONE_STOCK.server.emit("news", data)
    message = relayed(Translator("a").from_queue(ONE_STOCK.published))
    assert [arguments_of(message)] == ONE_STOCK.events("a") == [["news", *data]]


@given(st.lists(nested, max_size=3))
def test_acknowledgements_between_our_bridges(arguments: list[Any]) -> None:
    asking, asked = Translator("a"), Translator("b")
    queued = through_json(asking.to_queue(emitted("question", 1, room=SID, ack=77)))
    ack = relayed(asked.from_queue(queued)).fields["ack"]
    outgoing = asking.from_queue(through_json(asked.to_queue(answered(ack, *arguments))))
    assert outgoing is not None and outgoing.tag == WORKER
    assert outgoing.fields["method"] == "callback" and outgoing.fields["ack"] == 77
    assert arguments_of(relayed(outgoing)) == arguments


# --- callbacks -------------------------------------------------------------------


def ask(stock: Stock, bridge: Translator, answers: list[Any]) -> int:
    """A stock server asks a client of ours; returns the acknowledgement's id for our workers."""
    stock.server.emit("q", b"?", to=SID, callback=lambda *args: answers.append(args))
    message = relayed(bridge.from_queue(stock.published))
    assert message.fields["reply_to"] == BRIDGE
    ack = message.fields["ack"]
    assert sio_packet.Packet(encoded_packet=message.packets[0]).id == ack
    assert isinstance(ack, int)
    return ack


@pytest.mark.parametrize("args", [(), ("yes",), (None,), ("yes", {"n": 1}), ([1, 2],)], ids=repr)
def test_a_client_of_ours_answers_a_stock_server(
    stock: Stock, bridge: Translator, args: tuple[Any, ...]
) -> None:
    answers: list[Any] = []
    ack = ask(stock, bridge, answers)
    stock.hear(bridge.to_queue(answered(ack, *args)))
    assert answers == [args]
    assert bridge.to_queue(answered(ack, "again")) is None
    assert bridge.to_queue(answered(ack + 1, "of nothing")) is None


def test_bytes_in_an_answer_are_refused_for_a_stock_server(
    stock: Stock, bridge: Translator
) -> None:
    ack = ask(stock, bridge, [])
    with pytest.raises(FormatError, match="takes no acknowledgement with bytes"):
        bridge.to_queue(answered(ack, b"1"))


@pytest.mark.parametrize("args", [(), ("yes", {"n": 1}), ([1],)], ids=repr)
def test_a_client_of_a_stock_server_answers_us(
    stock: Stock, bridge: Translator, another: Translator, args: tuple[Any, ...]
) -> None:
    sid = stock.connect("a")
    stock.hear(bridge.to_queue(emitted("question", 1, room=sid, ack=77)))
    (packet,) = stock.got("a")
    stock.manager.trigger_callback(sid, packet.id, list(args))
    queued = stock.published
    assert another.from_queue(queued) is None
    outgoing = bridge.from_queue(queued)
    assert outgoing is not None and outgoing.tag == WORKER
    message = relayed(outgoing)
    assert message.fields == {"method": "callback", "ack": 77, "packet": JSON_PACKET}
    assert arguments_of(message) == list(args)


def test_callbacks_of_stock_servers_for_each_other_are_not_ours(
    stock: Stock, bridge: Translator
) -> None:
    stock.manager._return_callback("another", "sid", "/", 1, "yes")
    assert bridge.from_queue(stock.published) is None


def test_answers_that_never_come_are_forgotten(
    monkeypatch: pytest.MonkeyPatch, stock: Stock, bridge: Translator
) -> None:
    monkeypatch.setattr("supervisor_sio.bridge.format.BRIDGE_MOST_CALLBACKS", 3)
    acks = [ask(stock, bridge, []) for _ in range(5)]
    known = [bridge.to_queue(answered(ack)) is not None for ack in acks]
    assert known == [False, False, True, True, True]


# --- what only bridges tell each other -------------------------------------------


def test_the_rest_goes_as_it_is(stock: Stock, bridge: Translator, another: Translator) -> None:
    fields = {
        "method": "request",
        "request": 5,
        "operation": "fetch_sockets",
        "namespace": "/",
        "to": OTHER,
        "after": {OTHER: 3},
    }
    queued = through_json(bridge.to_queue(RelayMessage(WORKER, 7, fields, ["ü", b"\xff"])))
    stock.hear(queued)
    assert bridge.from_queue(queued) is None
    outgoing = another.from_queue(queued)
    assert outgoing is not None and outgoing.tag == OTHER
    assert outgoing.packets == ["ü", b"\xff"]
    del fields["to"], fields["after"]
    assert outgoing.fields == {**fields, "reply_to": WORKER}


def test_who_asked_first_is_answered(bridge: Translator) -> None:
    fields = {"method": "request", "request": 1, "operation": "x", "reply_to": "somebody"}
    message = bridge.to_queue(RelayMessage(WORKER, 1, fields))
    assert through_json(message)["fields"]["reply_to"] == "somebody"


def test_an_emit_that_gathers_acknowledgements_is_for_bridges_only(
    stock: Stock, bridge: Translator, another: Translator
) -> None:
    stock.connect("a")
    queued = through_json(bridge.to_queue(emitted("question", b"?", ack=1, request=2)))
    stock.hear(queued)
    assert stock.events("a") == []
    message = relayed(another.from_queue(queued))
    assert arguments_of(message) == ["question", b"?"]
    assert (message.fields["request"], message.fields["reply_to"]) == (2, WORKER)


def test_what_it_has_said_itself_is_ignored(bridge: Translator, another: Translator) -> None:
    told = [
        emitted("news", 1),
        emitted("news", b"1", ack=1, room=SID),
        RelayMessage(WORKER, 1, {"method": "disconnect", "sid": SID, "namespace": "/"}),
        RelayMessage(WORKER, 1, {"method": "close_room", "room": "red", "namespace": "/"}),
        RelayMessage(WORKER, 1, {"method": "sockets_join", "rooms": "red", "namespace": "/"}),
    ]
    for message in told:
        queued = through_json(bridge.to_queue(message))
        assert bridge.from_queue(queued) is None
        assert another.from_queue(queued) is not None


# --- msgpack ---------------------------------------------------------------------


def msgpacked(kind: int, data: list[Any], cls: Any = None, **fields: Any) -> RelayMessage:
    module = pytest.importorskip("socketio.msgpack_packet")
    cls = cls or module.MsgPackPacket
    encoded = cls(kind, data=data, namespace="/", id=fields.get("ack")).encode()
    fields["packet"] = f"{cls.__module__}.{cls.__qualname__}"
    return RelayMessage(OTHER, 1, fields, [encoded])


@pytest.mark.parametrize("configured", [False, True])
@pytest.mark.parametrize("data", [[], ["x", {"n": 1}], [{"b": [b"1"]}, b"2"]], ids=repr)
def test_msgpack_workers_emit(
    stock: Stock, bridge: Translator, another: Translator, data: list[Any], configured: bool
) -> None:
    module = pytest.importorskip("socketio.msgpack_packet")
    cls = module.MsgPackPacket.configure(dumps_default=str) if configured else None
    stock.connect("a")
    emit = msgpacked(sio_packet.EVENT, ["news", *data], cls, method="emit", namespace="/")
    queued = through_json(bridge.to_queue(emit))
    stock.hear(queued)
    assert stock.events("a") == [["news", *data]]
    assert arguments_of(relayed(another.from_queue(queued))) == ["news", *data]


def test_msgpack_workers_answer(stock: Stock, bridge: Translator) -> None:
    answers: list[Any] = []
    ack = ask(stock, bridge, answers)
    stock.hear(bridge.to_queue(msgpacked(sio_packet.ACK, ["yes"], method="callback", ack=ack)))
    assert answers == [("yes",)]


def test_msgpack_that_json_has_no_words_for(bridge: Translator) -> None:
    msgpack = pytest.importorskip("msgpack")
    data = ["news", msgpack.ExtType(5, b"x")]
    with pytest.raises(FormatError, match="not a Socket.IO packet"):
        bridge.to_queue(msgpacked(sio_packet.EVENT, data, method="emit", namespace="/"))


# --- what strangers write ----------------------------------------------------------


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.abort, ()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_are_refused(protocol: int) -> None:
    with pytest.raises(FormatError) as caught:
        parse(pickle.dumps({"method": "emit", "data": Bomb()}, protocol))
    if protocol >= 2:
        assert "before 5.14: upgrade that" in str(caught.value)


@pytest.mark.parametrize(
    "raw",
    [b"", b"\xff", b"{", b"[]", b"{}", b"1", b"null", b'{"method":1}', b"[" * 100_000],
    ids=lambda raw: repr(raw[:20]),
)
def test_no_message(raw: bytes) -> None:
    with pytest.raises(FormatError):
        parse(raw)


EMIT: QueueMessage = {"method": "emit", "event": "x", "data": [1]}


@pytest.mark.parametrize(
    "message",
    [
        {"method": "emit"},
        {"method": "emit", "event": "x"},
        {"method": "emit", "data": [1]},
        {**EMIT, "event": {"a": 1}},
        {**EMIT, "event": None},
        {**EMIT, "namespace": 5},
        {**EMIT, "namespace": "/\ud800"},
        {**EMIT, "room": {"a": 1}},
        {**EMIT, "skip_sid": 5},
        {**EMIT, "skip_sid": [5]},
        {**EMIT, "except_room": {"a": 1}},
        {**EMIT, "binary": True, "data": []},
        {**EMIT, "binary": True, "data": [[], "!"]},
        {**EMIT, "binary": True, "data": [[], 5]},
        {**EMIT, "binary": True, "data": {}},
        {**EMIT, "callback": 5},
        {**EMIT, "callback": ["room", 1]},
        {**EMIT, "callback": ["room", "/", 1]},
        {**EMIT, "callback": ["room", "/", 1], "host_id": 5},
        {"method": "callback"},
        {"method": "callback", "host_id": "bridge-1:a"},
        {"method": "callback", "host_id": "bridge-1:a", "id": "1", "args": []},
        {"method": "callback", "host_id": "bridge-1:a", "id": True, "args": []},
        {"method": "callback", "host_id": "bridge-1:a", "id": 1, "args": None},
        {"method": "callback", "host_id": "bridge-1:a", "id": 1, "args": {}},
        {"method": "disconnect"},
        {"method": "disconnect", "sid": ["a"]},
        {"method": "enter_room", "sid": "a", "room": {}},
        {"method": "relay"},
        {"method": "relay", "to": None, "fields": [], "packets": 7},
        {"method": "relay", "to": None, "fields": {}, "packets": []},
        {"method": "relay", "to": None, "fields": {"method": []}, "packets": []},
        {"method": "relay", "to": None, "fields": {"method": "emit"}, "packets": []},
        {"method": "relay", "to": None, "fields": {"method": "position"}, "packets": []},
        {"method": "relay", "to": [], "fields": {"method": "callback", "ack": 1}, "packets": []},
        *(
            {"method": "relay", "to": None, "fields": {"method": "callback", "ack": 1}, **packets}
            for packets in (
                {},
                {"packets": 5},
                {"packets": [5]},
                {"packets": [{}]},
                {"packets": [{"base64": "!"}]},
                {"packets": [{"base64": 5}]},
                {"packets": ["\ud800"]},
            )
        ),
    ],
    ids=repr,
)
def test_malformed(bridge: Translator, message: QueueMessage) -> None:
    with pytest.raises(FormatError) as caught:
        bridge.from_queue(through_json(message))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("depth", [10, 100, 300, 500, 900, 950, 980])
def test_nested_as_deep_as_can_be(bridge: Translator, depth: int) -> None:
    try:
        data = parse(b'{"method":"emit","event":"x","data":[' + b"[" * depth + b"]" * depth + b"]}")
        assert bridge.from_queue(data) is not None
    except FormatError:
        assert depth > 100


def test_another_bridge_cannot_speak_of_our_streams(bridge: Translator) -> None:
    fields = {"method": "callback", "ack": 1, "after": {WORKER: 99}, "to": OTHER}
    outgoing = bridge.from_queue({"method": "relay", "to": None, "fields": fields, "packets": []})
    assert outgoing is not None
    assert outgoing.fields == {"method": "callback", "ack": 1}


def test_methods_of_newer_versions_are_not_malformed(bridge: Translator) -> None:
    assert bridge.from_queue({"method": "of a newer version"}) is None


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 3)
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | st.sampled_from(["/", "a:b", "bridge-1:a", "bridge-1", "QQ==", '2["x"]', "51-", SID])
    | st.just({"_placeholder": True, "num": 0}),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5), inner, max_size=2)
        | st.fixed_dictionaries({"base64": inner})
    ),
    max_leaves=8,
)
METHODS = [
    *("emit", "callback", "disconnect", "enter_room", "leave_room", "close_room", "relay"),
    "of a newer version",
]
relay_fields = st.fixed_dictionaries(
    {"method": st.sampled_from([*METHODS, "request", "answer", "position"]) | values},
    optional={
        name: values
        for name in ("namespace", "packet", "room", "ack", "request", "worker", "after", "to")
    },
)
queue_messages = st.fixed_dictionaries(
    {"method": st.sampled_from(METHODS) | st.text(max_size=5)},
    optional={
        "fields": relay_fields | values,
        "event": st.just("x") | values,
        "data": st.just([1]) | st.lists(values, max_size=3) | values,
        "binary": st.booleans(),
        "packets": st.lists(values, max_size=3) | values,
        **{
            name: values
            for name in ("namespace room except_room skip_sid callback host_id").split()
            + "to sid id args via seq origin members".split()
        },
    },
)


@given(queue_messages)
@example({**EMIT, "data": [], "binary": True})
def test_garbage_is_malformed_or_can_be_relayed(message: QueueMessage) -> None:
    bridge = Translator("bridge-1")
    try:
        outgoing = bridge.from_queue(message)
    except FormatError:
        return
    if outgoing is not None:
        assert outgoing.tag is None or isinstance(outgoing.tag, str)
        assert relayed(outgoing).fields["method"] == outgoing.fields["method"]
    # And what a client answers to it.
    for arguments in ((), (b"1",)):
        try:
            bridge.to_queue(answered(1, *arguments))
        except FormatError:
            pass


packets = st.lists(
    st.sampled_from(
        ['2["x"]', '21["x",1]', '51-["x",{"_placeholder":true,"num":0}]', "2", "2[]", '2{"a":1}']
        + ['2"text"', "31[]", "3", "9999999999999-", "2" + "[" * 5000]
    )
    | st.text(max_size=5)
    | st.binary(max_size=5),
    max_size=3,
)


@given(
    st.sampled_from([JSON_PACKET, MSGPACK_PACKET, "of another class"]),
    st.sampled_from(["emit", "callback", "request"]),
    packets,
    st.booleans(),
)
def test_garbage_of_a_worker(packet: str, method: str, parts: list[Any], to: bool) -> None:
    bridge = Translator("bridge-1")
    bridge.from_queue({**EMIT, "callback": ["room", "/", 1], "host_id": "stock"})
    fields = {"method": method, "namespace": "/", "packet": packet, "ack": 1}
    if to:
        fields["to"] = WORKER
    try:
        queued = bridge.to_queue(RelayMessage(WORKER, 1, fields, parts))
    except FormatError:
        return
    if queued is not None:
        through_json(queued)


# --- numbers and origins ------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "mark"),
    [
        ({"via": "b", "seq": 0}, ("b", 0)),
        ({"via": "b", "seq": 1}, ("b", 1)),
        ({"via": "b", "seq": 2**53}, ("b", 2**53)),
        ({}, None),
        ({"via": "b"}, None),
        ({"seq": 1}, None),
        ({"via": 1, "seq": 1}, None),
        ({"via": "b" * BRIDGE_LONGEST_NAME, "seq": 1}, ("b" * BRIDGE_LONGEST_NAME, 1)),
        ({"via": "b" * (BRIDGE_LONGEST_NAME + 1), "seq": 1}, None),
        ({"via": "", "seq": 1}, None),
        *(({"via": "b", "seq": seq}, None) for seq in (-1, 1.0, True, "1", None, [], 10**400)),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_seen(message: QueueMessage, mark: Optional[tuple[str, int]]) -> None:
    assert seen(message) == mark


def test_a_bridge_recognizes_its_own_messages() -> None:
    for name in ("bridge-1", 'a "name"', "ä"):
        raw = encode({"method": "emit", "data": [1]}, name, 17)
        assert number_after(head_of(name), raw) == 17
        assert seen(parse(raw)) == (name, 17)
        assert parse(raw) == {"via": name, "seq": 17, "method": "emit", "data": [1]}


@pytest.mark.parametrize(
    "raw",
    [
        encode({"method": "emit"}, "bridge-12", 17),
        json.dumps({"method": "emit", "via": "bridge-1", "seq": 17}).encode(),
        *(head_of("bridge-1") + rest for rest in (b"", b"17", b"-1,", b"x,", b"\xd9\xa1,")),
        head_of("bridge-1") + b"9" * 30 + b",",
    ],
)
def test_other_messages_must_be_decoded(raw: bytes) -> None:
    assert number_after(head_of("bridge-1"), raw) is None


def test_origin() -> None:
    assert origin_of({"origin": ["w", True, 3]}) == ("w", True, 3)


@pytest.mark.parametrize(
    "origin",
    [
        *(None, [], "abc", 5, {}, ["w", True], ["w", 1, 3], [1, True, 3], ["w", True, "3"]),
        *(["", True, 3], ["w" * (BRIDGE_LONGEST_NAME + 1), True, 3]),
    ],
)
def test_no_origin(origin: Any) -> None:
    for message in ({}, {"origin": origin}):
        with pytest.raises(FormatError):
            origin_of(message)


def test_bytes_travel_as_base64(bridge: Translator) -> None:
    queued = through_json(bridge.to_queue(emitted("news", b"\xff\0")))
    assert queued["binary"] and queued["data"][1:] == [base64.b64encode(b"\xff\0").decode()]


def test_the_format_is_that_of_redis_manager() -> None:
    # Its own methods are what the bridge relies on.
    assert issubclass(socketio.RedisManager, PubSubManager)
    assert socketio.RedisManager._handle_emit is PubSubManager._handle_emit
    assert socketio.RedisManager._thread is PubSubManager._thread
