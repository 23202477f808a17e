"""An index of a journal's segment: which events are for which rooms.

When a worker has died, thousands of clients come back, and each has missed a few of all events. So
a segment is read once for all of them. The index has eight bytes for each room of an event.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import Any, Collection, Iterator, NamedTuple, Optional, Sequence, Tuple, Union

from . import native
from .journal_format import KIND, Event, Kind, read_event

#: A namespace and a room in it; ``None`` is everybody in the namespace.
Room = Tuple[str, Any]

_EVENT = int(Kind.EVENT)

#: Events that are read without a pause: a millisecond or two.
_AT_ONCE = 512

#: Up to so many of the last events may be left out of the index: they count as found.
_FEW = 16


class Index:
    """The index of one segment. Safe to use from several threads."""

    __slots__ = ("_lock", "_rows")

    def __init__(self) -> None:
        self._lock = native.lock()
        #: Sorted: the hash of a room in the high half, the position of an event in the low half.
        #: And the number of events that have been read.
        self._rows: tuple[array[int], int] = array("Q"), 0

    def find(
        self, memory: Any, at: Sequence[int], end: int, rooms: Collection[Room]
    ) -> Optional[list[int]]:
        """Find the positions of events for one of these rooms, in order; a few may be for others.

        :param at: the offsets of the events in the segment.
        :param end: the number of events to search.
        :return: ``None`` when it has only read some more events: call it again.
        :raises ValueError: when there are no events at these offsets.
        """
        rows, read = self._rows
        if end - read > _FEW:
            self._read(memory, at, end)
            return None
        found = set(range(read, end))
        for room in rooms:
            first = _hash(room) << 32
            low, high = bisect_left(rows, first), bisect_left(rows, first + min(read, end))
            found.update(row - first for row in rows[low:high])
        return sorted(found)

    def _read(self, memory: Any, at: Sequence[int], end: int) -> None:
        with self._lock:
            rows, read = self._rows
            until = min(read + _AT_ONCE, end)
            more = [
                _hash(room) << 32 | number
                for number in range(read, until)
                if memory[at[number] + KIND] == _EVENT  # not a gap
                for room in _rooms_of(read_event(memory, at[number], 0))
            ]
            self._rows = array("Q", sorted([*rows, *more])), max(read, until)


class Piece(NamedTuple):
    """A part of a segment's events."""

    memory: Any
    #: The offsets of the segment's events.
    at: Sequence[int]
    rows: Index
    #: The number of the first event.
    first: int
    #: The part: from position ``begin`` on, and before ``end``.
    begin: int
    end: int


def read_all(pieces: Sequence[Piece]) -> Iterator[Event]:
    """All events, in order.

    :raises ValueError: when there are no events at the offsets; also while it is read.
    """
    for memory, at, _, first, begin, end in pieces:
        for number in range(begin, end):
            yield read_event(memory, at[number], first + number)


def read_to(pieces: Sequence[Piece], rooms: Collection[Room]) -> Iterator[Union[Event, int]]:
    """The events for one of these rooms, in order; and a few that are for others.

    Numbers come in between: all events up to there have been read. So a caller with other work can
    stop there and go on later.

    :raises ValueError: see :func:`read_all`.
    """
    for memory, at, index, first, begin, end in pieces:
        while True:
            found = index.find(memory, at, end, rooms)
            if found is not None:
                break
            yield first + begin - 1
        for number in found:
            if number >= begin:
                yield read_event(memory, at[number], first + number)
        yield first + end - 1


def _rooms_of(event: Event) -> list[Room]:
    fields = event.message.fields
    room, namespace = fields.get("room"), str(fields.get("namespace"))
    return [(namespace, one) for one in (room if isinstance(room, list) else [room])]


def _hash(room: Room) -> int:
    try:
        return hash(room) & 0xFFFFFFFF
    except TypeError:
        raise ValueError(f"journal: an event to {room!r:.80}") from None
