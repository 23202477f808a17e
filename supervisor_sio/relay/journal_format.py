"""The format of a journal in memory: segments, and the records in them.

A journal has two logs, ``events`` and ``states``, each of several segments: files in memory
(memfd_create(2)) whose descriptors are sent to other processes. A segment has a head and records,
each at a multiple of eight bytes. A record counts when the head's *commit* is beyond it, which is
written last: a process that is killed leaves whole records only. What is changed in place is one
number of eight bytes, or one byte.

The segments of a log form a chain: each names the one before it and the one after it, so a reader
that lacks one notices.

``events`` has records of these kinds. *Events* are numbered in their journal, from the segment's
``first`` on, and so are *gaps*, where an event is missing. A *source* is a stream of a sender, with
the last number received, which is changed in place; each segment begins with all sources. A *part*
stands for adopted sessions with sources of their own, until they reach the position of the own
clients. A source may also stand for a tag: of a worker some of whose clients are guests here, so
that messages to it are received, too. ``states`` has one record for each client; replaced ones are
marked.

Nothing here is executed: JSON, numbers and bytes, whoever wrote them.
"""

from __future__ import annotations

import enum
import fcntl
import json
import mmap
import os
import struct
from typing import Any, Final, Iterator, NamedTuple, Optional, Sequence, Union

from ..common.formats import other_version
from .message import RelayMessage

VERSION = 2

MARK: Final = b"sioj"

#: mark, version, log, nothing, number, previous, next, commit, first, gap, its time, since, the
#: time when the segment began, tag
HEAD: Final = struct.Struct("=4sHBxQQQQQQddd64s")
#: The offsets of these fields in the head.
PREVIOUS: Final = 16
NEXT: Final = 24
COMMIT: Final = 32
GAP: Final = 48
GAP_TIME: Final = 56
SINCE: Final = 64

NUMBER: Final = struct.Struct("=Q")
TIME: Final = struct.Struct("=d")

#: At the beginning of a record: its length in bytes, its kind.
RECORD: Final = struct.Struct("=IB")
#: The offset of the kind.
KIND: Final = 4
#: length, kind, stream, length of its tag, length of the scope, time; then tag, scope, message
EVENT: Final = struct.Struct("=IBBHId")
#: length, kind, stream, part, number, length of the sender's name; then the name, and a tag
SOURCE: Final = struct.Struct("=IBBHQH")
#: The offset of the number.
SOURCE_NUMBER: Final = 8
#: length, kind, nothing, part, messages yet to be delivered, since; then JSON
PART: Final = struct.Struct("=IBxHQd")
PART_DUE: Final = 8
#: length, kind, nothing, length of the pid; then pid, state
STATE: Final = struct.Struct("=IBxH")


#: As in messages: numbers stay far from where they would wrap.
_LARGEST_NUMBER = 2**53


class Kind(enum.IntEnum):
    EVENT = 1
    SOURCE = 2
    #: A source whose sender has ended.
    GONE = 3
    PART = 4
    STATE = 5
    #: A record that was replaced, or is not needed any more.
    DEAD = 6
    #: An event is missing here; the gap has its number.
    GAP = 7


_EVENT = int(Kind.EVENT)
_SMALLEST = min(EVENT.size, SOURCE.size, PART.size, STATE.size)


class Log(str, enum.Enum):
    """The two logs of a journal, under their names on the channel between worker and router."""

    EVENTS = "events"
    STATES = "states"


CODES: Final = {Log.EVENTS: 1, Log.STATES: 2}


class Own(enum.Enum):
    """Not a stream: marks what a process emits to its own clients only."""

    OWN = "own"


OWN: Final = Own.OWN

#: A stream of a sender: ``None`` is the one to all, a text the one to the worker with this tag.
Stream = Union[None, str, Own]

#: Codes in records: of streams, and of sources for a bridge to other hosts or a tag of guests.
TO_ALL, TO_ONE, TO_OWN, BRIDGE, GUESTS = range(5)

#: The clients that an event was for, by the tags in their sids: those with these tags (true), or
#: all others (false). ``None`` is for all.
Scope = Optional[Sequence[Any]]


class Incomplete(Exception):
    """Not all events after a number are there.

    :ivar given: whether that number was ever given.
    """

    def __init__(self, text: str, given: bool = True) -> None:
        super().__init__(text)
        self.given = given


