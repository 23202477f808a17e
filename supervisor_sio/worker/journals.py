"""What the router has of this worker's journals: a descriptor of each segment.

See :mod:`supervisor_sio.common.recovery`. Of those that this worker has inherited it has the
descriptors only for this: another one inherits them with its own.
"""

from __future__ import annotations

import time
from typing import Protocol, Sequence

from ..common import channel, recovery
from ..common.channel import Message
from ..common.recovery import Segment, Source


class Router(Protocol):
    """What sends to the router."""

    def post(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send, if there is a router, as soon as it takes it; the descriptors stay open."""

    def withdraw(self, descriptors: Sequence[int]) -> None:
        """Forget the message with these, if it has not been sent yet."""


class Journals:
    """Of all managers of this worker; all in the loop."""

    def __init__(self, router: Router) -> None:
        self._router = router
        #: By journal, log and number; the descriptor is ours.
        self._segments: dict[tuple[Source, str, int], tuple[Segment, list[int]]] = {}

    def add(self, segment: Segment, descriptor: int) -> None:
        """A segment was begun, or inherited.

        :param descriptor: of its memory, which is closed here.
        """
        kept = self._segments[segment.source, segment.log, segment.number] = segment, [descriptor]
        self._router.post(recovery.segment(segment), kept[1])

    def drop(self, source: Source, log: str, number: int) -> None:
        """Nothing in a segment is needed any more."""
        kept = self._segments.pop((source, log, number), None)
        if kept is not None:
            self._release(kept[1])
            self._router.post(recovery.dropped(source, log, number))

    def tell(self) -> None:
        """A router has come that knows none of them, or has let go of some."""
        self.drop_old(time.monotonic())
        for segment, descriptors in self._segments.values():
            self._router.post(recovery.segment(segment), descriptors)

    def drop_old(self, now: float) -> None:
        """Clients of a worker that is dead for so long come back to none any more.

        :param now: as :func:`time.monotonic` has it.
        """
        for key, (segment, _) in list(self._segments.items()):
            if segment.died is not None and segment.died + segment.recovery < now:
                self.drop(*key)

    def close(self) -> None:
        """This worker ends, or this is a child of it."""
        while self._segments:
            self._release(self._segments.popitem()[1][1])

    def _release(self, descriptors: list[int]) -> None:
        self._router.withdraw(descriptors)
        channel.close_all(descriptors)
