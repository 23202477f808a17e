"""The format of a message on the relay.

One frame, because pyzmq takes several times as long for three:

1. the topic: ``<channel> NUL * NUL`` for all, ``<channel> NUL <tag> NUL`` for one
   worker, ``<channel> NUL ? NUL`` for questions to everybody who publishes,
   ``NUL router NUL`` for questions to the router process;
2. a header: numbers (see :mod:`.outbox`) and lengths, the name of the sender,
   and a JSON object that says what to do;
3. Socket.IO packets as the emitter encoded them, each behind its length in
   bytes and whether it is text.

Nothing in a message is executed: JSON and bytes only, no pickle.
"""

from __future__ import annotations

import functools
import json
import struct
from dataclasses import dataclass, field
from typing import Any, Mapping, Optional, Sequence, Union

from ..common.limits import RELAY_MOST_REPEATED

EncodedPacket = Union[str, bytes]

_VERSION = 2

#: version, sequence, after, time, lengths of the sender's name and of the JSON object
_HEAD = struct.Struct("!BQQdBI")
#: length of a packet, times two, plus one for text
_PART = struct.Struct("!I")

#: Numbers stay far from where they would wrap, or sum up to a figure XML-RPC cannot carry.
_LARGEST_SEQUENCE = 2**53

#: Longest JSON object, in bytes, that is worth remembering.
_REPEATED = 512

_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().decode


#: No channel begins with NUL.
TOPIC_FOR_ROUTER = b"\0router\0"


class MessageError(ValueError):
    """Bytes that are not a message of this format."""


def read_number(value: Any) -> int:
    """A number of a message out of another's fields.

    :raises MessageError: when it is not one.
    """
    if type(value) is not int or value < 0:
        raise MessageError(f"{value!r:.80} is not the number of a message")
    return value


def topic_for_all(channel: str) -> bytes:
    return channel.encode() + b"\0*\0"


def topic_for_one(channel: str, tag: str) -> bytes:
    # "*" sorts before a tag: a relay that repeats its subscriptions to a new
    # publisher comes to the topic for all first.
    return channel.encode() + b"\0" + tag.encode() + b"\0"


def topic_for_publishers(channel: str) -> bytes:
    return channel.encode() + b"\0?\0"


@dataclass
class RelayMessage:
    #: Tag of the worker, or the id of another emitter.
    sender: str
    #: Counts the messages of this sender under this topic, from 1; 0 for what
    #: the relay's participants tell each other about those.
    sequence: int
    #: What to do, with JSON values only: ``method`` and its arguments. Shared
    #: among messages: not to be changed.
    fields: Mapping[str, Any]
    packets: Sequence[EncodedPacket] = field(default_factory=tuple)
    #: To one worker: the number of the sender's last message to all before this one.
    after: int = 0
    #: When it was sent, in seconds of the host's monotonic clock.
    time: float = 0.0
    #: For which clients of the process that has received it; ``None``: for all.
    scope: Any = field(default=None, init=False, repr=False, compare=False)
    #: To whom it was, for who has received it: the tag of a worker; ``None``: to all.
    stream: Optional[str] = field(default=None, init=False, repr=False, compare=False)
    #: What :meth:`pack` gives, if that is known: for who keeps it.
    packed: Optional[bytes] = field(default=None, init=False, repr=False, compare=False)

    def pack(self) -> bytes:
        """Without the topic. :raises TypeError: when a field is not JSON."""
        sender, fields = self.sender.encode(), _encode_fields(self.fields)
        head = _HEAD.pack(_VERSION, self.sequence, self.after, self.time, len(sender), len(fields))
        parts = [head, sender, fields]
        for packet in self.packets:
            text = isinstance(packet, str)
            data = packet.encode() if isinstance(packet, str) else packet
            parts.append(_PART.pack(len(data) << 1 | text))
            parts.append(data)
        return b"".join(parts)

    @classmethod
    def unpack(cls, data: bytes, start: int = 0) -> RelayMessage:
        """:param start: the length of the topic before it.
        :raises MessageError: whatever is wrong with the bytes.
        """
        try:
            version, sequence, after, time, length, more = _HEAD.unpack_from(data, start)
            start += _HEAD.size
            middle, end = start + length, start + length + more
            sender = data[start:middle].decode()
            if version != _VERSION:
                raise MessageError(f"version {version} of the format, not {_VERSION}")
            if not sender or len(data) < end:
                raise MessageError("a header cut short")
            fields = _decode_fields(data[middle:end])
        except MessageError:
            raise
        except (struct.error, ValueError, RecursionError) as error:
            raise MessageError(f"not a relay message: {error}") from None
        if sequence > _LARGEST_SEQUENCE or after > _LARGEST_SEQUENCE or time != time:
            raise MessageError("a header with impossible numbers")
        return cls(sender, sequence, fields, _unpack_packets(data, end), after, time)


def _unpack_packets(data: bytes, start: int) -> list[EncodedPacket]:
    packets: list[EncodedPacket] = []
    end = len(data)
    while start < end:
        if end - start < _PART.size:
            raise MessageError("longer than its packets")
        (length,) = _PART.unpack_from(data, start)
        start += _PART.size
        length, text = length >> 1, length & 1
        if length > end - start:
            raise MessageError("shorter than its packets")
        packet = data[start : start + length]
        try:
            packets.append(packet.decode() if text else packet)
        except UnicodeDecodeError as error:
            raise MessageError(f"text that is not UTF-8: {error}") from None
        start += length
    return packets


def _encode_fields(fields: Mapping[str, Any]) -> bytes:
    # An emitter says the same again and again: to the same room, in the same namespace.
    try:
        key = tuple(fields.items())
        known = _encoded.get(key)
    except TypeError:  # a list of rooms, say
        return _encode(fields).encode()
    if known is None:
        known = _encode(fields).encode()
        if len(known) <= _REPEATED and "ack" not in fields and "request" not in fields:
            if len(_encoded) >= RELAY_MOST_REPEATED:
                _encoded.clear()
            _encoded[key] = known
    return known


def _decode_fields(data: bytes) -> Mapping[str, Any]:
    return _decode_repeated(data) if len(data) <= _REPEATED else _decode_anew(data)


def _decode_anew(data: bytes) -> Mapping[str, Any]:
    fields = _decode(data.decode())
    if not isinstance(fields, dict) or not isinstance(fields.get("method"), str):
        raise ValueError("fields without a method")
    return fields


_encoded: dict[tuple[tuple[str, Any], ...], bytes] = {}
_decode_repeated = functools.lru_cache(maxsize=RELAY_MOST_REPEATED)(_decode_anew)
