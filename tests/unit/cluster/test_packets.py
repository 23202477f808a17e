from __future__ import annotations

import json
import types
from typing import Any

import pytest
import socketio
from hypothesis import given, settings
from hypothesis import strategies as st
from socketio import packet

from supervisor_sio.cluster import packets as module
from supervisor_sio.cluster.packets import (
    _LONG,
    CheckedJson,
    Packet,
    Partial,
    class_for,
    encode,
    plain_ack,
    plain_event,
    wire_format,
)

NOT_JSON = ["NaN", "Infinity", "-Infinity", "1e999", "-1E+999", "9" * 400 + ".5"]


def wire(cls: Any, data: Any) -> Any:
    return cls(packet.EVENT, namespace="/", data=data).encode()


@pytest.mark.parametrize(
    "data",
    [
        ["e"],
        ["e", 1, None, "\xfc", {"a": [True, {}]}, (1, ("two",))],
        ["e", b"\x00", {"a": [bytearray(b"x"), {"b": b""}]}, "text"],
    ],
)
def test_the_wire_is_that_of_python_socketio(data: list[Any]) -> None:
    assert wire(Packet, data) == wire(packet.Packet, data)


def test_bytes_in_tuples() -> None:
    data = ["e", ("/", (b"a", {"n": ((b"b",), 1)}))]
    assert wire(Packet, data) == wire(packet.Packet, ["e", ["/", [b"a", {"n": [[b"b"], 1]}]]])


@pytest.mark.parametrize("number", NOT_JSON)
@pytest.mark.parametrize("text", ["[%s]", '["e",{"a":[1,%s]}]'])
@pytest.mark.parametrize("checked", [Packet.json, CheckedJson(json)])
def test_what_is_not_json(checked: Any, number: str, text: str) -> None:
    with pytest.raises(ValueError):
        checked.loads(text % number)
    data = json.loads(text % number)
    with pytest.raises(ValueError):
        checked.dumps(data, separators=(",", ":"))


@pytest.mark.parametrize("checked", [Packet.json, CheckedJson(json)])
def test_what_only_looks_like_it(checked: Any) -> None:
    data = ["NaN", "to Infinity", "1e999", "9" * 400, 1e300, -1e-999, 1.5, {"NaN": 10**20}]
    assert checked.loads(checked.dumps(data, separators=(",", ":"))) == data


#: Numbers at the edge of what is refused, and what is not JSON to anybody.
numbers = st.one_of(
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["NaN", "-Infinity", "1e308", "1E+309", "-1e0400", "1e-999", "01", "-", "1."]),
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["", "-"]),
        st.integers(90, 320).map(lambda count: "9" * count),
        st.sampled_from(["", ".5"]),
        st.sampled_from(["", "e9", "e99", "E+199", "e209", "e-300"]),
    ),
)
texts = st.recursive(
    st.one_of(numbers, st.text().map(json.dumps), st.sampled_from(["true", "null", '"1e999"'])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: f"[{','.join(items)}]"),
        st.lists(inner, max_size=3).map(
            lambda items: "{" + ",".join(f'"{n}":{item}' for n, item in enumerate(items)) + "}"
        ),
    ),
    max_leaves=12,
)


def outcome(decode: Any, text: str) -> Any:
    try:
        return repr(decode(text))
    except ValueError as error:
        return str(error)


@settings(max_examples=500)
@given(text=texts, size=st.sampled_from([0, _LONG]))
def test_a_long_text_is_decoded_as_a_short_one(text: str, size: int) -> None:
    text = f'[{text},"{"x" * size}"]'
    assert outcome(Packet.json.loads, text) == outcome(module._decoder.decode, text)


