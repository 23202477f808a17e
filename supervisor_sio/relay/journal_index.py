"""Which events of a piece of a journal are to which rooms.

Thousands of clients come back when their worker has died, and each has missed a few of all events.
So a piece is read once for all of them. Of an event eight bytes for each of its rooms are kept.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import Any, Collection, Iterator, NamedTuple, Optional, Sequence, Tuple, Union

from . import native
from .journal_format import KIND, Event, Kind, read_event

#: A namespace, and a room in it; ``None`` is everybody there.
Room = Tuple[str, Any]

_EVENT = int(Kind.EVENT)

#: Events that are read in one go: a millisecond or two.
_AT_ONCE = 512

#: The last ones need not be in it, if they are no more than these: who looks reads them.
_FEW = 16


class Index:
    """Of one piece. Safe to use from several threads."""

    __slots__ = ("_lock", "_rows")

    def __init__(self) -> None:
        self._lock = native.lock()
        #: In order: a hash of a room, and below it which event of the piece is to it. And how many
        #: events have been read.
        self._rows: tuple[array[int], int] = array("Q"), 0

    def find(
        self, memory: Any, at: Sequence[int], end: int, rooms: Collection[Room]
    ) -> Optional[list[int]]:
        """Which of the first events are to one of these rooms, in order; a few are to others.

        :param at: where the events of the piece are.
        :param end: how many of them.
        :return: ``None`` when some more have been read, and it is to be called again.
        :raises ValueError: when what is there are no events.
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
                if memory[at[number] + KIND] == _EVENT  # and no gap
                for room in _rooms_of(read_event(memory, at[number], 0))
            ]
            self._rows = array("Q", sorted([*rows, *more])), max(read, until)


class Piece(NamedTuple):
    """Some of the events of one."""

    memory: Any
    #: Where its events are.
    at: Sequence[int]
    rows: Index
    #: The number of the first event.
    first: int
    #: Which of them: from ``begin`` on, and before ``end``.
    begin: int
    end: int


def read_all(pieces: Sequence[Piece]) -> Iterator[Event]:
    """All of them, in order.

    :raises ValueError: when what is there are no events; also while it is read.
    """
    for memory, at, _, first, begin, end in pieces:
        for number in range(begin, end):
            yield read_event(memory, at[number], first + number)


def read_to(pieces: Sequence[Piece], rooms: Collection[Room]) -> Iterator[Union[Event, int]]:
    """The events that are to one of these rooms, in order; and a few that are to others.

    Between them come numbers: all up to there have been read. So whoever has other things to do
    as well may go on from there later.

    :raises ValueError: as :func:`read_all`.
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
