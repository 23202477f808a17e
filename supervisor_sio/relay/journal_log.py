"""A log of a journal, as its process writes it: see :mod:`.journal_format`."""

from __future__ import annotations

import mmap
import os
from collections import deque
from typing import Callable, Deque, Optional

from .journal_format import (
    CODES,
    COMMIT,
    HEAD,
    MARK,
    NEXT,
    PREVIOUS,
    VERSION,
    Log,
    aligned,
    make_memory,
)

_PAGE = mmap.PAGESIZE


class Segment:
    """A segment of the log.

    :param number: from 1 on, in its log.
    :raises OSError: when there is no memory for it, or no descriptor.
    """

    def __init__(self, number: int, size: int) -> None:
        self.number = number
        self.size = -(-size // _PAGE) * _PAGE
        self.descriptor, self.memory = make_memory(self.size)
        #: The memory as numbers: they are written at each event, and struct takes twice as long.
        self._numbers = memoryview(self.memory).cast("Q")
        #: The offset of the next record.
        self.used = 0
        #: Number of records that have not been replaced, in a log that counts them.
        self.live = 0

    def write(self, data: bytes) -> int:
        """Append a record, for which there must be room. Return its offset."""
        at = self.used
        end = at + len(data)
        self.memory[at:end] = data
        self.used = self._numbers[COMMIT // 8] = (end + 7) & -8
        return at

    def set_number(self, at: int, number: int) -> None:
        """Change a number of eight bytes in place."""
        self._numbers[at // 8] = number

    def has_room(self, size: int) -> bool:
        return self.used + size <= self.size

    def close(self) -> None:
        # A reader may still have it mapped: the memory is freed after the last one.
        os.close(self.descriptor)


class SegmentedLog:
    """A chain of segments, of which the last is written to.

    :param on_segment: gets each segment's number and descriptor before it is used, so that other
        processes have it in time; the descriptor stays the log's.
    :param on_dropped: gets the number of a segment that is not needed any more.
    """

    def __init__(
        self,
        log: Log,
        tag: str,
        size: int,
        on_segment: Callable[[str, int, int], None],
        on_dropped: Callable[[str, int], None],
    ) -> None:
        self.log = log
        self._tag = tag.encode()
        self._size = size
        self._on_segment = on_segment
        self._on_dropped = on_dropped
        self._numbers = 0
        #: The oldest first. Only the last one is written to.
        self.segments: Deque[Segment] = deque()
        #: The same by their numbers.
        self.by_number: dict[int, Segment] = {}
        #: The next segment, if it is prepared.
        self.spare: Optional[Segment] = None
        #: Bytes in all segments but the last.
        self.before = 0

    @property
    def last(self) -> Segment:
        """The segment that is written to."""
        return self.segments[-1]

    @property
    def kept(self) -> int:
        """Bytes in use."""
        return self.before + (self.segments[-1].used if self.segments else 0)

    def begin(
        self,
        need: int,
        now: float,
        first: int = 0,
        gap: tuple[int, float] = (0, 0.0),
        since: float = 0.0,
        table: bytes = b"",
    ) -> Segment:
        """Begin a new segment; see :class:`.journal_format.Head`.

        :param table: its first records.
        :param need: bytes of the record that must fit behind them.
        :raises OSError: when there is no memory for it, or no descriptor; nothing has changed.
        """
        size = max(self._size, HEAD.size + len(table) + max(aligned(need), self._size // 2))
        segment = self.spare
        if segment is None or segment.size < size:
            self._drop_spare()
            segment = self._make(size)
        self.spare = None
        last = self.segments[-1] if self.segments else None
        previous = 0 if last is None else last.number
        begin = HEAD.size + len(table)
        segment.memory[HEAD.size : begin] = table
        segment.used = begin
        code = CODES[self.log]
        numbers = segment.number, previous, 0, 0, first
        head = MARK, VERSION, code, *numbers, *gap, since, now, self._tag
        segment.memory[: HEAD.size] = HEAD.pack(*head)
        segment.set_number(COMMIT, begin)
        if last is not None:
            last.set_number(NEXT, segment.number)
            self.before += last.used
        self.segments.append(segment)
        self.by_number[segment.number] = segment
        return segment

    def prepare(self) -> None:
        """Give the next segment to others before it is needed, if that will be soon."""
        last = self.segments[-1]
        if self.spare is None and last.used > last.size // 2:
            try:
                self.spare = self._make(self._size)
            except OSError:
                pass  # tried again, and reported, when the segment is needed

    def drop(self, segment: Segment) -> None:
        """Drop a segment that is not the last."""
        at = self.segments.index(segment)
        previous = self.segments[at - 1].number if at else 0
        following = self.segments[at + 1]
        following.set_number(PREVIOUS, previous)
        if at:
            self.segments[at - 1].set_number(NEXT, following.number)
        del self.segments[at], self.by_number[segment.number]
        self.before -= segment.used
        segment.close()
        self._on_dropped(self.log.value, segment.number)

    def each(self) -> list[tuple[int, int]]:
        """Numbers and descriptors of all segments."""
        spare = [] if self.spare is None else [self.spare]
        return [(one.number, one.descriptor) for one in (*self.segments, *spare)]

    def close(self) -> None:
        for segment in self.segments:
            segment.close()
        self.segments.clear()
        self.by_number.clear()
        if self.spare is not None:
            self.spare.close()
            self.spare = None
        self.before = 0

    def _make(self, size: int) -> Segment:
        segment = Segment(self._numbers + 1, size)
        self._numbers += 1
        code = CODES[self.log]
        head = MARK, VERSION, code, segment.number, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, self._tag
        segment.memory[: HEAD.size] = HEAD.pack(*head)
        try:
            self._on_segment(self.log.value, segment.number, segment.descriptor)
        except BaseException:  # the callback has no descriptor for it
            segment.close()
            raise
        return segment

    def _drop_spare(self) -> None:
        spare, self.spare = self.spare, None
        if spare is not None:
            spare.close()
            self._on_dropped(self.log.value, spare.number)
