from __future__ import annotations

import json
import math
import types
from typing import Any

import pytest
import socketio
from engineio import packet as eio_packet
from hypothesis import given, settings
from hypothesis import strategies as st
from socketio import packet

from supervisor_sio.cluster import packets as module
from supervisor_sio.cluster.packets import (
    _LONG,
    CheckedJson,
    Packet,
    Partial,
    ack_text,
    class_for,
    coders,
    encode,
    read_event,
    wire_format,
)
from unit.examples import examples

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


class _Strict:
    """Like orjson: it refuses such texts, and writes null for such values."""

    @staticmethod
    def dumps(data: Any, **_: Any) -> str:
        (value,) = data
        if isinstance(value, int) and value.bit_length() > 64:
            raise TypeError("an integer of more than 64 bits")
        return json.dumps([value if math.isfinite(value) else None])

    @staticmethod
    def loads(text: str) -> Any:
        return Packet.json.loads(text)


def test_a_module_that_is_strict_by_itself_is_not_looked_after() -> None:
    checked = CheckedJson(_Strict)
    assert checked.loads is _Strict.loads and checked.dumps is _Strict.dumps
    lax = CheckedJson(json)
    assert lax.loads is not json.loads and lax.dumps is not json.dumps


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


@settings(max_examples=examples(500))
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
    assert coders(cls) is None
    assert issubclass(cls, Own) and wire_format(cls) == wire_format(Own)
    assert cls.json.more == 5
    assert cls(packet.EVENT, data=["e", 1]).encode() == '2["e",1]'
    with pytest.raises(ValueError):
        cls(packet.EVENT, data=["e", float("nan")]).encode()
    with pytest.raises(ValueError):
        cls(encoded_packet='2["e",NaN]')
    plain = class_for(socketio.Server(async_mode="threading"))
    assert wire_format(plain) == wire_format(packet.Packet) == wire_format(Packet)


class _Brackets:
    """A JSON module whose output shows where it was used."""

    @staticmethod
    def dumps(data: Any, separators: tuple[str, str]) -> str:
        return json.dumps([data], separators=separators)

    @staticmethod
    def loads(text: str) -> Any:
        if "raise" in text:
            raise KeyError(text)
        return ["read", json.loads(text)]


def test_the_short_ways_by_the_json_module_of_the_application(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for kind in (packet.Packet, eio_packet.Packet):  # the server sets it in both
        monkeypatch.setattr(kind, "json", kind.json)
    cls = class_for(socketio.Server(async_mode="threading", json=_Brackets))
    known = coders(cls)
    assert known is not None
    dumps, loads = known
    assert ack_text("/", 7, [1], dumps) == cls(packet.ACK, id=7, data=[1]).encode() == "37[[1]]"
    assert read_event('2["e"]', loads) == ("/", None, cls(encoded_packet='2["e"]').data)
    assert read_event('2["raise"]', loads) is None
    with pytest.raises(ValueError):
        ack_text("/", 7, [float("nan")], dumps)


def partial(text: str, size: int = 100) -> Partial:
    return Partial(Packet(encoded_packet=text), text, size)


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


PIECES = ["2", "3", "5", "0", "1-", "-", "/a", "/a?b", ",", "7", "9" * 99, "9" * 100, "²", " "]
DATA = ["[", '["e"]', '["e",{"a":[1.5,null]}]', '["e",NaN]', '["e"]x', "{}", '"e"', "[" * 100_000]


@given(st.lists(st.sampled_from(PIECES), max_size=5).map("".join), st.sampled_from([*DATA, ""]))
def test_an_event_is_read_the_same_in_a_short_way(head: str, data: str) -> None:
    text = f"2{head}{data}"
    try:
        slowly = Packet(encoded_packet=text)
    except (ValueError, RecursionError):
        assert read_event(text) is None
        return
    event = read_event(text)
    if event is not None:  # else it is read in the long way
        assert event == (slowly.namespace or "/", slowly.id, slowly.data)
        assert not slowly.attachment_count


@pytest.mark.parametrize("head", ["", "0", "/a,", "/a b,12"])
def test_what_is_read_in_a_short_way(head: str) -> None:
    event = Packet(encoded_packet=f'2{head}["e",1]')
    assert read_event(f'2{head}["e",1]') == (event.namespace or "/", event.id, event.data)


@pytest.mark.parametrize("namespace", ["/", "/a"])
@pytest.mark.parametrize("data", [[], [1, {"a": [None, "ä"]}], [[b"x"]], [{"b": b""}], [("t",)]])
def test_an_acknowledgement_is_written_the_same_in_a_short_way(
    namespace: str, data: list[Any]
) -> None:
    slowly = Packet(packet.ACK, namespace=namespace, id=7, data=data).encode()
    assert ack_text(namespace, 7, data) == (slowly if isinstance(slowly, str) else None)


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
