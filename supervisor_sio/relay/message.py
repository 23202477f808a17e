"""The format of a message on the relay.

Three frames, so that the relay's own counters count messages:

1. the topic: ``<channel> NUL *`` for all, ``<channel> NUL <tag>`` for one worker,
   ``<channel> NUL ?`` for questions to everybody who publishes;
2. a header: a fixed part with the numbers (see :mod:`.outbox`), the name of the
   sender, and a JSON object that says what to do;
3. the body: Socket.IO packets as the emitter encoded them, each behind its
   length in bytes and whether it is text.

Nothing in a message is executed: JSON and bytes only, no pickle.
"""

from __future__ import annotations

import functools
import json
import struct
from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence, Union

EncodedPacket = Union[str, bytes]

_VERSION = 2

#: version, sequence, after, time, length of the sender's name
_HEAD = struct.Struct("!BQQdB")
#: length of a packet, times two, plus one for text
_PART = struct.Struct("!I")

#: Numbers stay far from where they would wrap, or sum up to a figure XML-RPC cannot carry.
_LARGEST_SEQUENCE = 2**53

#: Longest JSON object, in bytes, that is worth remembering decoded.
_REPEATED = 512

_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().decode


class MessageError(ValueError):
    """Frames that are not a message of this format."""


def topic_for_all(channel: str) -> bytes:
    return channel.encode() + b"\0*"


def topic_for_one(channel: str, tag: str) -> bytes:
    # "*" sorts before a tag: a relay that repeats its subscriptions to a new
    # publisher comes to the topic for all first.
    return channel.encode() + b"\0" + tag.encode()


def topic_for_publishers(channel: str) -> bytes:
    return channel.encode() + b"\0?"


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

    def pack(self) -> tuple[bytes, bytes]:
        """Header and body. :raises TypeError: when a field is not JSON."""
        sender = self.sender.encode()
        head = _HEAD.pack(_VERSION, self.sequence, self.after, self.time, len(sender))
        return head + sender + _encode(self.fields).encode(), pack_parts(self.packets)

    @classmethod
    def unpack(cls, head: bytes, body: bytes) -> RelayMessage:
        """:raises MessageError: whatever is wrong with the two frames."""
        try:
            version, sequence, after, time, length = _HEAD.unpack_from(head)
            end = _HEAD.size + length
            sender = head[_HEAD.size : end].decode()
            fields = _decode_fields(head[end:])
        except (struct.error, ValueError, RecursionError) as error:
            raise MessageError(f"not a relay message: {error}") from None
        if version != _VERSION:
            raise MessageError(f"version {version} of the format, not {_VERSION}")
        if not sender or len(head) < end:
            raise MessageError("a header without its sender")
        if sequence > _LARGEST_SEQUENCE or after > _LARGEST_SEQUENCE or time != time:
            raise MessageError("a header with impossible numbers")
        return cls(sender, sequence, fields, unpack_parts(body), after, time)


def pack_parts(packets: Sequence[EncodedPacket]) -> bytes:
    parts = []
    for packet in packets:
        text = isinstance(packet, str)
        data = packet.encode() if isinstance(packet, str) else packet
        parts.append(_PART.pack(len(data) << 1 | text))
        parts.append(data)
    return b"".join(parts)


def unpack_parts(body: bytes) -> list[EncodedPacket]:
    """:raises MessageError: for a body whose lengths do not add up."""
    packets: list[EncodedPacket] = []
    start, end = 0, len(body)
    while start < end:
        if end - start < _PART.size:
            raise MessageError("a body longer than its packets")
        (length,) = _PART.unpack_from(body, start)
        start += _PART.size
        length, text = length >> 1, length & 1
        if length > end - start:
            raise MessageError("a body shorter than its packets")
        chunk = body[start : start + length]
        try:
            packets.append(chunk.decode() if text else chunk)
        except UnicodeDecodeError as error:
            raise MessageError(f"text that is not UTF-8: {error}") from None
        start += length
    return packets


def _decode_fields(data: bytes) -> Mapping[str, Any]:
    # An emitter says the same again and again: to the same room, in the same namespace.
    return _decode_repeated(data) if len(data) <= _REPEATED else _decode_anew(data)


def _decode_anew(data: bytes) -> Mapping[str, Any]:
    fields = _decode(data.decode())
    if not isinstance(fields, dict) or not isinstance(fields.get("method"), str):
        raise ValueError("fields without a method")
    return fields


_decode_repeated = functools.lru_cache(maxsize=1024)(_decode_anew)
