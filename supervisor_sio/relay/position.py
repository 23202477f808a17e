"""A position: how far a process has received the other senders, for another process to go on.

It is sent as a file in memory (memfd_create(2)): a head, a JSON object, and messages in the relay's
format. The file's offset is shared with other processes, so readers do not use it.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any, Callable, NamedTuple, Optional

from ..common import memory_file
from ..common.formats import other_version
from ..common.limits import POSITION_BYTES, RELAY_MOST_GONE, RELAY_MOST_SENDERS, RELAY_MOST_STREAMS
from .inbox import Numbers

_VERSION = 3

#: mark, version, length of the JSON object
_HEAD = struct.Struct("!4sHI")
_MARK = b"siop"
#: length of a message
_PART = struct.Struct("!I")

#: As in messages: numbers stay far from where they would wrap.
_LARGEST_NUMBER = 2**53


class Held(NamedTuple):
    """A packed message that has yet to be delivered."""

    #: The tag to which it was sent; ``None`` for all.
    tag: Optional[str]
    data: bytes


@dataclass
class Part:
    """The position of the sessions with these tags."""

    tags: tuple[str, ...]
    #: When their first worker began to receive, in seconds of the host's monotonic clock.
    since: float
    #: See :meth:`.inbox.Inbox.save`.
    senders: dict[str, Any]
    #: The last number that arrived from each bridge to other hosts.
    passed: dict[str, int]
    #: Messages to deliver, in order.
    kept: list[Held] = field(default_factory=list)
    #: Messages that wait for an earlier one of their sender.
    held: list[Held] = field(default_factory=list)
    #: Messages lost for good that no process has counted yet.
    dropped: int = 0
    #: Whether some of these had been sent, see :attr:`.inbox.Inbox.has_gap`.
    has_gap: bool = False
    #: Tags of other workers some of whose clients are among these sessions.
    guest_tags: tuple[str, ...] = ()
    #: Senders that have ended, and from which messages were received until then.
    complete: list[str] = field(default_factory=list)

    def has(self, sender: str, numbers: Numbers) -> None:
        """Note that these sessions have a sender's messages up to these numbers."""
        if not any(numbers.values()):
            return
        tags = (*self.tags, *self.guest_tags)
        own = {tag: [numbers[tag] + 1, numbers[tag]] for tag in tags if tag in numbers}
        self.senders[sender] = [True, numbers[None] + 1, numbers[None], own, False]


