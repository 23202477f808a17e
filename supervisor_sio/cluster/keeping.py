"""The journal of a worker: which events it has given its clients, and their states.

With ``recovery``, the worker writes each event to its journal before it sends it; the event's
number in the journal is the offset that clients get with it. Events of several threads must be sent
in the order of their numbers: they are queued with ``_tables`` held, and every sending thread takes
the oldest first.

Events that are emitted in one turn of the loop, and that wait at the publisher until its end, are
*collected* until then as well: they are written and sent together, as other workers receive them
(see :mod:`.tables`).
"""

from __future__ import annotations

import logging
import math
import time
from collections import OrderedDict, deque
from copy import copy
from itertools import repeat
from typing import Any, Callable, Deque, FrozenSet, Iterable, List, Optional, Sequence, Tuple

from ..common.blocking import settle
from ..common.ids import new_id
from ..common.limits import CLIENTS_GONE, MOST_TOLD_OF
from ..common.request import tag_of
from ..relay.journal import Journal
from ..relay.journal_format import OWN, Stream
from ..relay.message import EncodedPacket, RelayMessage
from ..relay.subscriber import Subscriber
from . import acks, admin, offsets, sessions
from .early import Early, Source
from .histories import Stay
from .lost import ARRIVING, Client, Lost, Times
from .packets import coders
from .plain import NotPlain, TooLong
from .rooms import IndexedManager

logger = logging.getLogger("supervisor_sio")

#: Defaults of ``recovery_messages`` (events) and ``recovery_maxbytes``.
RECOVERY_MESSAGES = 65_536
RECOVERY_MAXBYTES = 16 * 1024 * 1024

#: Seconds until the next attempt to begin a journal, after one failed for lack of memory or
#: descriptors.
_AGAIN = 60.0

#: Seconds at most between the write of an event to the journal and its sending: one thread may
#: write it and leave the sending to another.
_SENT_LATER = 1.0

#: Reasons why clients cannot come back that this process has logged: each is logged once.
_told: set[str] = set()

#: An event to send: Engine.IO sids of the recipients, encoded packets, and whether it is volatile.
Sending = Tuple[Sequence[str], List[EncodedPacket], bool]


def check_options(recovery: Any, messages: Any, maxbytes: Any, write_only: bool) -> None:
    """:raises ValueError: when an option has a wrong value; the text says which and why."""
    if isinstance(recovery, bool) or not isinstance(recovery, (int, float)):
        raise ValueError(f"recovery {recovery!r:.80} is not a number of seconds")
    if not (0 <= recovery <= 86_400):
        raise ValueError(f"recovery {recovery!r:.80} is not between 0 and 86400 seconds")
    if recovery and write_only:
        raise ValueError("recovery with write_only=True: such a manager has no clients")
    for name, value in (("recovery_messages", messages), ("recovery_maxbytes", maxbytes)):
        if type(value) is not int or not 1 <= value <= 2**40:
            raise ValueError(f"{name} {value!r:.80} is not a number from 1 on")


