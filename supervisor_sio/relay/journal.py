"""The journal of a worker: the events it has given its clients, and their states.

It lies in files of memory that outlive the worker, and of which other processes have descriptors.
Clients that come back are sent their missed events from it, by this process or another one: see
:mod:`.journal_format`, and :mod:`.journal_reader` for how it is read.
"""

from __future__ import annotations

import json
import logging
import os
import time
import weakref
from array import array
from collections import deque
from typing import (
    Any,
    Callable,
    Collection,
    Deque,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    Optional,
    Sequence,
    Union,
)

from ..common.limits import JOURNAL_CARRIED, JOURNAL_PIECES, JOURNAL_SEGMENT
from ..common.refusals import Refusals
from . import native
from .journal_format import (
    BRIDGE,
    EVENT,
    GAP,
    GAP_TIME,
    GUESTS,
    HEAD,
    KIND,
    OWN,
    PART_DUE,
    RECORD,
    SINCE,
    SOURCE_NUMBER,
    STATE,
    TIME,
    TO_ALL,
    TO_ONE,
    TO_OWN,
    Event,
    Heard,
    Incomplete,
    Kind,
    Log,
    Scope,
    Stream,
    aligned,
    read_state,
)
from .journal_index import Index, Piece, Room, read_all, read_to
from .journal_log import Segment, SegmentedLog
from .journal_sources import Slot, Sources
from .message import RelayMessage
from .position import Part

__all__ = ["OWN", "Event", "Heard", "Incomplete", "Journal", "Scope", "Stream"]

logger = logging.getLogger("supervisor_sio.relay")

_EVENT, _STATE = int(Kind.EVENT), int(Kind.STATE)

_GAP_RECORD = STATE.pack(STATE.size, Kind.GAP, 0)

#: The slot of a stream of which nothing was received.
_NOTHING: Slot = [0, 0]

#: Records examined at each write, in search of some to carry forward.
_LOOKED_AT = 64


class _Piece:
    """A segment of events.

    :param first: the number of its first event.
    :param most: the highest number that it takes.
    :param until: monotonic time until which it takes events.
    """

    def __init__(self, segment: Segment, first: int, most: int, now: float, until: float) -> None:
        self.segment = segment
        self.first = first
        self.most = most
        self.until = until
        self.ended = now
        #: The place of each event in the segment.
        self.at = array("I")
        self.index = Index()


