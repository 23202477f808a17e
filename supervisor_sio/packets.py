"""Socket.IO packets as python-socketio makes them, with JSON coders that are ready.

``json.dumps(separators=…)`` and ``json.loads(parse_int=…)``, as python-socketio
calls them, make a coder anew for each packet: that takes longer than to code a
short one.
"""

from __future__ import annotations

import json
from typing import Any

from engineio import json as eio_json
from socketio import packet

#: What most data are made of; nothing else has to be looked into.
_NEVER_BINARY = frozenset((str, int, float, bool, type(None)))


class _Json:
    """What a packet needs of a JSON module."""

    _encode = json.JSONEncoder(separators=(",", ":")).encode
    #: With engineio's guard against integers that take long to convert.
    _decode = json.JSONDecoder(parse_int=eio_json._safe_int).decode

    @classmethod
    def dumps(cls, data: Any, separators: tuple[str, str]) -> str:
        return cls._encode(data)

    @classmethod
    def loads(cls, text: str) -> Any:
        return cls._decode(text)


class Packet(packet.Packet):  # type: ignore[misc]
    """The default packet of python-socketio; the same on the wire.

    It takes bytes in tuples inside of the data as well, since tuples are arrays
    in JSON: ``sio.instrument()`` makes such.
    """

    json = _Json

    @classmethod
    def data_is_binary(cls, data: Any) -> bool:
        if isinstance(data, dict):
            data = data.values()
        elif not isinstance(data, (list, tuple)):
            return isinstance(data, (bytes, bytearray))
        for item in data:
            if type(item) not in _NEVER_BINARY and cls.data_is_binary(item):
                return True
        return False

    _data_is_binary = data_is_binary  # its name in older versions

    @classmethod
    def _deconstruct_binary_internal(cls, data: Any, attachments: list[Any]) -> Any:
        if isinstance(data, (bytes, bytearray)):
            attachments.append(data)
            return {"_placeholder": True, "num": len(attachments) - 1}
        if isinstance(data, (list, tuple)):
            return [cls._deconstruct_binary_internal(item, attachments) for item in data]
        if isinstance(data, dict):
            return {k: cls._deconstruct_binary_internal(v, attachments) for k, v in data.items()}
        return data


def class_for(server: Any) -> Any:
    """The packet class that a ``socketio.Server`` should have: the same, or this one."""
    cls = server.packet_class
    return Packet if cls is packet.Packet and cls.json is eio_json else cls


def wire_format(cls: Any) -> str:
    """Names what packets of a class are on the wire."""
    if cls is Packet:
        cls = packet.Packet
    return f"{cls.__module__}.{cls.__qualname__}"
