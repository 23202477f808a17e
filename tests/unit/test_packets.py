from __future__ import annotations

from typing import Any

import pytest
from socketio import packet

from supervisor_sio.packets import Packet


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
