"""What waits for a client that polls."""

from __future__ import annotations

from ..common.limits import (
    OUTPUT_CEILING,
    POLL_BYTES,
    POLL_PACKETS,
    READING_STOPS,
    SLOW_OUTPUT,
    SLOW_OUTPUT_PATIENCE,
)
from .packets import cost
from .payload import Packet


class Outbox:
    """Packets in the order in which they were sent; there is none while none waits."""

    __slots__ = ("packets", "size", "taken_at")

    def __init__(self, now: float) -> None:
        self.packets: list[Packet] = []
        #: What they are counted for, in bytes.
        self.size = 0
        #: When a poll has last taken some, or this began.
        self.taken_at = now

    def add(self, packet: Packet) -> None:
        self.packets.append(packet)
        self.size += cost(packet)

    def is_long(self) -> bool:
        """Whether a client has to take some of it before it may ask for more."""
        return self.size > READING_STOPS

    def is_too_long(self, now: float) -> bool:
        """Whether the client takes too little of it, or will never take all."""
        return self.size > SLOW_OUTPUT and (
            self.size > OUTPUT_CEILING or now - self.taken_at > SLOW_OUTPUT_PATIENCE
        )

    def take(self, packets: list[Packet], now: float) -> bool:
        """Add to the packets of an answer: no more than a client takes, or is good in one piece.

        :return: whether that is all.
        """
        waiting = self.packets
        if len(packets) + len(waiting) <= POLL_PACKETS and self.size <= POLL_BYTES:
            packets += waiting
            return True
        size = count = 0
        for packet in waiting[: POLL_PACKETS - len(packets)]:
            packets.append(packet)
            size += cost(packet)
            count += 1
            if size >= POLL_BYTES:
                break
        del waiting[:count]
        self.size -= size
        self.taken_at = now
        return not waiting