class Heard(NamedTuple):
    """A position: how far a process has received what all senders send to all, and to one worker.
    The last number of each sender."""

    numbers: dict[str, int]
    #: When each sender was received first, by the host's monotonic clock; senders without an entry
    #: were received earlier.
    first: dict[str, float]
    #: By sender, of messages to that worker.
    to_one: dict[str, int]

    def has(self, sender: str, stream: Stream, number: int, to: str = "") -> bool:
        """Whether the process has received a message.

        :param to: the tag of that worker.
        """
        if stream is not None and stream != to:
            return False
        return number <= (self.numbers if stream is None else self.to_one).get(sender, 0)

    def to_json(self) -> list[Any]:
        return [self.numbers, self.first, self.to_one]

    @classmethod
    def from_json(cls, value: Any) -> Heard:
        """:raises ValueError: when it is not a result of :meth:`to_json`."""
        if isinstance(value, list) and len(value) == 3:
            numbers, first, to_one = value
            if all(isinstance(one, dict) for one in value):
                right = all(
                    type(number) is int and number >= 0
                    for number in (*numbers.values(), *to_one.values())
                )
                if right and all(type(at) in (int, float) for at in first.values()):
                    return cls(numbers, first, to_one)
        raise ValueError("not a position in what others have sent")


class Event:
    """An event that a process gave to its clients."""

    __slots__ = ("k", "time", "stream", "scope", "data", "_message")

    def __init__(self, k: int, time: float, stream: Stream, scope: Scope, data: bytes) -> None:
        #: Its number in the journal.
        self.k = k
        #: When it was written, in seconds of the host's monotonic clock.
        self.time = time
        self.stream = stream
        self.scope = scope
        #: The message, as packed.
        self.data = data
        self._message: Optional[RelayMessage] = None

    @property
    def message(self) -> RelayMessage:
        """:raises MessageError: when the record has no message."""
        if self._message is None:
            self._message = RelayMessage.unpack(self.data)
            self._message.stream = self.stream if isinstance(self.stream, str) else None
        return self._message

    @property
    def sender(self) -> str:
        return self.message.sender

    @property
    def number(self) -> int:
        """Its number in its stream; 0 for what was sent to no other process."""
        return self.message.sequence


class Head(NamedTuple):
    log: Log
    number: int
    #: 0 if there is none; the same for ``next``.
    previous: int
    next: int
    #: The offset of the next record; 0 before the segment is used.
    commit: int
    #: The number of the first event in it.
    first: int
    #: The last number at which an event is missing, and when that was found.
    gap: int
    gap_time: float
    #: When its process began to receive from the relay; 0 if it has not.
    since: float
    #: When the segment was begun, in seconds of the host's monotonic clock.
    began: float
    tag: str


def read_head(memory: Any, size: int) -> Head:
    """:raises ValueError: when it is not the head of a segment; the text says why."""
    if size < HEAD.size:
        raise ValueError("journal: a segment cut short")
    mark, version, code, *numbers, gap_time, since, began, tag = HEAD.unpack_from(memory)
    if mark != MARK:
        raise ValueError("journal: not a segment")
    if version != VERSION:
        raise ValueError(f"journal: {other_version(version, VERSION)}")
    logs = [log for log, known in CODES.items() if known == code]
    if not logs:
        raise ValueError(f"journal: log {code}")
    number, previous, following, commit, first, gap = numbers
    tag = tag.rstrip(b"\0").decode("ascii", "replace")
    head = Head(
        logs[0], number, previous, following, commit, first, gap, gap_time, since, began, tag
    )
    if not all(map(_is_time, (gap_time, since, began))) or max(first, gap) > _LARGEST_NUMBER:
        raise ValueError("journal: a head with impossible numbers")
    if head.commit and not HEAD.size <= head.commit <= size:
        raise ValueError(f"journal: records up to {head.commit} in {size} bytes")
    if not number or previous >= number or (following and following <= number):
        raise ValueError(f"journal: segment {number} after {previous}, before {following}")
    return head