@dataclass
class Position:
    #: The channel on the relay.
    channel: str
    #: Nearly always one; several if the process was adopting sessions when it was told to end.
    parts: list[Part]
    #: How many messages the process itself had published: its own clients have them all.
    sent: int = 0

    @property
    def tags(self) -> tuple[str, ...]:
        return tuple(tag for part in self.parts for tag in part.tags)

    def write(self) -> int:
        """Write the position, without :attr:`sent`, to a file. The caller owns the descriptor.

        :raises OSError: when there is no memory for it, or no descriptor.
        """
        head = {
            "channel": self.channel,
            "parts": [
                {
                    "tags": part.tags,
                    "since": part.since,
                    "senders": part.senders,
                    "passed": part.passed,
                    "dropped": part.dropped,
                    "has_gap": part.has_gap,
                    "guest_tags": part.guest_tags,
                    "complete": part.complete,
                    "kept": [one.tag for one in part.kept],
                    "held": [one.tag for one in part.held],
                }
                for part in self.parts
            ],
        }
        text = json.dumps(head, separators=(",", ":")).encode()
        data = [_HEAD.pack(_MARK, _VERSION, len(text)), text]
        for part in self.parts:
            for _, message in (*part.kept, *part.held):
                data += (_PART.pack(len(message)), message)
        return memory_file.write("sio-position", b"".join(data))

    @classmethod
    def read(cls, descriptor: int) -> Position:
        """Read what :meth:`write` has written; the descriptor stays open.

        :raises ValueError: when anything in it is wrong; the text names it.
        """
        file = _File(descriptor)
        mark, version, length = _HEAD.unpack(file.take(_HEAD.size, "head"))
        if mark != _MARK:
            raise ValueError("position: not a position")
        if version != _VERSION:
            raise ValueError(f"position: {other_version(version, _VERSION)}")
        try:
            head = json.loads(file.take(length, "head"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"head: not JSON: {error}") from None
        if not isinstance(head, dict):
            raise ValueError("head: not an object")
        channel = _checked(head, "channel", _is_text)
        parts = [_read_part(part, file) for part in _checked(head, "parts", _is_list)]
        if not parts:
            raise ValueError("parts: none")
        position = cls(channel, parts)
        if len(set(position.tags)) != len(position.tags):
            raise ValueError("tags: one of them comes twice")
        file.end()
        return position


class _File:
    """Reads a file from its beginning."""

    def __init__(self, descriptor: int) -> None:
        try:
            self._data = memoryview(memory_file.read(descriptor, POSITION_BYTES))
        except ValueError as error:
            raise ValueError(f"position: {error}") from None
        except OSError as error:
            raise ValueError(f"position: cannot be read: {error}") from None
        self._at = 0

    def take(self, size: int, what: str) -> bytes:
        taken = bytes(self._data[self._at : self._at + size])
        if len(taken) != size:
            raise ValueError(f"{what}: cut short")
        self._at += size
        return taken

    def message(self, what: str) -> bytes:
        (size,) = _PART.unpack(self.take(_PART.size, what))
        return self.take(size, what)

    def end(self) -> None:
        if self._at != len(self._data):
            raise ValueError("position: longer than its messages")


def _read_part(part: Any, file: _File) -> Part:
    if not isinstance(part, dict):
        raise ValueError("parts: not an object")
    tags = tuple(_checked(part, "tags", _are_tags))
    guest_tags = tuple(_checked(part, "guest_tags", _are_guest_tags))
    all_tags = (*tags, *guest_tags)
    if len(set(all_tags)) != len(set(tags)) + len(guest_tags):
        raise ValueError("guest_tags: one of them comes twice")
    for name, sender in _checked(part, "senders", _is_senders).items():
        _check_sender(name, sender, all_tags)
    kept, held = _checked(part, "kept", _is_list), _checked(part, "held", _is_list)
    for name, messages in (("kept", kept), ("held", held)):
        if any(tag is not None and tag not in all_tags for tag in messages):
            raise ValueError(f"{name}: a message to another tag")
    return Part(
        tags,
        float(_checked(part, "since", _is_time)),
        part["senders"],
        _checked(part, "passed", _is_numbers),
        [Held(tag, file.message("kept")) for tag in kept],
        [Held(tag, file.message("held")) for tag in held],
        _checked(part, "dropped", _is_number),
        _checked(part, "has_gap", _is_bool),
        guest_tags,
        _checked({"complete": [], **part}, "complete", _are_senders),  # former versions lack it
    )


def _check_sender(name: str, sender: Any, tags: tuple[str, ...]) -> None:
    """:raises ValueError: when the sender is not in the form of :meth:`.Inbox.save`."""
    try:
        placed, next, last, own, gone = sender
        if (
            type(placed) is not bool
            or type(gone) is not bool
            or not all(tag in tags for tag in own)
        ):
            raise ValueError
        for first, highest in ((next, last), *own.values()):
            if not (_is_number(first) and _is_number(highest) and 1 <= first <= highest + 1):
                raise ValueError
    except (TypeError, ValueError, AttributeError):
        raise ValueError(f"senders: {name!r:.40} with {sender!r:.80}") from None


def _checked(fields: dict[str, Any], name: str, check: Callable[[Any], bool]) -> Any:
    """:raises ValueError: when the field is missing or wrong."""
    value = fields.get(name)
    if not check(value):
        raise ValueError(f"{name}: {value!r:.80}")
    return value


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST_NUMBER


def _is_bool(value: Any) -> bool:
    return type(value) is bool


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e12


def _are_tags(value: Any) -> bool:
    few = isinstance(value, list) and 0 < len(value) <= RELAY_MOST_STREAMS
    return few and all(map(_is_text, value))


def _are_guest_tags(value: Any) -> bool:
    return value == [] or _are_tags(value)


def _are_senders(value: Any) -> bool:
    few = isinstance(value, list) and len(value) <= RELAY_MOST_SENDERS + RELAY_MOST_GONE + 1
    return few and all(map(_is_text, value))


def _is_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


def _is_senders(value: Any) -> bool:
    return isinstance(value, dict) and len(value) <= RELAY_MOST_SENDERS + RELAY_MOST_GONE + 1
