"""Gives the router a descriptor of each segment of this worker's journals.

See :mod:`supervisor_sio.common.recovery`. This includes the segments that this worker inherited:
if it dies, its heir inherits them with its own.
"""

from __future__ import annotations

import time
from typing import Protocol, Sequence

from ..common import channel, recovery
from ..common.channel import Message
from ..common.recovery import Segment, Source


class Router(Protocol):
    """Sends messages to the router."""

    def post(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message as soon as the router takes it; without a router, drop it.

        The descriptors stay open.
        """

    def withdraw(self, descriptors: Sequence[int]) -> None:
        """Drop the message with these descriptors, unless it has been sent."""


class Journals:
    """The segments of all managers of this worker. Call all methods in the loop."""

    def __init__(self, router: Router) -> None:
        self._router = router
        #: By journal, log and number; the list owns the segment's descriptor.
        self._segments: dict[tuple[Source, str, int], tuple[Segment, list[int]]] = {}

    def add(self, segment: Segment, descriptor: int) -> None:
        """A segment was started or inherited.

        :param descriptor: of its memory; this object closes it.
        """
        kept = self._segments[segment.source, segment.log, segment.number] = segment, [descriptor]
        self._router.post(recovery.segment(segment), kept[1])

    def drop(self, source: Source, log: str, number: int) -> None:
        """A segment is no longer needed."""
        kept = self._segments.pop((source, log, number), None)
        if kept is not None:
            self._release(kept[1])
            self._router.post(recovery.dropped(source, log, number))

    def tell(self) -> None:
        """Send all segments: a new router knows none of them, or the router has dropped some."""
        self.drop_old(time.monotonic())
        for segment, descriptors in self._segments.values():
            self._router.post(recovery.segment(segment), descriptors)

    def drop_old(self, now: float) -> None:
        """Drop the segments of workers that died too long ago for their clients to recover.

        :param now: the time of :func:`time.monotonic`.
        """
        for key, (segment, _) in list(self._segments.items()):
            if segment.died is not None and segment.died + segment.recovery < now:
                self.drop(*key)

    def close(self) -> None:
        """Close all descriptors, at the end of the worker or in a forked child."""
        while self._segments:
            self._release(self._segments.popitem()[1][1])

    def _release(self, descriptors: list[int]) -> None:
        self._router.withdraw(descriptors)
        channel.close_all(descriptors)