def records(memory: Any, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The offsets, kinds and lengths of the records that count.

    :raises ValueError: when there are no records.
    """
    unpack = RECORD.unpack_from
    while at < end:
        length, kind = unpack(memory, at) if end - at >= RECORD.size else (0, 0)
        if length < _SMALLEST or length > end - at:
            raise ValueError(f"journal: a record of {length} bytes at {at} of {end}")
        yield at, kind, length
        at = aligned(at + length)


def aligned(at: int) -> int:
    return (at + 7) & -8


def read_event(memory: Any, at: int, k: int) -> Event:
    """:raises ValueError: when it is not an event."""
    length, kind, code, tag_length, scope_length, time = _unpack(EVENT, memory, at)
    end = at + length
    scope_at = at + EVENT.size + tag_length
    data_at = scope_at + scope_length
    if kind != _EVENT or data_at > end or code not in (TO_ALL, TO_ONE, TO_OWN):
        raise ValueError(f"journal: not an event at {at}")
    stream: Stream = None
    if code == TO_ONE:
        stream = _text(memory[at + EVENT.size : scope_at])
    elif code == TO_OWN:
        stream = OWN
    scope = read_scope(memory[scope_at:data_at]) if scope_length else None
    return Event(k, time, stream, scope, memory[data_at:end])


def read_scope(data: bytes) -> Scope:
    try:
        only, tags = json.loads(data)
    except (ValueError, TypeError, RecursionError):
        raise ValueError("journal: a malformed scope") from None
    if type(only) is not bool or not _are_texts(tags):
        raise ValueError("journal: a malformed scope")
    return [only, tags]


_SOURCES = TO_ALL, TO_ONE, BRIDGE, GUESTS


class Source(NamedTuple):
    """A stream, up to the number that was received."""

    gone: bool
    code: int
    part: int
    number: int
    sender: str
    #: The worker that alone gets the stream; empty for the one to all.
    tag: str


def read_source(memory: Any, at: int) -> Source:
    """:raises ValueError: when it is not a source."""
    length, kind, code, part, number, name = _unpack(SOURCE, memory, at)
    middle, end = at + SOURCE.size + name, at + length
    if middle > end or code not in _SOURCES or number > _LARGEST_NUMBER:
        raise ValueError(f"journal: not a source at {at}")
    sender, tag = _text(memory[at + SOURCE.size : middle]), _text(memory[middle:end])
    return Source(kind == Kind.GONE, code, part, number, sender, tag)


class AdoptedPart(NamedTuple):
    """Adopted sessions that have not reached the position of the own clients."""

    part: int
    #: Messages that other processes have kept for them and that are yet to be delivered.
    due: int
    since: float
    tags: list[str]


def read_part(memory: Any, at: int) -> AdoptedPart:
    """:raises ValueError: when it is not a part."""
    length, _, part, due, since = _unpack(PART, memory, at)
    if length < PART.size:
        raise ValueError(f"journal: not a part at {at}")
    try:
        tags = json.loads(memory[at + PART.size : at + length])
    except (ValueError, RecursionError):
        tags = None
    if not tags or not _are_texts(tags) or not _is_time(since) or due > _LARGEST_NUMBER:
        raise ValueError(f"journal: not a part at {at}")
    return AdoptedPart(part, due, since, tags)


#: Beginning of a journal's key for a note, in place of a pid: that the clients of another journal
#: are this worker's. The rest is the tag of that journal.
HEIR_OF = "heir of "


def read_state(memory: Any, at: int) -> tuple[str, bytes]:
    """A client's pid and its state. :raises ValueError: when it is not a state."""
    length, _, pid = _unpack(STATE, memory, at)
    middle, end = at + STATE.size + pid, at + length
    if middle > end:
        raise ValueError(f"journal: not a state at {at}")
    return _text(memory[at + STATE.size : middle]), memory[middle:end]


def _unpack(record: struct.Struct, memory: Any, at: int) -> tuple[Any, ...]:
    try:
        return record.unpack_from(memory, at)
    except struct.error:
        raise ValueError(f"journal: a record cut short at {at}") from None


def _is_time(value: float) -> bool:
    return 0 <= value < 1e12


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ValueError("journal: text that is not UTF-8") from None


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


# --- the memory --------------------------------------------------------------------

#: The file's size cannot change while it is mapped.
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


def make_memory(size: int) -> tuple[int, mmap.mmap]:
    """Make a file of memory. Return its descriptor and a map of it.

    :raises OSError: when there is no descriptor, or no memory, for it.
    """
    descriptor = os.memfd_create("sio-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        return descriptor, mmap.mmap(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise


def map_memory(descriptor: int) -> mmap.mmap:
    """Map a file that another process writes, for reading; the descriptor may be closed then.

    :raises ValueError: when it is not such a file.
    """
    try:
        if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
            raise ValueError("journal: a segment that may be cut short")
        size = os.fstat(descriptor).st_size
        if size < HEAD.size:
            raise ValueError(f"journal: a segment of {size} bytes")
        return mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
    except OSError as error:
        raise ValueError(f"journal: a segment that cannot be read: {error}") from None
