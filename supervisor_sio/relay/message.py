"""The format of a message on the relay.

A message is one frame, because pyzmq takes several times as long for three:

1. the topic: ``<channel> NUL * NUL`` for all, ``<channel> NUL <tag> NUL`` for one worker,
   ``<channel> NUL ? NUL`` for questions to all publishers, ``NUL router NUL`` for questions to
   the router process;
2. a header: numbers (see :mod:`.outbox`) and lengths, the sender's name, the hashes of the rooms
   whose members the message is for (see :mod:`.rooms`), for a message of another host its bridge
   and its number there (see :mod:`.passed`), and a JSON object with the method and its arguments;
3. Socket.IO packets as the emitter encoded them, each after its length in bytes and a flag for
   text.

Messages of one stream that are sent together travel as a *bundle*: a header that begins like a
message's, with the hashes of all their rooms, the messages' lengths, and the messages themselves,
with consecutive numbers. It is packed right before it is sent, and unpacked by the receiver.

:func:`look` reads the common beginning of both: enough for a receiver that does not need the rest.

Nothing in a message is executed: JSON and bytes only, no pickle.
"""

from __future__ import annotations

import functools
import json
import struct
from dataclasses import dataclass, field
from typing import Any, Deque, Iterable, Iterator, Mapping, NamedTuple, Optional, Sequence, Union

from ..common.limits import RELAY_MOST_REPEATED, RELAY_MOST_ROOMS
from .rooms import hashes_of

EncodedPacket = Union[str, bytes]

_VERSION = 3
_MESSAGE, _BUNDLE, _PASSED_ON = 1, 2, 3

#: version, kind, length of the sender's name, number of rooms, sequence (the first in a bundle)
_LOOK = struct.Struct("!BBBBQ")
#: of a message; also after, time, length of the JSON object
_HEAD = struct.Struct("!BBBBQQdI")
#: of a bundle; also the number of messages
_BUNDLE_HEAD = struct.Struct("!BBBBQH")
#: the length of the header by kind; the sender's name follows
_SIZES = {_MESSAGE: _HEAD.size, _BUNDLE: _BUNDLE_HEAD.size, _PASSED_ON: _HEAD.size}
_COUNT = struct.Struct("!H")
_HASHES = [struct.Struct(f"!{count}Q") for count in range(RELAY_MOST_ROOMS + 1)]
#: of a message of another host, after the hashes: its number at the bridge that passed it on, and
#: the length of the bridge's name, which follows; the fields do not have it then
_VIA = struct.Struct("!QB")
#: length of a packet, times two, plus one for text; and of a message in a bundle
_PART = struct.Struct("!I")
#: the offset of the length of a message's JSON object
_FIELDS_AT = _HEAD.size - _PART.size
#: a message's number, and its offset
_SEQUENCE = struct.Struct("!Q")
_SEQUENCE_AT = 4

#: Version 2: version, sequence, after, time, lengths of the sender's name and of the JSON object.
_HEAD_2 = struct.Struct("!BQQdBI")

#: Numbers stay far from where they would wrap, or sum up to a figure XML-RPC cannot carry.
_LARGEST_SEQUENCE = 2**53

#: Longest JSON object that is cached, in bytes.
_REPEATED = 512

_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().decode


#: No channel begins with NUL.
TOPIC_FOR_ROUTER = b"\0router\0"


class MessageError(ValueError):
    """Bytes that are not a message in this format."""


class OtherVersion(MessageError):
    """A message of another version of this package.

    :ivar sender: the sender's name, if it is known; else empty.
    :ivar newer: whether that version is newer than this one.
    """

    def __init__(self, version: int, sender: str) -> None:
        super().__init__(f"version {version} of the format, not {_VERSION}")
        self.sender = sender
        self.newer = version > _VERSION


class Look(NamedTuple):
    """What a message and a bundle begin with."""

    sender: bytes
    #: The number of the first message, and how many there are, with consecutive numbers; 0 when
    #: they have no numbers.
    first: int
    messages: int
    #: The hashes of the rooms whose members they are for; none when they are for everybody.
    hashes: Sequence[int]
    #: For a message of another host: the bridge, and the number there.
    via: Optional[tuple[str, int]] = None


