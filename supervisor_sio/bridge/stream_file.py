"""The files in memory for :mod:`.stream`: supervisord owns them, so they outlive the router.

A router may be killed at any moment, also in the middle of a write. So each record has its length
and a checksum before it, and is written at the end of its file, or beside the record that it
replaces.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import struct
from array import array
from bisect import bisect_right
from typing import Any, Callable, Iterator, NamedTuple
from zlib import crc32

from ..common import memory_file

#: The offsets of the two places for a state, and its greatest length. The kernel writes a page at
#: once, so the number, alone in the first page, needs no checksum.
_LONGEST = 4 * 1024 * 1024
_PLACES = (4096, 4096 + _LONGEST)
_NUMBER = struct.Struct("!Q")
#: length, checksum and generation of a state
_STATE = struct.Struct("!IIQ")

#: length and checksum of what follows: _ORIGIN, the name of the sender, and the message
_HEAD = struct.Struct("!II")
#: number; of the origin: number, time, whether alone, length of the name
_ORIGIN = struct.Struct("!QQdBB")


class Origin(NamedTuple):
    """The source of a message of this host."""

    #: The worker, or another emitter.
    sender: str
    #: Whether it was sent to the bridge alone, or to all; these have separate numbers.
    alone: bool
    number: int
    #: When it was sent, in seconds of the host's monotonic clock.
    time: float


class State:
    """A state that is replaced as a whole, and the number of the last message given to Redis."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._generation = 0

    def read_given(self) -> int:
        data = os.pread(self._descriptor, _NUMBER.size, 0)
        return int(_NUMBER.unpack(data)[0]) if len(data) == _NUMBER.size else 0

    def write_given(self, number: int) -> None:
        os.pwrite(self._descriptor, _NUMBER.pack(number), 0)

    def read(self) -> Any:
        """The last state that was written completely; ``None`` if there is none."""
        newest = None
        for place in _PLACES:
            head = os.pread(self._descriptor, _STATE.size, place)
            if len(head) == _STATE.size:
                length, checksum, generation = _STATE.unpack(head)
                data = os.pread(self._descriptor, min(length, _LONGEST), place + _STATE.size)
                if generation > self._generation and crc32(data) == checksum:
                    newest, self._generation = data, generation
        return None if newest is None else json.loads(newest)

    def write(self, value: Any) -> None:
        """:raises OSError: when there is no room or memory for it; the former state stays then."""
        data = json.dumps(value, separators=(",", ":")).encode()
        if _STATE.size + len(data) > _LONGEST:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        generation = self._generation + 1
        place = _PLACES[generation % len(_PLACES)]
        head = _STATE.pack(len(data), crc32(data), generation)
        memory_file.write_at(self._descriptor, head + data, place)
        self._generation = generation


class Messages:
    """A file of messages with rising numbers; messages are appended, or the file is emptied.

    :param note: gets the origin of each message that is in the file already.
    """

    def __init__(self, descriptor: int, note: Callable[[Origin], object]) -> None:
        self._descriptor = descriptor
        #: The number, offset and size of each message.
        self.numbers = array("Q")
        self._begins = array("Q")
        self._sizes = array("L")
        self._end = 0
        #: The size of all messages.
        self.bytes = 0
        for origin, number, begin, size in self._records():
            self._index(number, begin, size)
            note(origin)
        os.ftruncate(descriptor, self._end)  # drops a message that was not written completely

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def last(self) -> int:
        return self.numbers[-1] if self.numbers else 0

    def add(self, number: int, origin: Origin, data: bytes) -> None:
        """:raises OSError: when there is no memory for it; nothing has changed then."""
        name = origin.sender.encode()
        head = _ORIGIN.pack(number, origin.number, origin.time, origin.alone, len(name))
        body = head + name + data
        record = _HEAD.pack(len(body), crc32(body)) + body
        try:
            memory_file.write_at(self._descriptor, record, self._end)
        except OSError:
            os.ftruncate(self._descriptor, self._end)
            raise
        self._index(number, self._end + len(record) - len(data), len(data))

    def clear(self) -> None:
        os.ftruncate(self._descriptor, 0)
        for numbers in (self.numbers, self._begins, self._sizes):
            del numbers[:]
        self._end = self.bytes = 0

    def index_after(self, number: int) -> int:
        """The number of messages up to this number."""
        return bisect_right(self.numbers, number)

    def bytes_after(self, number: int) -> int:
        return sum(self._sizes[self.index_after(number) :])

    def read(self, at: int, most: int, most_bytes: int, in_a_row: bool = False) -> list[bytes]:
        """Read messages from an index on, at least one.

        :param in_a_row: whether to end before the first missing number.
        """
        end, size = at, 0
        while end < min(len(self), at + most):
            size += self._sizes[end]
            if end > at and (size > most_bytes or in_a_row and self._is_after_hole(end)):
                break
            end += 1
        start = self._begins[at]
        data = os.pread(
            self._descriptor, self._begins[end - 1] + self._sizes[end - 1] - start, start
        )
        return [
            data[begin - start : begin - start + length]
            for begin, length in zip(self._begins[at:end], self._sizes[at:end])
        ]

    def _is_after_hole(self, at: int) -> bool:
        return self.numbers[at] != self.numbers[at - 1] + 1

    def _index(self, number: int, begin: int, size: int) -> None:
        self.numbers.append(number)
        self._begins.append(begin)
        self._sizes.append(size)
        self._end = begin + size
        self.bytes += size

    def _records(self) -> Iterator[tuple[Origin, int, int, int]]:
        """Origin, number, offset and size of each complete message."""
        size = os.fstat(self._descriptor).st_size
        if not size:
            return
        with mmap.mmap(self._descriptor, size, prot=mmap.PROT_READ) as data:
            at = 0
            while at + _HEAD.size + _ORIGIN.size <= size:
                length, checksum = _HEAD.unpack_from(data, at)
                end = at + _HEAD.size + length
                if length < _ORIGIN.size or end > size:
                    return
                body = data[at + _HEAD.size : end]
                if crc32(body) != checksum:
                    return
                number, sequence, time, alone, name = _ORIGIN.unpack_from(body)
                begin = _ORIGIN.size + name
                origin = Origin(body[_ORIGIN.size : begin].decode(), bool(alone), sequence, time)
                yield origin, number, at + _HEAD.size + begin, length - begin
                at = end
