"""Counting what the relay lost, from the numbers the senders give.

ZeroMQ's PUB drops silently at its high-water mark and while a relay restarts;
the next message of the same sender under the same topic tells how many went.
"""

from __future__ import annotations

from collections import OrderedDict

#: Senders remembered; a process that emits once and ends leaves an entry.
_MOST_SENDERS = 10_000


class GapCounter:
    """Numbers missed, over all senders and topics."""

    def __init__(self) -> None:
        self.missed = 0
        self._last: OrderedDict[tuple[str, bytes], int] = OrderedDict()

    def observe(self, sender: str, topic: bytes, sequence: int) -> int:
        """How many messages are missing right before this one.

        The first message of a sender sets the start: what came before a
        subscriber joined was not meant for it.
        """
        key = (sender, topic)
        last = self._last.get(key)
        self._last[key] = sequence
        self._last.move_to_end(key)
        if len(self._last) > _MOST_SENDERS:
            self._last.popitem(last=False)
        if last is None or sequence <= last:
            return 0
        gap = sequence - last - 1
        self.missed += gap
        return gap