def look(data: bytes, start: int) -> Look:
    """Read the beginning, which is enough for a receiver without members of the rooms.

    :param start: the length of the topic before it.
    :raises MessageError: when it is not the beginning of a message or bundle.
    """
    try:
        version, kind, length, rooms, first = _LOOK.unpack_from(data, start)
        if version != _VERSION:
            raise OtherVersion(version, _sender_of(data, start))
        at = start + _SIZES[kind]
        sender = data[at : at + length]
        hashes = _HASHES[rooms].unpack_from(data, at + length) if rooms else ()
        count, via = 1, None
        if kind == _BUNDLE:
            (count,) = _COUNT.unpack_from(data, at - _COUNT.size)
        elif kind == _PASSED_ON:
            via, _ = _read_via(data, at + length + 8 * rooms)
    except (struct.error, LookupError, UnicodeDecodeError) as error:
        raise MessageError(f"not a relay message: {error}") from None
    if not sender or not count or first + count - 1 > _LARGEST_SEQUENCE:
        raise MessageError("a header with impossible numbers")
    return Look(sender, first, count, hashes, via)


def _sender_of(data: bytes, start: int) -> str:
    """The sender of a message in the former version; empty for another one."""
    if data[start] != 2 or len(data) - start < _HEAD_2.size:
        return ""
    length = data[start + _HEAD_2.size - 5]
    at = start + _HEAD_2.size
    return data[at : at + length].decode("utf-8", "replace")


