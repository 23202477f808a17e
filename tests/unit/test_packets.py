from __future__ import annotations

import json
import types
from typing import Any

import pytest
import socketio
from socketio import packet

from supervisor_sio.packets import CheckedJson, Packet, Partial, class_for, wire_format

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
