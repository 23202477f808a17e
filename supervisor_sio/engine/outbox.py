"""The pending packets of a polling client."""

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
    """Packets in the order sent. A session has an outbox only while packets are pending."""

    __slots__ = ("packets", "size", "taken_at")

    def __init__(self, now: float) -> None:
        self.packets: list[Packet] = []
        #: Their total cost in bytes, see :func:`.packets.cost`.
        self.size = 0
        #: When a poll last took packets; at first, when the outbox was created.
        self.taken_at = now

    def add(self, packet: Packet) -> None:
        """Append a packet."""
        self.packets.append(packet)
        self.size += cost(packet)

    def put_back(self, packets: list[Packet]) -> None:
        """Insert packets, which were taken before, at the front."""
        self.packets[:0] = packets
        self.size += sum(map(cost, packets))

    def is_long(self) -> bool:
        """Whether the client has to fetch packets before its next POSTed packets are handled."""
        return self.size > READING_STOPS

    def is_too_long(self, now: float) -> bool:
        """Whether to cut the client off: too much is pending, or has been for too long."""
        return self.size > SLOW_OUTPUT and (
            self.size > OUTPUT_CEILING or now - self.taken_at > SLOW_OUTPUT_PATIENCE
        )

    def take(self, packets: list[Packet], now: float) -> bool:
        """Move packets from here to a response's packets.

        A response has at most ``POLL_PACKETS`` packets, and about ``POLL_BYTES``.

        :return: whether the outbox is empty now.
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