def read_number(value: Any) -> int:
    """Check a message's number in the fields of another message.

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
    #: Counts the messages of this sender under this topic, from 1; 0 for messages between the
    #: relay's participants, which have no numbers.
    sequence: int
    #: What to do, with JSON values only: ``method`` and its arguments. The object is shared
    #: among messages: not to be changed.
    fields: Mapping[str, Any]
    packets: Sequence[EncodedPacket] = field(default_factory=tuple)
    #: For a message to one worker: the number of the sender's last message to all before it.
    after: int = 0
    #: When it was sent, in seconds of the host's monotonic clock.
    time: float = 0.0
    #: For which clients of the receiving process it is; ``None`` for all.
    scope: Any = field(default=None, init=False, repr=False, compare=False)
    #: For the receiver: the tag to which it was sent; ``None`` for all.
    stream: Optional[str] = field(default=None, init=False, repr=False, compare=False)
    #: The result of :meth:`pack`, if it is known already.
    packed: Optional[bytes] = field(default=None, init=False, repr=False, compare=False)
    #: If this stands for several messages that arrived together: each as packed. This message has
    #: the number of the first one, and the packets of all.
    run: Optional[Sequence[bytes]] = field(default=None, init=False, repr=False, compare=False)

    @property
    def last(self) -> int:
        """Its number, or that of the last message of a run; 0 without numbers."""
        return self.sequence + len(self.run) - 1 if self.run and self.sequence else self.sequence

    def each(self) -> Iterator[RelayMessage]:
        """The messages of :attr:`run`, with the same scope."""
        for data in self.run or ():
            message = RelayMessage.unpack(data)
            message.scope, message.stream, message.packed = self.scope, self.stream, data
            yield message

    def pack(self) -> bytes:
        """See :func:`pack`."""
        return pack(self.sender, self.sequence, self.fields, self.packets, self.after, self.time)

    @classmethod
    def unpack(cls, data: bytes, start: int = 0) -> RelayMessage:
        """:param start: the length of the topic before it.
        :raises MessageError: when the bytes are not a message.
        """
        try:
            if data[start] != _VERSION:
                raise OtherVersion(data[start], _sender_of(data, start))
            _, kind, length, rooms, sequence, after, time, more = _HEAD.unpack_from(data, start)
            start += _HEAD.size
            sender = data[start : start + length].decode()
            middle = start + length + 8 * rooms
            via = None
            if kind == _PASSED_ON:
                via, middle = _read_via(data, middle)
            elif kind != _MESSAGE:
                raise MessageError(f"kind {kind}, not a message")
            end = middle + more
            if not sender or len(data) < end:
                raise MessageError("a header cut short")
            fields = _decode_fields(data[middle:end])
            if via is not None:
                fields = {**fields, "via": list(via)}
        except MessageError:
            raise
        except (struct.error, ValueError, LookupError, RecursionError) as error:
            raise MessageError(f"not a relay message: {error}") from None
        if sequence > _LARGEST_SEQUENCE or after > _LARGEST_SEQUENCE or time != time:
            raise MessageError("a header with impossible numbers")
        return cls(sender, sequence, fields, _unpack_packets(data, end), after, time)


def pack(
    sender: str,
    sequence: int,
    fields: Mapping[str, Any],
    packets: Iterable[EncodedPacket] = (),
    after: int = 0,
    time: float = 0.0,
) -> bytes:
    """A message as bytes, without the topic; the parameters are those of :class:`RelayMessage`.

    :raises TypeError: when a field is not JSON.
    """
    kind, via = _MESSAGE, b""
    if "via" in fields:
        via = _pack_via(fields["via"])
        if via:
            fields, kind = {name: fields[name] for name in fields if name != "via"}, _PASSED_ON
    name, (said, rooms) = sender.encode(), _encode_fields(fields)
    head = _HEAD.pack(_VERSION, kind, len(name), len(rooms) // 8, sequence, after, time, len(said))
    parts = [head, name, rooms, via, said]
    for packet in packets:
        if isinstance(packet, str):
            data = packet.encode()
            parts += _PART.pack(len(data) << 1 | 1), data
        else:
            parts += _PART.pack(len(packet) << 1), packet
    return b"".join(parts)


def time_of(data: bytes) -> float:
    """When a packed message was sent."""
    time: float = _HEAD.unpack_from(data)[6]
    return time


def pack_bundle(messages: Sequence[bytes]) -> bytes:
    """Pack several packed messages of one stream as a bundle."""
    _, _, length, _, first = _LOOK.unpack_from(messages[0])
    sender = messages[0][_HEAD.size : _HEAD.size + length]
    start = _HEAD.size + length
    hashes: dict[bytes, None] = {}
    for data in messages:
        rooms = data[3]
        if not rooms or data[1] != _MESSAGE:  # for everybody
            hashes = {}
            break
        for at in range(start, start + 8 * rooms, 8):
            hashes[data[at : at + 8]] = None
    if len(hashes) > RELAY_MOST_ROOMS:
        hashes = {}
    head = _BUNDLE_HEAD.pack(_VERSION, _BUNDLE, length, len(hashes), first, len(messages))
    lengths = struct.pack(f"!{len(messages)}I", *map(len, messages))
    return b"".join((head, sender, *hashes, lengths, *messages))


def unpack_bundle(data: bytes, start: int) -> Iterator[bytes]:
    """The packed messages of a bundle, of which there are several.

    :param start: the length of the topic before it.
    :raises MessageError: when the bundle is longer or shorter than its messages.
    """
    try:
        _, _, length, rooms, _, count = _BUNDLE_HEAD.unpack_from(data, start)
        at = start + _BUNDLE_HEAD.size + length + 8 * rooms
        lengths = struct.unpack_from(f"!{count}I", data, at)
    except struct.error as error:
        raise MessageError(f"not a relay message: {error}") from None
    at += 4 * count
    if at + sum(lengths) != len(data):
        raise MessageError("longer or shorter than its messages")
    return _slices(data, at, lengths)


def runs(messages: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Split a bundle's messages, in order, into runs: consecutive ones that differ only in numbers,
    times and packets."""
    run: list[bytes] = []
    joins, end = False, 0
    kind = rest = b""
    for data in messages:
        if joins and data[:4] == kind and data[_FIELDS_AT:end] == rest:
            run.append(data)
            continue
        if run:
            yield run
        run, kind, end = [data], data[:4], _fields_end(data)
        joins, rest = kind[1:2] == bytes([_MESSAGE]), data[_FIELDS_AT:end]
    if run:
        yield run


def take_run(frames: Deque[bytes], start: int) -> list[bytes]:
    """Remove from some frames the first one, and those that continue it: they have the next
    numbers, and differ only in numbers, times and packets.

    :param start: the length of the topic of the first frame.
    :return: the messages.
    """
    whole = frames.popleft()
    data = whole[start:]
    run = [data]
    if len(data) < _HEAD.size or data[1] != _MESSAGE:
        return run
    first: int = _SEQUENCE.unpack_from(data, _SEQUENCE_AT)[0]
    sequence_at, fields_at, end = (
        start + offset for offset in (_SEQUENCE_AT, _FIELDS_AT, _fields_end(data))
    )
    kind, rest = whole[:sequence_at], whole[fields_at:end]
    while first and frames:
        whole = frames[0]
        if whole[:sequence_at] != kind or whole[fields_at:end] != rest:
            break
        if _SEQUENCE.unpack_from(whole, sequence_at)[0] != first + len(run):
            break
        run.append(frames.popleft()[start:])
    return run