class Journal:
    """The journal of one manager in one worker. Safe to use from several threads.

    In a forked child it writes nothing, and is empty.

    :param tag: of the worker.
    :param age: seconds for which events are kept: ``most_messages`` and ``most_bytes`` of them at
        most.
    :param on_segment: gets the log, number and descriptor of each segment before it is used; the
        descriptor stays the journal's. Called with the journal's lock held: it must not call the
        journal.
    :param on_dropped: gets the log and number of a segment that is not needed any more.
    :raises OSError: when there is no memory for it, or no descriptor.
    """

    def __init__(
        self,
        tag: str,
        *,
        age: float,
        most_messages: int,
        most_bytes: int,
        on_segment: Callable[[str, int, int], None],
        on_dropped: Callable[[str, int], None],
    ) -> None:
        self.tag = tag
        self._age = age
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._in_a_piece = max(most_messages // JOURNAL_PIECES, 1)
        self._age_of_a_piece = age / JOURNAL_PIECES
        size = min(max(most_bytes // JOURNAL_PIECES, 1), JOURNAL_SEGMENT)
        self._lock = native.lock()
        self._refusals = Refusals(logger)
        #: The number of the last event.
        self.last = 0
        #: The last number at which an event is missing, and when that was found.
        self._gap = 0, 0.0
        #: The number and time of the last event that is not kept any more.
        self._dropped = 0, 0.0
        self._began = 0.0
        self._main = Sources()
        self._parts: list[Sources] = []
        self._parts_made = 0
        self._events = SegmentedLog(Log.EVENTS, tag, size, on_segment, on_dropped)
        self._states = SegmentedLog(Log.STATES, tag, JOURNAL_SEGMENT, on_segment, on_dropped)
        self._pieces: Deque[_Piece] = deque()
        #: The place of each client's state: the segment's number in the high half, the offset in
        #: the low half.
        self._clients: dict[str, int] = {}
        self._live_bytes = 0
        #: The oldest segment of states, and the offset up to which it was examined.
        self._carrying, self._carried_to = 0, HEAD.size
        self._writes = True
        self._roll(0, time.monotonic())
        try:
            self._states.begin(0, time.monotonic())
        except BaseException:
            first = self._events.last.number
            self._events.close()
            on_dropped(Log.EVENTS.value, first)
            raise
        _journals.add(self)

    @property
    def kept_bytes(self) -> int:
        """Bytes in use by both logs."""
        return self._events.kept + self._states.kept

    def segments(self) -> list[tuple[str, int, int]]:
        """The log, number and descriptor of each segment, for a new router."""
        with self._lock:
            return [
                (log.log.value, number, descriptor)
                for log in (self._events, self._states)
                for number, descriptor in log.each()
            ]

    # --- events ------------------------------------------------------------------

    def event(self, message: RelayMessage, stream: Stream, scope: Scope = None) -> int:
        """Write an event, before it is given to clients of this process.

        :param stream: to which stream the message belongs: ``None`` to all, a tag to that worker
            alone (this one, or one whose sessions it has adopted), ``OWN`` to no other process. The
            message's sequence is its sender's number in that stream; the sender may be this
            process.
        :param scope: for which clients it is, as ``[only, tags]``; ``None`` for all.
        :return: the number of the event, from 1 on.
        """
        if not self._writes:
            return self.last
        now = time.monotonic()
        data = message.packed or message.pack()
        if stream is None and scope is None:  # nearly always
            record = EVENT.pack(EVENT.size + len(data), _EVENT, TO_ALL, 0, 0, now) + data
        else:
            record = _record(stream, scope, now, data)
        with self._lock:
            if self._append(record, now) and stream is not OWN:
                via = message.fields.get("via")
                self._note(message.sender, stream, message.sequence, message.after, via, scope)
            return self.last

    def events(self, message: RelayMessage, scope: Scope = None) -> Sequence[int]:
        """Write several events to all that arrived together, see :attr:`.RelayMessage.run`.

        :return: the number of each.
        """
        run = message.run or ()
        if not self._writes:
            return [self.last] * len(run)
        now = time.monotonic()
        scoped = _encode_scope(scope)
        size, pack = EVENT.size + len(scoped), EVENT.pack
        records = [
            pack(size + len(data), _EVENT, TO_ALL, 0, len(scoped), now) + scoped + data
            for data in run
        ]
        with self._lock:
            first = self.last + 1
            written = self._append_all(records, now)
            # If this process dies before the number is noted, the last record has it.
            if written:
                self._note(message.sender, None, message.last, message.after, None, scope)
            return range(first, first + len(run))

    def _append(self, record: bytes, now: float) -> bool:
        """Append an event, or a gap in its place; with the lock. Return whether it is the event."""
        piece, size = self._pieces[-1], len(record)
        segment = piece.segment
        if segment.used + size > segment.size or self.last >= piece.most or now > piece.until:
            if not self._make_room(size, now):
                self._add_gap()
                return False
            piece = self._pieces[-1]
            segment = piece.segment
        piece.at.append(segment.write(record))
        piece.ended = now
        self.last += 1
        self._prepare()
        return True

    def _append_all(self, records: Sequence[bytes], now: float) -> bool:
        """Append several events, or gaps in their place; with the lock. Return whether the last one
        is the event."""
        piece, padded = self._pieces[-1], [one.ljust(aligned(len(one)), b"\0") for one in records]
        data, segment = b"".join(padded), piece.segment
        until = segment.used + len(data), self.last + len(records)
        if until[0] > segment.size or until[1] > piece.most or now > piece.until:
            return [self._append(record, now) for record in records][-1]
        at = segment.write(data)
        for one in padded:
            piece.at.append(at)
            at += len(one)
        piece.ended = now
        self.last += len(records)
        self._prepare()
        return True

    def _prepare(self) -> None:
        segment = self._piece
        if segment.used * 2 > segment.size and self._events.spare is None:
            self._events.prepare()

    def heard(
        self,
        sender: str,
        stream: Stream,
        number: int,
        after: int = 0,
        via: Any = None,
        scope: Scope = None,
    ) -> None:
        """Note that a message was handled that is not an event for clients here; once for each.

        :param after: of the message, and ``via`` of its fields.
        :param scope: see :meth:`event`.
        """
        if not self._writes:
            return
        with self._lock:
            self._note(sender, stream, number, after, via, scope)

    @property
    def dropped(self) -> tuple[int, float]:
        """The number and time of the last event up to which some may be missing.

        A client that had received everything by that time misses none of them.
        """
        return max(self._gap, self._dropped)

    def since(self, k: int) -> Iterator[Event]:
        """The events after number ``k``, in order; not those that are written while it is read.

        :raises Incomplete: when some of them are not kept any more, or ``k`` was never given.
        """
        return read_all(self._since(k))

    def to_rooms(self, k: int, rooms: Collection[Room]) -> Iterator[Union[Event, int]]:
        """Those of them that are for one of these rooms, as :func:`.read_to` yields them.

        :raises Incomplete: as :meth:`since`.
        """
        return read_to(self._since(k), rooms)

    def _since(self, k: int) -> list[Piece]:
        with self._lock:
            if not 0 <= k <= self.last:
                raise Incomplete(f"event {k} of {self.last}", given=False)
            dropped, _ = self.dropped
            if k < dropped:
                raise Incomplete(f"events after {dropped} are kept, not after {k}")
            return [
                Piece(
                    piece.segment.memory,
                    piece.at,
                    piece.index,
                    piece.first,
                    max(k + 1 - piece.first, 0),
                    len(piece.at),
                )
                for piece in self._pieces
                if k < piece.first + len(piece.at)
            ]

    def lost(self) -> None:
        """A message for clients of this process was lost for good."""
        with self._lock:
            if self._writes:
                self._add_gap()

    def trim(self) -> None:
        """Drop what is too old, also while no events are written."""
        now = time.monotonic()
        with self._lock:
            if not self._writes:
                return
            piece = self._pieces[-1]
            if piece.at and now - piece.ended > self._age:
                self._make_room(0, now)
            else:
                self._drop_old(now)

    # --- the positions in the senders' streams -------------------------------------

    def began(self, since: float) -> None:
        """Note from when on messages are for this process, in seconds of the monotonic clock."""
        with self._lock:
            self._began = since
            if self._writes:
                TIME.pack_into(self._piece.memory, SINCE, since)

    def ended(self, sender: str) -> None:
        """A sender has ended, and all its messages that were still to come are handled."""
        with self._lock:
            if self._writes:
                for sources in (self._main, *self._parts):
                    ended, forgotten = sources.end(sender)
                    self._mark(ended, Kind.GONE)
                    self._mark(forgotten, Kind.DEAD)

    def adopting(self, part: Part) -> None:
        """This process begins to receive for sessions of another one, from its position on."""
        with self._lock:
            if self._writes:
                self._parts_made += 1
                self._parts.append(Sources.adopted(self._parts_made, part))
                if part.has_gap:
                    self._add_gap()
                self._rewrite()

    def own_given(self, tags: Iterable[str]) -> None:
        """Adopted sessions have all earlier messages of this process, and get the rest directly."""
        with self._lock:
            if self._writes:
                for part in self._parts:
                    if not part.direct and not part.tags.isdisjoint(tags):
                        part.direct = True
                        self._give_due(part)

    def merged(self, tags: Iterable[str]) -> None:
        """Adopted sessions with these tags have reached the position of the own clients."""
        with self._lock:
            if self._writes:
                for part in [one for one in self._parts if not one.tags.isdisjoint(tags)]:
                    self._parts.remove(part)
                    self._main.merge(part)
                self._rewrite()

    def given_up(self, tag: str, scope: Scope = None) -> None:
        """The last client with a tag has left.

        :param scope: ``None`` if the tag is at the position of the own clients, else as in
            :meth:`event`.
        """
        with self._lock:
            sources = self._part(scope)
            if sources is None or not self._writes:
                return
            self._mark(sources.forget(tag), Kind.DEAD)
            if sources.part and not sources.tags:
                self._parts.remove(sources)
                self._rewrite()

    def guests(self, tag: str, numbers: Mapping[str, int], is_known: Callable[[str], bool]) -> None:
        """From now on messages to another worker are for clients of this process, too.

        :param numbers: by sender, of the last message to that worker that was not for them.
        :param is_known: whether it is known where a sender's messages begin. Of other senders
            nothing is noted: they may have ended before this process began.
        """
        with self._lock:
            main = self._main
            if not self._writes or tag in main.guests:
                return
            self._add(main.guests, tag, main.record(GUESTS, 0, tag), 0)
            for sender, number in numbers.items():
                if sender in main.gone:
                    record = main.record(TO_ONE, number, sender, tag, Kind.GONE)
                    self._add(main.gone[sender], tag, record, number)
                elif sender in main.senders or is_known(sender):
                    self._note(sender, tag, number, 0, None, None)

    def position(self, tag: Optional[str] = None, to: str = "") -> Heard:
        """The position of the clients with a tag: in what each sender sends to all, and to a
        worker. While messages for adopted clients are due, it counts these as received: see
        :meth:`reaches`.

        :param to: the tag of that worker.
        """
        with self._lock:
            sources = self._of(tag)
            return Heard(sources.numbers, dict(sources.first), sources.numbers_to(to))

    def reaches(self, heard: Heard, tag: Optional[str] = None, to: str = "") -> bool:
        """Whether the clients with a tag have received everything that another process has, and
        everything that their own position counts.

        :param to: the tag of the worker whose messages the other process receives as well.

        A sender that has ended counts as received entirely; so does one that was not received here,
        if the other process received it before this one began to receive.
        """
        with self._lock:
            sources = self._of(tag)
            if sources.due[0]:
                return False  # what other processes have kept for them is not written here yet
            began = sources.since if sources.part else self._began
            for stream, numbers in ((None, heard.numbers), (to, heard.to_one)):
                for sender, number in numbers.items():
                    streams = sources.senders.get(sender)
                    if streams is not None:
                        if streams.get(stream, _NOTHING)[0] < number:
                            return False
                    elif number and sender not in sources.gone:
                        if heard.first.get(sender, 0.0) >= began:
                            return False
        return True

    def _of(self, tag: Optional[str]) -> Sources:
        return self._part(None if tag is None else (True, (tag,))) or self._main

    # --- the states of clients -----------------------------------------------------

    def save(self, pid: str, state: bytes) -> None:
        """Write the present state of a client."""
        if not self._writes:
            return
        name = pid.encode()
        size = STATE.size + len(name) + len(state)
        record = STATE.pack(size, _STATE, len(name)) + name + state
        with self._lock:
            if not self._append_state(pid, record):
                self._forget(pid)  # the old state is wrong now
            elif self._states.kept > 2 * (self._live_bytes + JOURNAL_SEGMENT):
                self._compact()

    def remove(self, pid: str) -> None:
        """A client does not come back: mark its state as dead."""
        with self._lock:
            if self._writes:
                self._forget(pid)

    def close(self) -> None:
        """Close the files. Other processes may still have them open."""
        with self._lock:
            self._writes = False
            self._pieces.clear()
            self._clients.clear()
            self._events.close()
            self._states.close()

    def _leave_to_parent(self) -> None:
        self._lock = native.lock()  # another thread of the parent may hold it
        self.close()

    # --- with the lock -------------------------------------------------------------

    def _note(
        self, sender: str, stream: Stream, number: int, after: int, via: Any, scope: Scope
    ) -> None:
        """Note that a message was handled: it need not be sent again."""
        if scope is None and via is None and not after and not self._parts:  # nearly always
            senders = self._main.senders
            streams = senders.get(sender)
            slot = None if streams is None else streams.get(stream)  # type: ignore[arg-type]
            if slot is not None:
                if number > slot[0]:
                    slot[0] = number
                    self._pieces[-1].segment.set_number(slot[1] + SOURCE_NUMBER, number)
                senders.move_to_end(sender)
                return
        sources = self._main if scope is None else self._part(scope)
        if sources is None:
            return
        if stream is not OWN:
            if stream is not None:
                self._advance(sources, sender, None, after)
            if not self._advance(sources, sender, stream, number) and sources.due[0]:
                self._give_due(sources)
            if sender == self.tag and sources is self._main:
                for part in self._parts:
                    if (
                        part.direct
                        and part.hears(stream)
                        and (scope is None or part.tags.isdisjoint(scope[1]))
                    ):
                        self._advance(part, sender, stream, number)
        if via is not None:
            self._pass(sources, via)

    def _give_due(self, part: Sources) -> None:
        part.due[0] -= 1
        self._piece.set_number(part.due[1] + PART_DUE, part.due[0])

    def _part(self, scope: Scope) -> Optional[Sources]:
        """The sources for a scope; ``None`` if it has only some of the own clients."""
        if scope is None or not scope[0]:
            return self._main
        for part in self._parts:
            if not part.tags.isdisjoint(scope[1]):
                return part
        return None

    def _advance(self, sources: Sources, sender: str, stream: Optional[str], number: int) -> bool:
        """Note a number. Return whether it is new."""
        streams = sources.senders.get(sender)
        if streams is None:
            streams, forgotten = sources.begin(sender)
            self._mark(streams.values(), Kind.SOURCE)  # the sender had ended
            self._mark(forgotten, Kind.DEAD)
        else:
            sources.senders.move_to_end(sender)
        known = streams.get(stream)
        if known is not None:
            return self._raise(known, number)
        code = TO_ALL if stream is None else TO_ONE
        self._add(streams, stream, sources.record(code, number, sender, stream or ""), number)
        return True

    def _pass(self, sources: Sources, via: Any) -> None:
        name, number = via
        slot = sources.bridges.get(name)
        if slot is not None:
            sources.bridges.move_to_end(name)
            self._raise(slot, number)
        else:
            sources.make_room_for_bridge()
            self._add(sources.bridges, name, sources.record(BRIDGE, number, name), number)

    def _raise(self, slot: Slot, number: int) -> bool:
        if number <= slot[0]:
            return False
        slot[0] = number
        if slot[1]:  # else there was no memory to write it
            self._piece.set_number(slot[1] + SOURCE_NUMBER, number)
        return True

    def _mark(self, slots: Iterable[Slot], kind: Kind) -> None:
        """Change what kind of records the sources in these slots are."""
        for _, at in slots:
            if at:  # as in _raise()
                self._piece.memory[at + KIND] = kind

    def _add(self, slots: MutableMapping[Any, Slot], key: Any, record: bytes, number: int) -> None:
        """Add a source."""
        segment = self._piece
        if segment.has_room(len(record)):
            slots[key] = [number, segment.write(record)]
            return
        slots[key] = [number, 0]
        if not self._rewrite():
            del slots[key]

    @property
    def _piece(self) -> Segment:
        return self._pieces[-1].segment

    def _add_gap(self) -> None:
        """Write a gap: an event is missing here; the gap gets its number."""
        piece, now = self._pieces[-1], time.monotonic()
        segment = piece.segment
        if segment.has_room(len(_GAP_RECORD)) and piece.first + len(piece.at) == self.last + 1:
            piece.at.append(segment.write(_GAP_RECORD))
            piece.ended = now
        else:
            piece.most = 0  # the next event goes to a new segment
        self.last += 1
        self._gap = self.last, now
        TIME.pack_into(segment.memory, GAP_TIME, now)
        segment.set_number(GAP, self.last)

    def _rewrite(self) -> bool:
        """Begin a new segment with all sources; false when that fails."""
        if self._make_room(0, time.monotonic()):
            return True
        self._add_gap()
        return False

    def _make_room(self, size: int, now: float) -> bool:
        """Begin a new segment with room for a record; false when that fails."""
        if size > self._most_bytes:
            text = f"an event of {size} bytes is not kept for clients that come back"
            self._log(text, "more than recovery_maxbytes")
            return False
        try:
            self._roll(size, now)
        except OSError as error:
            self._log("events are not kept for clients that come back", str(error))
            return False
        segment = self._piece
        while len(self._pieces) > 1 and (
            self.last + 1 - self._pieces[0].first > self._most_messages - self._in_a_piece
            or self._events.before + segment.size > self._most_bytes
        ):
            self._drop_oldest()
        self._drop_old(now)
        return True

    def _log(self, text: str, why: str) -> None:
        line = self._refusals.noted(why, text)
        if line:
            logger.error("%s", line)

    def _drop_old(self, now: float) -> None:
        while len(self._pieces) > 1 and now - self._pieces[0].ended > self._age:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        piece = self._pieces.popleft()
        self._dropped = self._pieces[0].first - 1, piece.ended
        self._events.drop(piece.segment)

    def _roll(self, need: int, now: float) -> None:
        """:raises OSError: when there is no memory for a new piece; nothing has changed."""
        rows = [row for sources in (self._main, *self._parts) for row in sources.rows()]
        table = b"".join(record for _, record in rows)
        first = self.last + 1
        segment = self._events.begin(need, now, first, self._gap, self._began, table)
        at = HEAD.size
        for slot, record in rows:
            slot[1] = at
            at += len(record)
        most, until = self.last + self._in_a_piece, now + self._age_of_a_piece
        self._pieces.append(_Piece(segment, first, most, now, until))

    def _append_state(self, pid: str, record: bytes) -> bool:
        """Append the state of a client; false when there is no memory for it."""
        states, size = self._states, len(record)
        segment = states.segments[-1]
        if segment.used + size > segment.size:
            before = segment
            try:
                segment = states.begin(size, time.monotonic())
            except OSError as error:
                self._log(
                    "a client is not kept, and cannot come back to another worker", str(error)
                )
                return False
            if not before.live:
                states.drop(before)
        at = segment.write(record)
        segment.live += 1
        self._forget(pid)  # marks the former state as dead
        self._clients[pid] = segment.number << 32 | at
        self._live_bytes += size
        if segment.used * 2 > segment.size:
            states.prepare()
        return True

    def _forget(self, pid: str) -> None:
        known = self._clients.pop(pid, None)
        if known is None:
            return
        number, at = known >> 32, known & 0xFFFFFFFF
        segment = self._states.by_number[number]
        size, _ = RECORD.unpack_from(segment.memory, at)
        segment.memory[at + KIND] = Kind.DEAD
        segment.live -= 1
        self._live_bytes -= size
        if not segment.live and segment is not self._states.segments[-1]:
            self._states.drop(segment)

    def _compact(self) -> None:
        """Copy some records of the oldest segment to the last, so that it can be dropped."""
        oldest = self._states.segments[0]
        if self._carrying != oldest.number:
            self._carrying, self._carried_to = oldest.number, HEAD.size
        carried = 0
        for _ in range(_LOOKED_AT):
            if carried == JOURNAL_CARRIED or not oldest.live or oldest is self._states.last:
                return
            at = self._carried_to
            length, kind = RECORD.unpack_from(oldest.memory, at)
            if kind == _STATE:
                pid, _ = read_state(oldest.memory, at)
                if not self._append_state(pid, oldest.memory[at : at + length]):
                    return
                carried += 1
            self._carried_to = aligned(at + length)


def _record(stream: Stream, scope: Scope, now: float, data: bytes) -> bytes:
    tag, scoped = b"", _encode_scope(scope)
    if stream is None:
        code = TO_ALL
    elif stream is OWN:
        code = TO_OWN
    else:
        code, tag = TO_ONE, stream.encode()
    size = EVENT.size + len(tag) + len(scoped) + len(data)
    head = EVENT.pack(size, _EVENT, code, len(tag), len(scoped), now)
    return head + tag + scoped + data


def _encode_scope(scope: Scope) -> bytes:
    if scope is None:
        return b""
    return json.dumps([scope[0], list(scope[1])], separators=(",", ":")).encode()


_journals: weakref.WeakSet[Journal] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """In a forked child: the journals are the parent's."""
    for journal in list(_journals):
        journal._leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parent)