class Keeping(IndexedManager):
    """The part of a manager that keeps the journal."""

    # From the manager and its other parts.
    recovery: float
    recovery_messages: int
    recovery_maxbytes: int
    write_only: bool
    host_id: str
    server: Any
    _outlet: Optional[sessions.Outlet]
    _early: dict[str, Early]
    _awaited: acks.Clients
    _expected: FrozenSet[str]
    _subscriber: Optional[Subscriber]
    _get_logger: Callable[[], Any]
    _session: Callable[[str, str], dict[str, Any]]
    _audience: Callable[..., list[tuple[str, str]]]
    _admit: Callable[..., list[str]]
    _ended: Callable[[Client], None]
    _queue_for: Callable[..., None]
    _scope_of: Callable[[Optional[int]], Any]
    _is_in_loop: Callable[[], bool]
    _count_failure: Callable[[RelayMessage, BaseException], None]

    def __init__(self) -> None:
        self._tell_of: tuple[Callable[[str, int, int], None], Callable[[str, int], None]] = (
            lambda log, number, descriptor: None,
            lambda log, number: None,
        )
        self._journal: Optional[Journal] = None
        self.forget_kept()

    def forget_kept(self) -> None:
        self._journal = None
        #: Monotonic time before which no new attempt to begin a journal is made.
        self._begin_again = 0.0
        #: The clients of this process by sid, and the sids of those that get no offsets.
        self._known: dict[str, Client] = {}
        self._plain: set[str] = set()
        #: By pid: sids, also of clients that have moved to another worker.
        self._sid_of: dict[str, str] = {}
        #: Guests, by sid: the tag as which each receives the relay, when its sid names another.
        self._guests: dict[str, str] = {}
        #: By pid: why a client that is gone could not be kept.
        self._gone: OrderedDict[str, str] = OrderedDict()
        #: Sids of clients that are moving to or from another worker: what is emitted to them here
        #: is published as well, so that the other worker receives it.
        self._between: set[str] = set()
        self._times = Times()
        #: By tag and pid: states of clients that this process is about to adopt. They are written
        #: to the journal once the adoption is certain.
        self._unwritten_states: dict[str, dict[str, bytes]] = {}
        self._sendings: Deque[Sending] = deque()
        #: Whether another thread has queued collected events.
        self._left_to_loop = False
        #: Messages that this process has published but not written to its journal yet: stream and
        #: number.
        self._unwritten: set[tuple[Stream, int]] = set()

    # --- for the worker ------------------------------------------------------------

    def keep_journal_by(
        self,
        on_segment: Callable[[str, int, int], None],
        on_dropped: Callable[[str, int], None],
    ) -> None:
        """Set the callbacks for the journal's segments, see :class:`.Journal`; call it before
        :meth:`initialize`."""
        self._tell_of = on_segment, on_dropped

    @property
    def journal(self) -> Optional[Journal]:
        """``None`` when clients cannot recover here."""
        return self._journal

    def close_journal(self) -> None:
        """This process ends: heirs of its clients go on from the journal's present end."""
        with self._tables:
            if self._journal is not None:
                self._journal.close()

    @property
    def recovers(self) -> bool:
        """Whether clients can come back to this process."""
        return self._journal is not None

    def _begin_journal(self) -> None:
        if not self.recovery or self.write_only or self._journal is not None:
            return
        now = time.monotonic()
        if now < self._begin_again:
            return
        if coders(self.server.packet_class) is None:
            self._begin_again = math.inf
            logger.warning(
                "recovery=%s has no effect: packets of %s are not JSON",
                self.recovery,
                self.server.packet_class.__name__,
            )
            return
        try:
            self._journal = Journal(
                self.host_id,
                age=self.recovery + self._margin,
                most_messages=self.recovery_messages,
                most_bytes=self.recovery_maxbytes,
                on_segment=self._tell_of[0],
                on_dropped=self._tell_of[1],
            )
        except OSError as error:
            self._begin_again = now + _AGAIN
            logger.error("recovery has no effect for the next %d s: %s", _AGAIN, error)
            return
        self._tables.write = self._write_collected
        if self._subscriber is not None:
            self._subscriber.journal = self._journal
        self._watch_sessions()
        for namespace, rooms in self.rooms.items():
            for sid in list(rooms.get(None, ())):
                if not self.is_pre_connected(sid, namespace):
                    # Connected before there was a journal: no offsets.
                    self._begins(sid, namespace, Early(None))

    @property
    def _margin(self) -> float:
        """Seconds between the last proof that a client was there and the time when it is lost.

        A client that answers a ping was there when the ping was sent. Its answer takes up to
        ``ping_timeout``, the next ping follows ``ping_interval`` later, and ``ping_timeout`` after
        that the client is lost.
        """
        eio = self.server.eio
        return float(eio.ping_interval) + 2 * float(eio.ping_timeout) + _SENT_LATER

    def _known_until(self, client: Client) -> float:
        """Until when a connected client has certainly received what was sent to it."""
        if self._outlet is None:
            return client.known
        proven = self._outlet.proven(client.eio_sid)[0] - _SENT_LATER
        return proven if proven >= client.back else client.known

    def _see_whether_behind(self, client: Client) -> None:
        """Note whether a client with a connection answers pings late."""
        if client.capable and self._outlet is not None:
            client.behind = self._outlet.proven(client.eio_sid)[1]

    def note_behind(self, eio_sid: str, behind: bool) -> None:
        """A client has begun, or ceased, to answer pings late. It is written down, so that an heir
        of this worker's clients knows what the client may lack.
        """
        with self._tables:
            for namespace in list(self.get_namespaces()):
                client = self._known.get(self.sid_from_eio_sid(eio_sid, namespace) or "")
                if client is not None and client.capable and client.lost is None:
                    client.known, client.behind = self._known_until(client), behind
                    self._save(client)

    def begin(self, sid: str, namespace: str, asked: offsets.Asked) -> Optional[str]:
        """A client is about to be sent the answer to its CONNECT.

        :param asked: the client's recovery request, out of its CONNECT.
        :return: the client's ``pid`` if it can come back, else ``None``.
        """
        with self._tables:
            self._begin_journal()
            if self._journal is None:
                return None
            pid = f"{self.host_id}.{new_id()}" if asked.capable else ""
            client = self._add(sid, namespace, pid)
            client.base = asked.offset  # the client may ask with this offset again
            self._save(client)
            return pid or None

    @property
    def lost(self) -> int:
        """The number of lost clients, which may come back."""
        return len(self._times)

    def may_come_back(self, sid: str) -> bool:
        """Whether a client is one that could come back to its session."""
        client = self._known.get(sid)
        return client is not None and client.capable and not client.cannot_come_back

    def lose(self, sid: str, namespace: str, reason: str) -> bool:
        """A client's connection has ended. Return whether the client is kept, to come back."""
        with self._tables:
            client = self._known.get(sid)
            if client is None or not client.capable or client.arriving is not None:
                return False
            if not self.is_connected(sid, namespace):
                return False
            if client.lost is not None:
                return True
            left = self._lose(client, reason)
        for no_answer in left or ():
            no_answer()
        return left is not None

    def _lose(self, client: Client, reason: str) -> Optional[list[Callable[[], None]]]:
        """:return: callbacks for acks that the client owes; ``None`` when it cannot come back."""
        self._store(client)
        if client.cannot_come_back:
            self._note_gone(client, client.why_not_saved)
            return None
        client.known = self._known_until(client)
        client.lost = Lost(time.monotonic(), reason)
        self._times.add(client.sid, client.lost.since + self.recovery)
        self._save(client)
        return self._awaited.left(client.sid)

    def _note_gone(self, client: Client, reason: str) -> None:
        """Remember why a client cannot come back, for the case that it tries."""
        self._gone[client.pid] = reason
        while len(self._gone) > CLIENTS_GONE:
            self._gone.popitem(last=False)

    def lost_session(self, sid: str) -> Optional[dict[str, Any]]:
        """What the application has stored for a lost client, also for an inherited one."""
        with self._tables:
            client = self._known.get(sid)
            return None if client is None else client.stored()

    # --- clients ----------------------------------------------------------------

    def _add(self, sid: str, namespace: str, pid: str) -> Client:
        assert self._journal is not None
        rooms = self._rooms_of.get((namespace, sid), ())
        stay = Stay(self.host_id, self._journal.last, rooms, tag_of(sid))
        eio_sid = self.eio_sid_from_sid(sid, namespace)
        client = Client(sid, namespace, pid, eio_sid or "", stay, capable=bool(pid))
        client.pid = pid or sid
        self._see_whether_behind(client)
        self._note_known(client)
        self._store(client)
        return client

    def _note_known(self, client: Client) -> None:
        self._known[client.sid] = client
        self._sid_of[client.pid] = client.sid
        if client.capable:
            self._plain.discard(client.sid)
        else:
            self._plain.add(client.sid)

    def _begins(self, sid: str, namespace: str, early: Early) -> None:
        """A client is connected: events from now on are for it, and those of ``early``."""
        assert self._journal is not None
        client = self._known.get(sid)
        if client is None:
            client = self._add(sid, namespace, "")
        elif (
            client.stay.begin == self._journal.last
            and not early.emits
            and sid not in admin.connected_at(self)
        ):
            return  # no event since ``begin``, and the state is written already
        else:
            client.stay = Stay(self.host_id, self._journal.last, client.stay.rooms, tag_of(sid))
            self._store(client)
        client.connected_at = admin.connected_at(self).get(sid)
        if early.emits:
            # Whoever reads this state before all of them are written would miss some.
            not_saved, client.not_saved = client.not_saved, ARRIVING
            self._save(client)
            client.not_saved = not_saved
            self._send_early_ones(sid, client.eio_sid, early)
        self._save(client)

    def _forget(self, client: Client) -> None:
        """Remove a client from the tables and from the journal."""
        self._let_go(client)
        self._unwrite(client.pid, client.stay.heard_as)

    def _let_go(self, client: Client) -> None:
        """Remove a client from the tables only; its state in the journal stays until it is
        overwritten."""
        self._known.pop(client.sid, None)
        self._plain.discard(client.sid)
        self._sid_of.pop(client.pid, None)
        self._guests.pop(client.sid, None)
        self._between.discard(client.sid)
        self._times.discard(client.sid)

    def _save(self, client: Client) -> None:
        if self._journal is not None and client.arriving is None:
            self._write(client.pid, client.stay.heard_as, client.keep())

    def _write(self, pid: str, tag: str, state: bytes) -> None:
        """:param tag: as which the client receives the relay."""
        if tag in self._expected:  # another worker may still be the one that adopts it
            self._unwritten_states.setdefault(tag, {})[pid] = state
        elif self._journal is not None:
            self._journal.save(pid, state)

    def _unwrite(self, pid: str, tag: str) -> None:
        self._unwritten_states.get(tag, {}).pop(pid, None)
        if self._journal is not None:
            self._journal.remove(pid)

    def _store(self, client: Client, session: Any = None) -> None:
        """Note what the application has stored for a client.

        :param session: by default what python-socketio has.
        """
        if session is None:
            # Reading a session creates it, and most clients need none; engineio cannot say.
            may_have_stored = getattr(self.server.eio, "may_have_stored", lambda eio_sid: True)
            try:
                has_none = not may_have_stored(client.eio_sid)
                session = {} if has_none else self._session(client.sid, client.namespace)
            except (KeyError, AttributeError, TypeError):
                return  # the client's connection is gone, or never existed
        try:
            client.store(session)
        except (NotPlain, TooLong) as error:
            self._warn(client, f"session data {error}: store JSON values only")

    @staticmethod
    def _warn(client: Client, why: str) -> None:
        if client.capable and why not in _told and len(_told) < MOST_TOLD_OF:
            _told.add(why)
            logger.warning("a client cannot come back to its session: %s", why)

    def _watch_sessions(self) -> None:
        """Write to the journal at once what the application stores with ``save_session``."""
        server = self.server
        save = server.save_session

        def note(sid: str, session: Any, namespace: Optional[str]) -> None:
            with self._tables:
                client = self._known.get(sid)
                if client is not None and client.namespace == (namespace or "/"):
                    self._store(client, session)
                    self._save(client)

        def save_session(sid: str, session: Any, namespace: Optional[str] = None) -> None:
            save(sid, session, namespace=namespace)
            note(sid, session, namespace)

        async def save_async(sid: str, session: Any, namespace: Optional[str] = None) -> None:
            await settle(save(sid, session, namespace=namespace))
            note(sid, session, namespace)

        server.save_session = save_async if server.is_asyncio_based() else save_session

    def _note_room(self, sid: str, room: Any, entered: bool) -> None:
        client = self._known.get(sid)
        if client is None or self._journal is None:
            return
        if client.arriving is not None:
            client.arriving.append((room, entered))
        elif entered:
            client.stay.enter(room, self._journal.last)
            if client.stay.is_too_long:
                self._warn(
                    client, "it is in too many rooms, or their names are too long, see limits"
                )
        else:
            age = self.recovery + self._margin
            client.stay.leave(room, self._journal.last, time.monotonic(), age)
        self._save(client)

    # --- events -----------------------------------------------------------------

    def _queue(
        self,
        message: RelayMessage,
        stream: Stream,
        recipients: list[tuple[str, str]],
        packets: list[EncodedPacket],
        question: Optional[acks.Question],
        volatile: bool,
    ) -> None:
        """Write an event to the journal, and queue it for sending; with ``_tables``.

        :param message: as it was published or received.
        """
        journal = self._journal
        assert journal is not None
        if question is not None:  # an emit with ack has no offset, and is not sent again
            if self._times:
                recipients = [pair for pair in recipients if pair[0] not in self._times]
            self._note_heard(message, stream)
            self._send_later(self._admit(recipients, packets, question), packets)
            return
        if self._early:
            source = None
            if stream is not OWN:
                source = message.sender, stream, message.sequence
            recipients = self._without_early(recipients, None if volatile else packets, source)
        plain = self._plain
        if not plain:
            able = [eio_sid for _, eio_sid in recipients]
        elif len(plain) == len(self._known):
            able = []
        else:
            able = [eio_sid for sid, eio_sid in recipients if sid not in plain]
        numbers: Iterable[int]
        if volatile:
            numbers = repeat(journal.last)
        elif able:
            scope = None if message.scope is None else message.scope.as_list
            if message.run is not None:
                numbers = journal.events(message, scope)
            else:
                if message.packets != packets:  # packets in another serialization
                    message = _with_packets(message, packets)
                numbers = (journal.event(message, stream, scope),)
        elif stream is not OWN and self._leaves_out_adopted(message):
            # They may have yet to get it. If this process is killed before, the router reads it
            # from this journal.
            journal.event(message, stream, message.scope.as_list)
        else:
            self._note_heard(message, stream)
        if able:
            numbered = offsets.add_each(packets, self.host_id, numbers)
            self._sendings.append((able, numbered, volatile))
        if len(able) < len(recipients):
            others = [eio_sid for sid, eio_sid in recipients if not able or sid in plain]
            self._sendings.append((others, packets, volatile))

    def _without_early(
        self,
        recipients: list[tuple[str, str]],
        packets: Optional[list[EncodedPacket]],
        source: Optional[Source],
    ) -> list[tuple[str, str]]:
        early = self._early
        for sid, _ in recipients:
            if packets is not None and sid in early and early[sid].add(packets, True, source):
                self._get_logger().error("too much is emitted to %s while it connects", sid)
        return [pair for pair in recipients if pair[0] not in early]

    def _leaves_out_adopted(self, message: RelayMessage) -> bool:
        """Whether adopted clients get this message of this process later than its own clients."""
        scope = message.scope
        return scope is not None and not scope.only and message.sender == self.host_id

    def _note_heard(self, message: RelayMessage, stream: Stream) -> None:
        """Note in the journal how far the relay is received; the message is no event of a client
        that may come back."""
        if self._journal is not None and stream is not OWN:
            self._journal.heard(
                message.sender,
                stream,
                message.last,
                message.after,
                message.fields.get("via"),
                None if message.scope is None else message.scope.as_list,
            )

    def _send_later(self, eio_sids: Sequence[str], packets: list[EncodedPacket]) -> None:
        if eio_sids:
            self._sendings.append((eio_sids, packets, False))

    def _send_alone(self, client: Client, packets: list[EncodedPacket]) -> None:
        """Write a new event for one client, and queue it; with ``_tables``."""
        assert self._journal is not None
        fields = {"method": "emit", "namespace": client.namespace, "room": client.sid}
        message = RelayMessage(self.host_id, 0, fields, packets)
        offset = offsets.write(self.host_id, self._journal.event(message, OWN, None))
        self._send_later((client.eio_sid,), offsets.add(packets, offset))

    def _send_early_ones(self, sid: str, eio_sid: str, early: Early) -> None:
        """Queue what was emitted to a client while it connected; with ``_tables``."""
        client = self._known.get(sid)
        for packets, numbered, _ in early.emits:
            if client is not None and client.capable and numbered:
                self._send_alone(client, packets)
            else:
                self._send_later((eio_sid,), packets)

    def _write_collected(self) -> None:
        """Write the collected events to the journal, and send them; with ``_tables``.

        In another thread they are only queued: at the end of its turn the loop sends them.
        """
        for message, number in self._tables.take():
            try:
                message.scope = self._scope_of(number)
                self._queue_for(message, None, list(message.packets), None, False)
            except Exception as error:  # the emit has returned
                self._count_failure(message, error)
        if self._is_in_loop():
            self._send_all()
        else:
            self._left_to_loop = True

    def send_collected(self) -> None:
        """Send what was emitted before. Call it in the loop, before a client is sent anything that
        was not emitted."""
        if self._tables.collected:
            with self._tables:
                pass  # they are written and sent
        if self._left_to_loop:
            self._left_to_loop = False
            self._send_all()

    def _send_queued(self, packets: Sequence[EncodedPacket]) -> None:
        """Send what is queued, here or in the loop's thread. Call it without ``_tables``, as it may
        wait for room.

        :param packets: the ones that were queued last; their size counts for that room.
        """
        outlet = self._outlet
        threads = None if outlet is None else outlet.threads
        if threads is None or threads.here:
            self._send_all()
        else:
            threads.run(sum(map(len, packets)), self._send_all)

    def _send_all(self) -> None:
        outlet, sendings = self._outlet, self._sendings
        if outlet is None:
            return
        while sendings:
            try:
                eio_sids, packets, volatile = sendings.popleft()
            except IndexError:
                return
            if volatile:
                outlet.fan_out_volatile(eio_sids, packets)
            else:
                outlet.fan_out(eio_sids, packets)


def _with_packets(message: RelayMessage, packets: list[EncodedPacket]) -> RelayMessage:
    copied = copy(message)
    copied.packets, copied.packed = packets, None
    return copied