def sender_of(data: bytes) -> bytes:
    """The name of a message's sender."""
    return data[_HEAD.size : _HEAD.size + data[2]]


def unpack_run(run: Sequence[bytes]) -> RelayMessage:
    """Unpack a run as one message with the packets of all.

    :raises MessageError: when it is not a message.
    """
    message = RelayMessage.unpack(run[0])
    end = _fields_end(run[0])
    packets = list(message.packets)
    for data in run[1:]:
        packets += _unpack_packets(data, end)
    message.packets, message.run = packets, run
    return message


def _fields_end(data: bytes) -> int:
    """The offset of a message's packets; beyond the end for bytes that are too short."""
    if len(data) < _HEAD.size:
        return _HEAD.size
    (size,) = _PART.unpack_from(data, _FIELDS_AT)
    return int(_HEAD.size + data[2] + 8 * data[3] + size)


def _pack_via(via: Any) -> bytes:
    """The packed bridge and number; empty when ``via`` is malformed."""
    if not isinstance(via, (list, tuple)) or len(via) != 2:
        return b""
    bridge, number = via
    if not isinstance(bridge, str) or type(number) is not int:
        return b""
    name = bridge.encode("utf-8", "replace")
    if len(name) > 255 or not 0 <= number <= _LARGEST_SEQUENCE:
        return b""
    return _VIA.pack(number, len(name)) + name


def _read_via(data: bytes, at: int) -> tuple[tuple[str, int], int]:
    """:return: the bridge and the number; and the offset after them."""
    number, length = _VIA.unpack_from(data, at)
    at += _VIA.size
    return (data[at : at + length].decode(), number), at + length


def _slices(data: bytes, at: int, lengths: Sequence[int]) -> Iterator[bytes]:
    for length in lengths:
        yield data[at : at + length]
        at += length


def _unpack_packets(data: bytes, start: int) -> list[EncodedPacket]:
    packets: list[EncodedPacket] = []
    end = len(data)
    try:
        while start < end:
            (length,) = _PART.unpack_from(data, start)
            start += _PART.size
            stop = start + (length >> 1)
            if stop > end:
                raise MessageError("shorter than its packets")
            packet = data[start:stop]
            packets.append(packet.decode() if length & 1 else packet)
            start = stop
    except struct.error:
        raise MessageError("longer than its packets") from None
    except UnicodeDecodeError as error:
        raise MessageError(f"text that is not UTF-8: {error}") from None
    return packets


def _encode_fields(fields: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Fields as JSON, and the hashes of the rooms that they name."""
    # An emitter repeats itself: the same room, in the same namespace.
    try:
        key = tuple(fields.items())
        known = _encoded.get(key)
    except TypeError:  # a list of rooms, say
        return _encode(fields).encode(), _pack_hashes(fields)
    if known is None:
        known = _encode(fields).encode(), _pack_hashes(fields)
        if len(known[0]) <= _REPEATED and "ack" not in fields and "request" not in fields:
            if len(_encoded) >= RELAY_MOST_REPEATED:
                _encoded.clear()
            _encoded[key] = known
    return known


def _pack_hashes(fields: Mapping[str, Any]) -> bytes:
    hashes = hashes_of(fields)
    return _HASHES[len(hashes)].pack(*hashes)


def _decode_fields(data: bytes) -> Mapping[str, Any]:
    return _decode_repeated(data) if len(data) <= _REPEATED else _decode_anew(data)


def _decode_anew(data: bytes) -> Mapping[str, Any]:
    fields = _decode(data.decode())
    if not isinstance(fields, dict) or not isinstance(fields.get("method"), str):
        raise ValueError("fields without a method")
    return fields


_encoded: dict[tuple[tuple[str, Any], ...], tuple[bytes, bytes]] = {}
_decode_repeated = functools.lru_cache(maxsize=RELAY_MOST_REPEATED)(_decode_anew)