@pytest.mark.parametrize("item", ["1,", "-12345.5,", '{"a":1},', "1e22,"])
def test_no_call_for_each_number_of_a_long_text(item: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_decoder", None)  # it calls Python for each number
    assert len(Packet.json.loads(f"[{item * _LONG}0]")) == _LONG + 1


def test_json_modules_and_packets_of_the_application() -> None:
    class Json(types.SimpleNamespace):
        dumps = staticmethod(json.dumps)
        loads = staticmethod(json.loads)
        more = 5

    class Own(packet.Packet):  # type: ignore[misc]
        json = Json

    cls = class_for(socketio.Server(async_mode="threading", serializer=Own))
    assert issubclass(cls, Own) and wire_format(cls) == wire_format(Own)
    assert cls.json.more == 5
    assert cls(packet.EVENT, data=["e", 1]).encode() == '2["e",1]'
    with pytest.raises(ValueError):
        cls(packet.EVENT, data=["e", float("nan")]).encode()
    with pytest.raises(ValueError):
        cls(encoded_packet='2["e",NaN]')
    plain = class_for(socketio.Server(async_mode="threading"))
    assert wire_format(plain) == wire_format(packet.Packet) == wire_format(Packet)


def partial(text: str, size: int = 100) -> Partial:
    return Partial(Packet(encoded_packet=text), size)


def test_attachments_come_to_their_places() -> None:
    one = partial('52-["e",{"a":[{"_placeholder":true,"num":1}]},{"_placeholder":true,"num":0}]')
    assert not one.add(b"first")
    assert one.add(b"second")
    assert one.packet.data == ["e", {"a": [b"second"]}, b"first"]


@pytest.mark.parametrize(
    "numbers", ["", "0", "0,0", "0,2", "0,1,1", "-1,0", "0,true", "false,1", '0,"1"', "0,null"]
)
def test_attachments_that_are_not_named_once(numbers: str) -> None:
    named = ",".join(f'{{"_placeholder":true,"num":{n}}}' for n in numbers.split(",") if n)
    with pytest.raises(ValueError):
        partial(f'52-["e",[{named}]]')


def test_attachments_that_are_too_long_together() -> None:
    two = '52-["e",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]'
    fits = partial(two)
    assert not fits.add(bytes(50)) and fits.add(bytes(50))
    long = partial(two)
    long.add(bytes(50))
    with pytest.raises(ValueError):
        long.add(bytes(51))


#: Parts of packets, in any order.
packet_texts = st.lists(
    st.sampled_from(
        ["2", "1", "0", "-", "/", "/x", ",", "?", "[", "]", '"e"', '["e",1]', "²", " ", "\n", "{}"]
    ),
    max_size=8,
).map(lambda parts: "2" + "".join(parts))


@settings(max_examples=1000)
@given(packet_texts)
def test_a_plain_event_is_what_a_packet_says(text: str) -> None:
    found = plain_event(text)
    if found is not None:
        pkt = Packet(encoded_packet=text)
        assert (pkt.packet_type, pkt.namespace, pkt.attachment_count) == (packet.EVENT, None, 0)
        assert found == (pkt.id, pkt.data)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('2["e"]', (None, ["e"])),
        ('20["e",{"a":1}]', (0, ["e", {"a": 1}])),
        ('21234567890["e"]', (1234567890, ["e"])),
        ('2/x,["e"]', None),
        ('51-["e"]', None),
        ('31["e"]', None),
        ("2", None),
        ('2²["e"]', None),
        ('2["e"', None),
        ("2" + "[" * 100_000, None),
    ],
)
def test_which_events_are_plain(text: str, found: Any) -> None:
    assert plain_event(text) == found


@pytest.mark.parametrize("values", [[], [1, "é", {"a": None}], [[b"x"]], [{"a": bytearray()}]])
def test_a_plain_ack_is_what_a_packet_says(values: list[Any]) -> None:
    text = Packet(packet.ACK, id=7, data=values).encode()
    assert plain_ack(7, values) == (text if isinstance(text, str) else None)


def test_what_contains_itself_is_named() -> None:
    data: list[Any] = []
    data.append(data)
    with pytest.raises(ValueError, match="[Cc]ircular"):
        encode(data)


def test_without_the_module_in_c(monkeypatch: pytest.MonkeyPatch) -> None:
    data = ["é", 1.5, {"a": [None, True]}]
    expected = encode(data)
    monkeypatch.setattr(module, "_write", None)
    assert encode(data) == expected
