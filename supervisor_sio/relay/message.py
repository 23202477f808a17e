"""The format of a message on the relay.

Three frames, so that the relay's own counters count messages:

1. the topic: ``<channel> NUL *`` for all, ``<channel> NUL <tag>`` for one worker;
2. a header, a JSON object: who sent it, its number, what to do;
3. the body: Socket.IO packets as the emitter encoded them, one after the
   other; the header's ``parts`` has their lengths and which are text.

Nothing in a message is executed: JSON and bytes only, no pickle.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Sequence, Union

EncodedPacket = Union[str, bytes]

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


@dataclass
class RelayMessage:
    #: Tag of the worker, or the id of another emitter.
    sender: str
    #: Counts the messages of this sender under this topic, from 1.
    sequence: int
    #: What to do, with JSON values only: ``method`` and its arguments.
    fields: dict[str, Any]
    packets: Sequence[EncodedPacket] = field(default_factory=tuple)

    def pack(self, topic: bytes) -> list[bytes]:
        """:raises TypeError: when a field is not JSON."""
        parts: list[list[Any]] = []
        bodies: list[bytes] = []
        for packet in self.packets:
            text = isinstance(packet, str)
            body = packet.encode() if isinstance(packet, str) else bytes(packet)
            parts.append([len(body), text])
            bodies.append(body)
        header = {"from": self.sender, "seq": self.sequence, "parts": parts, **self.fields}
        return [topic, _encode(header).encode(), b"".join(bodies) if bodies else b""]

    @classmethod
    def unpack(cls, frames: Sequence[bytes]) -> RelayMessage:
        """:raises MessageError: whatever is wrong with the frames."""
        try:
            _, head, body = frames
            header = _decode(head.decode())
            sender, sequence, parts = header.pop("from"), header.pop("seq"), header.pop("parts")
            if not isinstance(sender, str) or type(sequence) is not int:
                raise MessageError("a header without sender and number")
            if not isinstance(header.get("method"), str):
                raise MessageError("a header without a method")
            packets: list[EncodedPacket] = []
            start = 0
            for length, text in parts:
                if type(length) is not int or not 0 <= length <= len(body) - start:
                    raise MessageError("a body shorter than its header says")
                chunk = body[start : start + length]
                packets.append(chunk.decode() if text else chunk)
                start += length
            if start != len(body):
                raise MessageError("a body longer than its header says")
        except MessageError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise MessageError(f"not a relay message: {error}") from None
        return cls(sender, sequence, header, packets)
