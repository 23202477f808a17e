"""Reads the journal of another process, which may have been killed while it wrote.

See :mod:`.journal_format`. Whatever the files contain, only :class:`ValueError` is raised, and
every read ends.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from functools import cached_property
from operator import itemgetter
from typing import Collection, Iterator, Mapping, Optional, Sequence, Union

from ..common.limits import HEIR_BYTES, HEIR_EVENTS, RELAY_KEPT_OVERHEAD
from .journal_format import (
    BRIDGE,
    GUESTS,
    HEAD,
    HEIR_OF,
    KIND,
    STATE,
    TO_ALL,
    AdoptedPart,
    Event,
    Incomplete,
    Kind,
    Log,
    Own,
    Scope,
    map_memory,
    read_event,
    read_head,
    read_part,
    read_source,
    read_state,
    records,
)
from .journal_index import Index, Piece, Room, read_all, read_to
from .message import look, time_of
from .position import Held, Part, Position

__all__ = ["Incomplete", "JournalReader"]

_EVENT, _STATE = int(Kind.EVENT), int(Kind.STATE)
_NUMBERED = _EVENT, int(Kind.GAP)


class _Segment:
    """A segment as it is now: later writes do not count."""

    def __init__(self, descriptor: int) -> None:
        self.memory = map_memory(descriptor)
        self.head = read_head(self.memory, len(self.memory))
        self._events: Optional[array[int]] = None
        self.index = Index()

    def records(self) -> Iterator[tuple[int, int, int]]:
        return records(self.memory, HEAD.size, self.head.commit)

    @property
    def events(self) -> array[int]:
        """The offsets of events and gaps."""
        if self._events is None:
            self._events = array("I", [at for at, kind, _ in self.records() if kind in _NUMBERED])
        return self._events


class _Sources:
    """The positions of a process for its own clients, or for adopted ones."""

    def __init__(self) -> None:
        self.numbers: dict[str, dict[Optional[str], int]] = {}
        self.gone: set[str] = set()
        self.passed: dict[str, int] = {}
        self.guests: set[str] = set()

    def note(self, sender: str, tag: Optional[str], number: int) -> None:
        streams = self.numbers.setdefault(sender, {})
        streams[tag] = max(number, streams.get(tag, 0))

    def part(self, tags: Sequence[str], since: float) -> Part:
        guests = tuple(sorted(self.guests.difference(tags)))
        senders = {
            name: [
                True,
                streams.get(None, 0) + 1,
                streams.get(None, 0),
                {
                    tag: [streams[tag] + 1, streams[tag]]
                    for tag in (*tags, *guests)
                    if tag in streams
                },
                name in self.gone,
            ]
            for name, streams in self.numbers.items()
        }
        return Part(tuple(tags), since, senders, self.passed, guest_tags=guests)


class JournalReader:
    """A journal of another process.

    :param segments: by log, descriptors of its files, in any order. They stay the caller's, which
        may close them then.
    :raises ValueError: when they are not the files of one journal in this version of the format;
        the text says which.
    """

    def __init__(self, segments: Mapping[str, Sequence[int]]) -> None:
        self._events, events_end = _chain(Log.EVENTS, segments)
        self._states, states_end = _chain(Log.STATES, segments)
        head = self._events[-1].head
        self.tag = head.tag
        if self._states and self._states[-1].head.tag != self.tag:
            raise ValueError(f"journal: states of {self._states[-1].head.tag!r:.80}")
        #: Whether the last events are there, and all states.
        self.complete = events_end
        #: Bytes that :meth:`add_own` has added.
        self._added = 0
        self.states_complete = states_end and not self._states[0].head.previous
        oldest = self._events[0].head
        #: The last event up to which some may be missing, and its time: a client that had received
        #: everything by that time misses none of them.
        kept_from = (oldest.first - 1, oldest.began) if oldest.first > 1 else (0, 0.0)
        self.dropped = max((head.gap, head.gap_time), kept_from)

    @property
    def last(self) -> int:
        """The number of the last event.

        :raises ValueError: when there are no records.
        """
        segment = self._events[-1]
        return segment.head.first + len(segment.events) - 1

    def since(self, k: int) -> Iterator[Event]:
        """The events after number ``k``, in order.

        :raises Incomplete: when some of them are not kept any more, or ``k`` was never given.
        :raises ValueError: when there are no events; also while it is read.
        """
        return read_all(self._since(k))

    def to_rooms(self, k: int, rooms: Collection[Room]) -> Iterator[Union[Event, int]]:
        """Those of them that are for one of these rooms, as :func:`.read_to` yields them.

        :raises Incomplete: as :meth:`since`.
        """
        return read_to(self._since(k), rooms)

    def _since(self, k: int) -> list[Piece]:
        if not self.complete:
            raise Incomplete("the last events of the journal are missing")
        if not 0 <= k <= self.last:
            raise Incomplete(f"event {k} of {self.last}", given=False)
        dropped, _ = self.dropped
        if k < dropped:
            raise Incomplete(f"events after {dropped} are kept, not after {k}")
        pieces = []
        for segment, following in zip(self._events, (*self._events[1:], None)):
            first = segment.head.first
            if following is None or following.head.first > k + 1:
                begin, end = max(k + 1 - first, 0), len(segment.events)
                pieces.append(
                    Piece(segment.memory, segment.events, segment.index, first, begin, end)
                )
        return pieces

    def states(self) -> Iterator[tuple[str, bytes]]:
        """The last state of each client, by pid; each pid comes once.

        :raises ValueError: when there are no states; also while it is read.
        """
        seen: set[str] = set()
        for segment in reversed(self._states):
            found: dict[str, bytes] = {}
            for at, kind, _ in segment.records():
                if kind == _STATE:
                    pid, state = read_state(segment.memory, at)
                    if pid not in seen:
                        found[pid] = state
            seen.update(found)
            yield from found.items()

    def not_heard(self, position: Position) -> list[Part]:
        """The parts of a position of adopted clients for which the worker had not begun to receive.

        :raises ValueError: when there are no records.
        """
        segment = self._events[-1]
        heard: set[str] = set()
        for at, kind, _ in segment.records():
            if kind == Kind.PART:
                heard.update(read_part(segment.memory, at).tags)
        parts = [part for part in position.parts if heard.isdisjoint(part.tags)]
        # Clients that have reached the position of the worker's own ones have no part any more.
        return [] if parts and self._is_heir_of(position.tags) else parts

    def _is_heir_of(self, tags: Collection[str]) -> bool:
        """Whether the worker has noted, once it received for all of them, that it has the clients
        with these tags."""
        notes = {f"{HEIR_OF}{tag}" for tag in tags}
        beginning = HEIR_OF.encode()
        for segment in self._states:
            for at, kind, _ in segment.records():
                start = at + STATE.size
                # The other states are many, and are not read here.
                if kind == _STATE and segment.memory[start : start + len(beginning)] == beginning:
                    if read_state(segment.memory, at)[0] in notes:
                        return True
        return False

    def position(self, channel: str, tags: Sequence[str]) -> Position:
        """The position of the clients with these tags, for another process to go on from.

        :param tags: of the worker, and those that it had adopted.
        :raises ValueError: when there are no records.
        """
        parts, sources = self._sources
        adopted = {tag for part in parts.values() for tag in part.tags}
        since = self._events[-1].head.since
        own = sources[0].part([tag for tag in tags if tag not in adopted], since)
        own.complete.append(self.tag)
        found = [own]
        for number, part in parts.items():
            one = sources[number].part([tag for tag in tags if tag in part.tags], part.since)
            if not part.due:
                one.complete.append(self.tag)
            # The worker's own messages are due last. They can be read only from its journal.
            elif part.due > 1 or not self.add_own(one):
                one.dropped, one.has_gap = part.due - 1, True
            found.append(one)
        return Position(channel, [part for part in found if part.tags])

    def add_own(self, part: Part) -> bool:
        """Add to a position what this worker itself has sent and these clients have yet to get.

        If not all of it is here, nothing is added, and it counts as missing.

        :param part: not of the worker's own clients.
        :return: whether all of it is here.
        :raises ValueError: when there are no records.
        """
        _, sources = self._sources
        last = sources[0].numbers.get(self.tag, {})
        placed, next, _, own, gone = part.senders.get(self.tag, [False, 1, 0, {}, False])
        first = {None: next, **{tag: numbers[0] for tag, numbers in own.items()}}
        streams = [None, *(tag for tag in (*part.tags, *part.guest_tags) if tag in last)]
        begin = {tag: first.get(tag, 1) if placed else 1 for tag in streams}
        end = {tag: max(last.get(tag, 0), begin[tag] - 1) for tag in streams}
        missing = sum(end[tag] - begin[tag] + 1 for tag in streams)
        found: list[Held] = []
        if missing:
            found = [held for number, held in self._own if number >= begin.get(held.tag, math.inf)]
        if any(time_of(held.data) < part.since for held in found):
            return False  # where the messages for these clients begin is not known
        size = sum(len(held.data) + RELAY_KEPT_OVERHEAD for held in found)
        is_whole = len(found) == missing and self._added + size <= HEIR_BYTES
        if is_whole:
            self._added += size
            part.kept += found
            part.complete.append(self.tag)
            begin = {tag: number + 1 for tag, number in end.items()}
        own = {**own, **{tag: [begin[tag], end[tag]] for tag in streams if tag is not None}}
        part.senders[self.tag] = [True, begin[None], end[None], own, gone]
        return is_whole

    @cached_property
    def _own(self) -> list[tuple[int, Held]]:
        """The last messages of this worker itself, in order, with their numbers."""
        found: list[tuple[int, Held]] = []
        size, name = 0, self.tag.encode()
        for event in self._backwards():
            only_adopted = event.scope is not None and event.scope[0]
            if only_adopted or isinstance(event.stream, Own):
                continue  # each message to adopted clients is also an event for all others
            message = look(event.data, 0)
            if message.sender == name:
                size += len(event.data) + RELAY_KEPT_OVERHEAD
                if size > HEIR_BYTES:
                    break
                found.append((message.first, Held(event.stream, event.data)))
        found.reverse()
        # Threads write their events in any order.
        to_all = iter(sorted((one for one in found if one[1].tag is None), key=itemgetter(0)))
        return [next(to_all) if one[1].tag is None else one for one in found]

    def _backwards(self) -> Iterator[Event]:
        """The last ``HEIR_EVENTS`` events, the last one first."""
        left = HEIR_EVENTS
        for segment in reversed(self._events):
            for at in reversed(segment.events[-left:]):
                if segment.memory[at + KIND] == _EVENT:
                    yield read_event(segment.memory, at, 0)
            left -= len(segment.events)
            if left <= 0:
                return

    @cached_property
    def _sources(self) -> tuple[dict[int, AdoptedPart], Mapping[int, _Sources]]:
        """The adopted parts, and by their numbers all positions; 0 is that of the own clients.

        :raises ValueError: when there are no records.
        """
        segment = self._events[-1]
        parts: dict[int, AdoptedPart] = {}
        sources: defaultdict[int, _Sources] = defaultdict(_Sources)
        last: Optional[int] = None
        for at, kind, _ in segment.records():
            if kind == _EVENT:
                last = at
            elif kind == Kind.PART:
                part = read_part(segment.memory, at)
                parts[part.part] = part
            elif kind in (Kind.SOURCE, Kind.GONE):
                source = read_source(segment.memory, at)
                heard = sources[source.part]
                if source.code == BRIDGE:
                    heard.passed[source.sender] = source.number
                    continue
                if source.code == GUESTS:
                    heard.guests.add(source.sender)
                    continue
                heard.note(source.sender, source.tag or None, source.number)
                if source.gone and source.code == TO_ALL:
                    heard.gone.add(source.sender)
        if last is not None:
            # The process may have died before it wrote this number to the source.
            event = read_event(segment.memory, last, 0)
            number = _part_of(event.scope, parts)
            if number is not None:
                _note_event(event, sources[number])
            if number == 0 and event.sender == self.tag:
                for part in parts.values():
                    if not part.due and (
                        event.scope is None or set(part.tags).isdisjoint(event.scope[1])
                    ):
                        _note_event(event, sources[part.part])
        return parts, sources


def _note_event(event: Event, sources: _Sources) -> None:
    message = event.message
    if message.sequence:
        sources.note(message.sender, message.stream, message.sequence)
        if message.stream is not None:
            sources.note(message.sender, None, message.after)
    via = message.fields.get("via")
    if isinstance(via, list) and len(via) == 2:
        sources.passed[via[0]] = max(via[1], sources.passed.get(via[0], 0))


def _part_of(scope: Scope, parts: Mapping[int, AdoptedPart]) -> Optional[int]:
    """The part for a scope; ``None`` if it has only some of the own clients."""
    if scope is None or not scope[0]:
        return 0
    for number, part in parts.items():
        if not set(part.tags).isdisjoint(scope[1]):
            return number
    return None


def _chain(log: Log, segments: Mapping[str, Sequence[int]]) -> tuple[list[_Segment], bool]:
    """The segments that are still needed, the oldest first, and whether the last one is there.

    :raises ValueError: when they are not of this log, or of several journals.
    """
    found: dict[int, _Segment] = {}
    for descriptor in segments.get(log.value, ()):
        segment = _Segment(descriptor)
        head = segment.head
        if head.log is not log:
            raise ValueError(f"journal: a segment of {head.log.value} among {log.value}")
        if not head.commit:
            continue  # it was not used yet
        if head.number in found:
            raise ValueError(f"journal: two segments {head.number} of {log.value}")
        found[head.number] = segment
    if not found:
        raise ValueError(f"journal: no {log.value}")
    last = found[max(found)]
    if len({segment.head.tag for segment in found.values()}) > 1:
        raise ValueError(f"journal: {log.value} of several workers")
    chain = [last]
    while chain[-1].head.previous in found:  # always a lower number
        chain.append(found[chain[-1].head.previous])
    chain.reverse()
    return chain, not last.head.next
