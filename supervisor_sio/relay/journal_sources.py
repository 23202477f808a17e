"""The last numbers that a process has received from each sender, in memory that outlives it.

The records are in the segment to which the journal's events are written: see
:mod:`.journal_format`.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from typing import Iterable, Iterator, Optional

from ..common.limits import BRIDGE_MOST_OTHERS, RELAY_MOST_GONE, RELAY_MOST_SENDERS
from .journal_format import (
    BRIDGE,
    GUESTS,
    PART,
    SOURCE,
    TO_ALL,
    TO_ONE,
    Kind,
)
from .position import Part

#: A number, and the offset at which it is written.
Slot = list[int]


class Sources:
    """The sources of a process's own clients, or of adopted sessions.

    :param part: 0 for own clients, another number for adopted sessions.
    :param tags: of these sessions.
    :param due: how many messages have yet to be given to them: those that other processes have
        kept, and one for all of this process's own.
    """

    def __init__(
        self, part: int = 0, tags: Iterable[str] = (), since: float = 0.0, due: int = 0
    ) -> None:
        self.part = part
        self.tags = frozenset(tags)
        self.since = since
        #: Whether they get this process's messages directly, like its own clients.
        self.direct = False
        #: How many messages are due, and the offset.
        self.due: Slot = [due, 0]
        #: By sender and tag, ``None`` for the stream to all.
        self.senders: OrderedDict[str, dict[Optional[str], Slot]] = OrderedDict()
        #: The same for senders that have ended.
        self.gone: OrderedDict[str, dict[Optional[str], Slot]] = OrderedDict()
        #: When each sender was received first, in seconds of the host's monotonic clock; not for
        #: senders that another process had received before.
        self.first: dict[str, float] = {}
        #: The last number from each bridge to other hosts.
        self.bridges: OrderedDict[str, Slot] = OrderedDict()
        #: Tags of other workers some of whose clients are guests here.
        self.guests: dict[str, Slot] = {}

    @classmethod
    def adopted(cls, part: int, saved: Part) -> Sources:
        """The sources of sessions that another process has passed on."""
        sources = cls(part, saved.tags, saved.since, len(saved.kept) + 1)
        for name, (placed, next, _, own, gone) in saved.senders.items():
            if placed:
                streams: dict[Optional[str], Slot] = {None: [next - 1, 0]}
                streams.update((tag, [numbers[0] - 1, 0]) for tag, numbers in own.items())
                (sources.gone if gone else sources.senders)[name] = streams
        sources.bridges.update((name, [last, 0]) for name, last in saved.passed.items())
        sources.guests.update((tag, [0, 0]) for tag in saved.guest_tags)
        return sources

    def hears(self, tag: Optional[str]) -> bool:
        """For adopted sessions: whether messages to this tag, or to all, are for them."""
        return tag is None or tag in self.tags or tag in self.guests

    def merge(self, other: Sources) -> None:
        """Merge the sources of sessions that have reached the same position."""
        for ours, theirs in ((self.gone, other.gone), (self.senders, other.senders)):
            for name, streams in theirs.items():
                known = ours.setdefault(name, {None: [0, 0]})
                _add(known, streams)
        # If one of the two knows that a sender has ended, it is not waited for any more.
        for name in self.gone.keys() & self.senders.keys():
            _add(self.gone[name], self.senders.pop(name))
        self._make_room()  # an heir refuses a position with more
        for name, slot in other.bridges.items():
            self.bridges[name] = [max(slot[0], self.bridges.get(name, slot)[0]), 0]
        self.guests.update((tag, [0, 0]) for tag in other.guests)
        for tag in other.tags:
            self.guests.pop(tag, None)

    def begin(self, sender: str) -> tuple[dict[Optional[str], Slot], list[Slot]]:
        """Add a sender that is new, or had ended. Return its streams, and the slots of the senders
        that are forgotten to make room for it."""
        if not self.gone.get(sender):
            self.first[sender] = time.monotonic()
        streams = self.senders[sender] = self.gone.pop(sender, {})
        return streams, self._make_room()

    def end(self, sender: str) -> tuple[list[Slot], list[Slot]]:
        """A sender has ended, also one of which nothing was received: nothing more comes. Return
        the slots of its numbers, and of the senders that are forgotten to make room for it."""
        if sender in self.gone:
            return [], []
        streams = self.gone[sender] = self.senders.pop(sender, {})
        return list(streams.values()), self._make_room()

    def _make_room(self) -> list[Slot]:
        """Forget the senders that are known, or have ended, for longest. Return their slots."""
        slots: list[Slot] = []
        for senders, most in ((self.senders, RELAY_MOST_SENDERS), (self.gone, RELAY_MOST_GONE)):
            while len(senders) > most:
                name, streams = senders.popitem(last=False)
                self.first.pop(name, None)
                slots += streams.values()
        return slots

    def make_room_for_bridge(self) -> None:
        while len(self.bridges) >= BRIDGE_MOST_OTHERS:
            self.bridges.popitem(last=False)

    def forget(self, tag: str) -> list[Slot]:
        """Forget a tag without clients. Return the slots of its numbers."""
        self.tags -= {tag}
        slots = [self.guests.pop(tag, None)]
        slots += [one.pop(tag, None) for one in (*self.senders.values(), *self.gone.values())]
        return [slot for slot in slots if slot is not None]

    @property
    def numbers(self) -> dict[str, int]:
        """By sender, of the last message to all."""
        return {
            name: streams[None][0]
            for senders in (self.gone, self.senders)
            for name, streams in senders.items()
            if None in streams
        }

    def numbers_to(self, tag: str) -> dict[str, int]:
        """By sender, of the last message to this tag alone."""
        return {
            name: streams[tag][0]
            for senders in (self.gone, self.senders)
            for name, streams in senders.items()
            if tag in streams
        }

    # --- in memory ---------------------------------------------------------------

    def rows(self) -> Iterator[tuple[Slot, bytes]]:
        """The records of all sources, each with the slot for its offset."""
        if self.part:
            tags = json.dumps(sorted(self.tags), separators=(",", ":")).encode()
            size = PART.size + len(tags)
            head = PART.pack(size, Kind.PART, self.part, self.due[0], self.since)
            yield self.due, head + tags + bytes(-size % 8)
        for kind, senders in ((Kind.GONE, self.gone), (Kind.SOURCE, self.senders)):
            for name, streams in senders.items():
                for tag, slot in streams.items():
                    code = TO_ALL if tag is None else TO_ONE
                    yield slot, self.record(code, slot[0], name, tag or "", kind)
        for code, slots in ((BRIDGE, self.bridges), (GUESTS, self.guests)):
            for name, slot in slots.items():
                yield slot, self.record(code, slot[0], name)

    def record(
        self, code: int, number: int, name: str, tag: str = "", kind: Kind = Kind.SOURCE
    ) -> bytes:
        sender, rest = name.encode(), tag.encode()
        size = SOURCE.size + len(sender) + len(rest)
        head = SOURCE.pack(size, kind, code, self.part, number, len(sender))
        return head + sender + rest + bytes(-size % 8)


def _add(streams: dict[Optional[str], Slot], more: dict[Optional[str], Slot]) -> None:
    """Merge the streams of one sender: the higher number of each counts."""
    for tag, slot in more.items():
        streams[tag] = [max(slot[0], streams.get(tag, slot)[0]), 0]
