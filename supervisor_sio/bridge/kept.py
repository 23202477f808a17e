"""What a bridge has sent to the others, by number, for those who ask for it again.

Pure: no sockets and no clocks here.
"""

from __future__ import annotations

from typing import NamedTuple

from ..common.limits import BRIDGE_BATCH, BRIDGE_KEPT, BRIDGE_KEPT_BYTES


class Again(NamedTuple):
    """An answer to whoever missed messages."""

    #: Number of the first one here; those before are not kept any more.
    first: int
    messages: list[bytes]


class Kept:
    def __init__(self) -> None:
        #: By number, the oldest first; there may be holes.
        self._messages: dict[int, bytes] = {}
        self._bytes = 0

    def add(self, number: int, data: bytes) -> None:
        """:param number: higher than all before."""
        self._messages[number] = data
        self._bytes += len(data)
        while len(self._messages) > BRIDGE_KEPT or self._bytes > BRIDGE_KEPT_BYTES:
            self._bytes -= len(self._messages.pop(next(iter(self._messages))))

    def again(self, first: int, last: int) -> Again:
        """A batch of those from ``first`` on, up to the next hole or to ``last``."""
        oldest = next(iter(self._messages), last + 1)
        number = max(first, min(oldest, last + 1))
        while number <= last and number not in self._messages:
            number += 1
        first, size = number, 0
        messages: list[bytes] = []
        while number <= last and number in self._messages:
            size += len(self._messages[number])
            if messages and size > BRIDGE_BATCH:
                break
            messages.append(self._messages[number])
            number += 1
        return Again(first, messages)
