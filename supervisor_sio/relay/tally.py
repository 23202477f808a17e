"""How much a worker has sent, in memory that outlives it.

A killed worker's outbox is gone, and so are messages that ZeroMQ had not sent yet. How many those
were can still be known: the worker counts them in a piece of memory that the router process has
open, too (memfd_create(2)).
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import NamedTuple, Optional

from ..common.limits import RELAY_MOST_STREAMS

#: When the sender sent its first message.
_BEGAN = struct.Struct("=d")
#: The number of its last message to all.
_NUMBER = struct.Struct("=Q")
_HEAD = struct.Struct("=dQ")
#: A worker, and the number of the last message to it alone.
_ROW = struct.Struct("=64sQ")
_SIZE = _HEAD.size + RELAY_MOST_STREAMS * _ROW.size


class Sent(NamedTuple):
    """How much a sender has sent in all; see :mod:`.outbox`."""

    #: When the first message was sent, in seconds of the host's monotonic clock; 0 before.
    began: float
    to_all: int
    to_one: dict[str, int]


class Tally:
    """The counting side. Each process with a descriptor of the memory keeps it alive."""

    def __init__(self) -> None:
        #: The offset of each worker's row.
        self._rows: dict[str, int] = {}
        self.descriptor = os.memfd_create("sio-tally", os.MFD_CLOEXEC)
        os.ftruncate(self.descriptor, _SIZE)
        self._memory = mmap.mmap(self.descriptor, _SIZE)
        self._begun = False

    def note(self, tag: Optional[str], number: int, now: float) -> None:
        """Note the number of the last message to a worker, or to all for ``None``.

        :param now: seconds of the host's monotonic clock.
        """
        if not self._begun:
            self._begun = True
            _BEGAN.pack_into(self._memory, 0, now)
        if tag is None:
            _NUMBER.pack_into(self._memory, _BEGAN.size, number)
            return
        row = self._rows.pop(tag, None)
        if row is None:
            if len(self._rows) < RELAY_MOST_STREAMS:
                row = _HEAD.size + len(self._rows) * _ROW.size
            else:  # reuse the row of the worker that was sent to least recently
                row = self._rows.pop(next(iter(self._rows)))
        self._rows[tag] = row
        _ROW.pack_into(self._memory, row, tag.encode()[:64], number)

    def close(self) -> None:
        self._memory.close()
        os.close(self.descriptor)


def read(descriptor: int) -> Optional[Sent]:
    """Read a tally: how much its sender has sent; ``None`` when it is not a tally."""
    try:
        data = os.pread(descriptor, _SIZE, 0)
    except OSError:
        return None
    if len(data) != _SIZE:
        return None
    began, to_all = _HEAD.unpack_from(data)
    to_one = {}
    for offset in range(_HEAD.size, _SIZE, _ROW.size):
        tag, number = _ROW.unpack_from(data, offset)
        if not number:
            break
        to_one[tag.rstrip(b"\0").decode("ascii", "replace")] = number
    return Sent(began, to_all, to_one)
