"""Reads the journal of another process, which may have been killed while it wrote.

See :mod:`.journal_format`. Whatever the files contain, only :class:`ValueError` is raised, and
every read ends.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from typing import Collection, Iterator, Mapping, Optional, Sequence, Union

from .journal_format import (
    BRIDGE,
    GUESTS,
    HEAD,
    HEIR_OF,
    STATE,
    TO_ALL,
    AdoptedPart,
    Event,
    Incomplete,
    Kind,
    Log,
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
from .position import Part, Position

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

    def part(self, tags: Sequence[str], since: float, dropped: int) -> Part:
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
        return Part(tuple(tags), since, senders, self.passed, [], [], dropped, dropped > 0, guests)


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
        adopted = {tag for part in parts.values() for tag in part.tags}
        found = [([tag for tag in tags if tag not in adopted], 0, segment.head.since, 0)]
        found += [
            ([tag for tag in tags if tag in part.tags], part.part, part.since, part.due)
            for part in parts.values()
        ]
        return Position(
            channel,
            [sources[number].part(some, since, due) for some, number, since, due in found if some],
        )


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
