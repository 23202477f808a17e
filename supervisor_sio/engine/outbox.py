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
    """Packets in the order in which they were sent. A session has one only while packets wait."""

    __slots__ = ("packets", "size", "taken_at")

    def __init__(self, now: float) -> None:
        self.packets: list[Packet] = []
        #: What they cost together, in bytes, see :func:`.packets.cost`.
        self.size = 0
        #: When a poll has last taken some, or this began.
        self.taken_at = now

    def add(self, packet: Packet) -> None:
        """Let a packet wait behind the others."""
        self.packets.append(packet)
        self.size += cost(packet)

    def put_back(self, packets: list[Packet]) -> None:
        """Let packets that were taken wait again, before the others."""
        self.packets[:0] = packets
        self.size += sum(map(cost, packets))

    def is_long(self) -> bool:
        """Whether the client has to take some of it before its next packets are handled."""
        return self.size > READING_STOPS

    def is_too_long(self, now: float) -> bool:
        """Whether the client is to be cut off, since it takes too little or too much waits."""
        return self.size > SLOW_OUTPUT and (
            self.size > OUTPUT_CEILING or now - self.taken_at > SLOW_OUTPUT_PATIENCE
        )

    def take(self, packets: list[Packet], now: float) -> bool:
        """Move packets from here to those of an answer.

        The answer has ``POLL_PACKETS`` at most, and about ``POLL_BYTES``.

        :return: whether none is left here.
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
