"""The journals of living workers, which are inherited when a worker dies. See
:mod:`supervisor_sio.common.recovery`.

A worker has its own journals, and inherited ones. The router keeps every segment open, and reads
none. An incomplete journal is useless, so if the router cannot keep a segment, it drops the whole
journal; if it had no free descriptor, it asks the worker for the journal again after a while.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Callable, Iterable, Iterator, Optional, Protocol

from ..common import channel, reasons, recovery
from ..common.channel import ChannelError, Message
from ..common.limits import JOURNAL_AGAIN, JOURNAL_SEGMENTS, JOURNALS, MAX_DESCRIPTORS
from ..common.recovery import Part, Segment, Source
from ..common.refusals import Refusals
from .carrier import Carrier
from .pool import Member


@dataclass(eq=False)
class Journal:
    source: Source
    format: int
    #: Seconds that its clients have to come back.
    recovery: float
    #: When the worker that wrote it died, by the host's monotonic clock; ``None`` while it lives.
    died: Optional[float]
    #: The descriptors of the segments, by log and number.
    logs: dict[str, dict[int, int]] = field(default_factory=dict)

    @property
    def descriptors(self) -> list[int]:
        return [one for segments in self.logs.values() for one in segments.values()]

    def close(self) -> None:
        channel.close_all(self.descriptors)

    def take_from(self, other: Journal) -> list[int]:
        """Add the segments that only another copy of this journal has.

        :return: descriptors of the other copy that are not needed; this journal has the others now.
        """
        both = []
        for log, segments in other.logs.items():
            own = self.logs.setdefault(log, {})
            for number, descriptor in segments.items():
                if own.setdefault(number, descriptor) != descriptor:
                    both.append(descriptor)
        return both

    def parts(self) -> Iterator[tuple[Part, list[int]]]:
        """Split the journal into parts, each with as many descriptors as a message can have."""
        died = self.died or 0.0  # 0 only on the shelf, for a living worker
        for log, segments in self.logs.items():
            numbers = sorted(segments)
            for at in range(0, len(numbers), MAX_DESCRIPTORS):
                some = numbers[at : at + MAX_DESCRIPTORS]
                part = Part(self.source, log, some, self.format, self.recovery, died)
                yield part, [segments[number] for number in some]


@dataclass
class _Worker:
    """A connected worker."""

    member: Member
    journals: dict[Source, Journal] = field(default_factory=dict)
    #: Journals that were dropped.
    refused: set[Source] = field(default_factory=set)
    #: Their numbers on the shelf, and those that have changed since they were put there.
    kept: dict[Source, int] = field(default_factory=dict)
    changed: set[Source] = field(default_factory=set)
    #: When the worker is asked for all journals again (0 for never), and its channel.
    again: float = 0.0
    carrier: Optional[Carrier] = None


class Shelf(Protocol):
    """See :class:`.held_shelf.HeldShelf`."""

    def keep_journal(self, member: Member, journal: Journal) -> tuple[int, bool]: ...

    def forget(self, *owners: int) -> None: ...


class Journals:
    """:param shelf: keeps the journals for the next router; ``None`` without one.
    :param has_room: whether the router can keep these descriptors as well.
    :param now: seconds of the host's monotonic clock.
    """

    def __init__(
        self,
        shelf: Optional[Shelf],
        has_room: Callable[[list[int]], bool],
        refusals: Refusals,
        now: Callable[[], float],
    ) -> None:
        self._shelf = shelf
        self._has_room = has_room
        self._refusals = refusals
        self._now = now
        #: By their tags.
        self._workers: dict[str, _Worker] = {}
        #: The number of descriptors of all journals.
        self.descriptors = 0
        #: Descriptors of dropped segments that are still on the shelf.
        self._dropped: list[int] = []
        #: When journals for which the shelf had no room are tried again.
        self._keep_again = math.inf

    def of(self, tag: str) -> list[Journal]:
        """The journals of the worker with this tag."""
        worker = self._workers.get(tag)
        return list(worker.journals.values()) if worker is not None else []

    def channels(self, tag: str) -> list[str]:
        """The channels of the relay for which that worker writes a journal."""
        own = (journal.source for journal in self.of(tag) if journal.source.tag == tag)
        return [source.channel for source in own]

    # --- messages from workers ------------------------------------------------------------

    def take(self, carrier: Carrier, message: Message, descriptors: list[int]) -> bool:
        """Handle a message ``journal``; returns whether its descriptor is kept.

        :raises ChannelError: when the message is malformed.
        """
        segment, tag = recovery.read_segment(message), _member(carrier).tag
        if len(descriptors) != 1:
            raise ChannelError("a segment of a journal without its memory")
        if (segment.died is None) is not (segment.source.tag == tag):
            raise ChannelError("a journal of another worker")
        worker = self._worker(_member(carrier))
        if segment.source in worker.refused:
            return False
        journal = worker.journals.get(segment.source) or _begin(worker, segment)
        if journal is None:
            self._refuse(carrier, worker, segment.source, again=False)
            return False
        segments = journal.logs.setdefault(segment.log, {})
        if segment.number in segments:
            return False  # it was sent again
        if len(segments) >= JOURNAL_SEGMENTS:
            self._refuse(carrier, worker, segment.source, again=False)
            return False
        if not self._has_room(descriptors):
            self._refuse(carrier, worker, segment.source, again=True)
            return False
        segments[segment.number] = descriptors[0]
        worker.changed.add(segment.source)
        self.descriptors += 1
        return True

    def drop(self, carrier: Carrier, message: Message) -> None:
        """Handle a message ``journal-dropped``.

        :raises ChannelError: when the message is malformed.
        """
        source, log, number = recovery.read_dropped(message)
        worker = self._workers.get(_member(carrier).tag)
        journal = worker.journals.get(source) if worker is not None else None
        descriptor = journal.logs.get(log, {}).pop(number, None) if journal is not None else None
        if descriptor is not None and worker is not None:
            self._dropped.append(descriptor)
            worker.changed.add(source)

    def lost_descriptor(self, carrier: Carrier, message: Message) -> None:
        """This process had no free descriptor for that of a message ``journal``.

        :raises ChannelError: when the message is malformed.
        """
        source = recovery.read_segment(message).source
        self._refuse(carrier, self._worker(_member(carrier)), source, again=True)

    def _worker(self, member: Member) -> _Worker:
        return self._workers.setdefault(member.tag, _Worker(member))

    def _refuse(self, carrier: Carrier, worker: _Worker, source: Source, again: bool) -> None:
        """Drop this journal."""
        self._refusals.count(reasons.JOURNAL_REFUSED, f"worker {worker.member.name}")
        journal = worker.journals.get(source)
        if journal is not None:
            self._close(worker, journal)
        worker.refused.add(source)
        if again and not worker.again:
            worker.again, worker.carrier = self._now() + JOURNAL_AGAIN, carrier

    # --- events of workers ----------------------------------------------------------------

    def give(self, member: Member, journals: list[Journal]) -> None:
        """A worker has inherited these journals."""
        worker = self._worker(member)
        for journal in journals:
            self.descriptors += len(journal.descriptors)
            old = worker.journals.get(journal.source)
            if old is not None or len(worker.journals) >= JOURNALS:
                self.descriptors -= len(journal.descriptors)
                journal.close()
            else:
                worker.journals[journal.source] = journal
                worker.changed.add(journal.source)
        self.keep()

    def leave(self, tag: str) -> list[Journal]:
        """Remove the journals of the worker with this tag; the caller owns them from now on."""
        worker = self._workers.pop(tag, None)
        if worker is None:
            return []
        self._forget(worker, worker.journals)
        journals = list(worker.journals.values())
        self.descriptors -= sum(len(journal.descriptors) for journal in journals)
        return journals

    def look(self) -> None:
        """Called once a second: drop expired journals, and retry refused and unkept ones."""
        now = self._now()
        if now >= self._keep_again:
            self._keep_again = math.inf
            self.keep()
        for worker in self._workers.values():
            for journal in list(worker.journals.values()):
                if journal.died is not None and now >= journal.died + journal.recovery:
                    self._close(worker, journal)
            if worker.again and now >= worker.again:
                worker.again = 0.0
                worker.refused.clear()
                assert worker.carrier is not None
                worker.carrier.tell({"type": "journals"})

    def _close(self, worker: _Worker, journal: Journal) -> None:
        del worker.journals[journal.source]
        self._forget(worker, [journal.source])
        self.descriptors -= len(journal.descriptors)
        journal.close()

    # --- for the next router ----------------------------------------------------------------

    def keep(self) -> None:
        """Put the journals that have changed since the last time on the shelf."""
        old: list[int] = []
        for worker in self._workers.values():
            changed, worker.changed = worker.changed, set()
            for source in changed & worker.journals.keys():
                if self._shelf is not None:
                    if source in worker.kept:
                        old.append(worker.kept[source])
                    worker.kept[source], whole = self._shelf.keep_journal(
                        worker.member, worker.journals[source]
                    )
                    if not whole:
                        worker.changed.add(source)
                        self._keep_again = self._now() + JOURNAL_AGAIN
        if self._shelf is not None:
            self._shelf.forget(*old)
        self.descriptors -= len(self._dropped)
        channel.close_all(self._dropped)
        self._dropped = []

    def _forget(self, worker: _Worker, sources: Iterable[Source]) -> None:
        """Remove journals from the shelf, before their descriptors are closed or given away."""
        if self._dropped:
            self.keep()
        kept = [worker.kept.pop(source) for source in sources if source in worker.kept]
        if self._shelf is not None and kept:
            self._shelf.forget(*kept)


def _begin(worker: _Worker, segment: Segment) -> Optional[Journal]:
    """Begin the journal of a segment; ``None`` if the worker has too many journals, or journals of
    another format."""
    same = all(other.format == segment.format for other in worker.journals.values())
    if not same or len(worker.journals) >= JOURNALS:
        return None
    journal = Journal(segment.source, segment.format, segment.recovery, segment.died)
    worker.journals[segment.source] = journal
    return journal


def _member(carrier: Carrier) -> Member:
    """:raises ChannelError: when the worker has not sent its hello."""
    if carrier.member is None:
        raise ChannelError("a journal before a hello")
    return carrier.member
