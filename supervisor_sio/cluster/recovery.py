"""Clients that come back to their session, to the worker that had it or to another one.

Whoever has a client answers for it, its *owner*: the worker that its ``pid`` names, or the one
that has taken over from that one. A worker to which the client comes asks the owner, in three
steps; the client's place in what everybody sends is handed over without a gap:

============  ===================================================================================
``claim``     who is it, what has it: the new worker puts it into its tables; what comes for it
              from now on is held there
``fetch``     what has it missed: of what is sent to all, as much as the new worker had heard by
              then; of what is sent to the owner for it, all
``taken``     it is the new worker's from now on; what has come to the owner for it since is
              passed on, and so is what will come. Or ``not_taken``: it is lost as before
============  ===================================================================================

The new worker may end before it has written down that it has the client. So the former owner
asks a little later, ``has``; when nobody has the client, it tells of it.

A client whose session id names another worker than the one that has it is a *guest* there.
"""

from __future__ import annotations

import json
import logging
import time
from collections import OrderedDict
from functools import partial
from typing import (
    Any,
    Awaitable,
    Callable,
    ClassVar,
    Collection,
    FrozenSet,
    Iterable,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)

from socketio import packet as sio_packet

from ..common.blocking import settle
from ..common.ids import new_id
from ..common.limits import (
    CLIENT_ARRIVED,
    CLIENTS_ASKED,
    CLIENTS_MOVED,
    JOURNALS_KEPT,
    RECOVERY_HANDS,
    RECOVERY_HOPS,
    RECOVERY_MARKS,
    RECOVERY_SLICE,
    RECOVERY_WAIT,
)
from ..common.reasons import INCOMPLETE, NO_OWNER, NOT_SAVED, UNKNOWN_PID, is_of_recovery
from ..common.request import tag_of
from ..relay.journal_format import Heard
from ..relay.journal_reader import JournalReader
from ..relay.message import EncodedPacket, RelayMessage
from . import admin, offsets, sessions
from .asking import Asking
from .early import Early
from .histories import Stay
from .keeping import Keeping
from .lost import Client, Lost, Moved, decode, encode
from .missed import Journal, Missed, NotRecovered, to_it_alone
from .offsets import Asked
from .offsets import read_connect as read_connect
from .rooms import IndexedManager, Room, is_sid, tags_of
from .scope import Scope
from .takeover import Handler

logger = logging.getLogger("supervisor_sio")

#: Encoded packets, each with its attachments.
Packets = Sequence[Sequence[EncodedPacket]]
Said = Tuple[dict[str, Any], Packets]
#: Asks the worker that has the clients of a tag; it never raises.
Ask = Callable[[str, dict[str, Any], Packets], Awaitable[Said]]

#: Of a client whose connection is open when it comes back: it knew first that it is of no use.
_TRANSPORT_CLOSE = "transport close"
#: Of one whose worker has died, as its handler of ``disconnect`` gets to know it.
_SERVER_ERROR = "server error"

#: Seconds between looks whether what is waited for has happened.
_LOOK = 0.01

#: Clients that are restored, or looked at, before others get a turn.
_AT_ONCE = 50

#: Instead of why its data cannot be kept, while a client comes from another worker.
_ARRIVING = "(it was about to come from another worker)"


class Recovery(Asking, Keeping):
    """The part of a manager to which clients come back."""

    # From the manager and its other parts.
    _apart: FrozenSet[str]
    _publish: Callable[[dict[str, Any]], Optional[Scope]]
    _is_ours: Callable[[str], bool]
    _outlet: Optional[sessions.Outlet]

    def __init__(self) -> None:
        Keeping.__init__(self)
        #: By namespace, what is called for each client that has come back.
        self._recovered: dict[str, Handler] = {}
        self.forget_moved()

    def forget_moved(self) -> None:
        #: How many have come back here.
        self.recovered = 0
        #: By sid, those that other workers have now.
        self._moved: OrderedDict[str, Moved] = OrderedDict()
        #: Those of whom these have yet to say that they have them.
        self._unconfirmed: dict[str, None] = {}
        #: By sid, those that have come lately, and until when others may ask about them.
        self._arrivals: OrderedDict[str, float] = OrderedDict()
        #: By tag, the journals of workers before this one, and until when they are of use.
        self._readers: OrderedDict[str, Tuple[JournalReader, float]] = OrderedDict()
        #: By the tag of a worker whose clients this one is about to have: those of all journals
        #: that have come with them.
        self._inheriting: dict[str, List[str]] = {}
        #: By sid, where clients were that are about to come back with a dead worker's.
        self._returning: dict[str, Moved] = {}
        #: Marks that have come, see :meth:`_on_mark`.
        self._marks: OrderedDict[int, None] = OrderedDict()

    # --- what an application calls -------------------------------------------------

    def on_recovery(
        self, handler: Optional[Handler] = None, namespace: Optional[str] = None
    ) -> Any:
        """Register a handler for clients that have come back to their session.

        Can be used as a decorator, with and without a ``namespace``. It is called once for each
        time that such a client comes back, before its next event, with its sid and the
        environment of its new handshake; ``connect`` and ``disconnect`` are not. What it raises
        is logged. Of an asyncio server it may be a coroutine function.
        """

        def register(handler: Handler) -> Handler:
            self._recovered[namespace or "/"] = handler
            return handler

        return register if handler is None else register(handler)

    # --- to the worker that the client comes to ------------------------------------------

    async def recover(
        self, eio_sid: str, environ: Any, namespace: str, asked: Asked, ask: Ask
    ) -> Optional[str]:
        """Let a client come back that says it was connected; called where handlers run.

        Its CONNECT is answered, it is sent what it has missed, and its handler is called.

        :param environ: of its handshake.
        :param ask: asks the worker that has the clients of a tag.
        :return: why it gets a new session, one of :mod:`.reasons`; ``None`` when it is back.
        """
        try:
            sid = await self._recover(eio_sid, namespace, asked, ask)
        except NotRecovered as error:
            return error.reason
        self.recovered += 1
        handler = self._recovered.get(namespace)
        if handler is not None:
            try:
                await settle(handler(sid, environ))
            except Exception:
                self._get_logger().exception("recovery handler error")
        return None

    async def _recover(self, eio_sid: str, namespace: str, asked: Asked, ask: Ask) -> str:
        pid = asked.pid
        if self._journal is None or not pid or self.sid_from_eio_sid(eio_sid, namespace):
            raise NotRecovered(UNKNOWN_PID)
        tag = tag_of(pid)
        question = {"do": "claim", "pid": pid, "namespace": namespace}
        was_here = False
        for _ in range(RECOVERY_HOPS):
            client = self._known.get(self._sid_of.get(pid, ""))
            if client is not None:
                return await self._recover_here(client, eio_sid, namespace, asked.offset)
            moved = None
            if self._is_ours(tag):  # of others, it has been somewhere else since
                moved = self._moved.get(self._sid_of.get(pid, ""))
                was_here = was_here or moved is not None
            answer, packets = ({"moved": moved.tag}, ()) if moved else await ask(tag, question, ())
            if not isinstance(answer.get("moved"), str):
                _check_answer(answer)
                client = _read_state(packets, eio_sid)
                moved = await self._recover_from(tag, client, namespace, asked, ask)
                if was_here and moved is not None:  # those who had it since pass nothing on
                    self._say_gone(client.sid, moved.tag)
                return client.sid
            tag = answer["moved"]
        raise NotRecovered(NO_OWNER)

    # From this process.

    async def _recover_here(
        self, client: Client, eio_sid: str, namespace: str, offset: Optional[str]
    ) -> str:
        if client.namespace != namespace or not client.capable:
            raise NotRecovered(UNKNOWN_PID)
        await self._wait_until(lambda: self._is_settled(client))
        missed = self._missed(client, offset)
        while not missed.read(RECOVERY_SLICE):
            await self._sleep(0)
        old = await self._run_in_loop(partial(self._bring_back, client, eio_sid, missed))
        if old and self._outlet is not None:
            self._outlet.close_connection(old)
        return client.sid

    def _is_settled(self, client: Client) -> bool:
        """Not while it is not known whether this process has adopted it."""
        return client.stay.heard_as not in self._expected

    def _missed(
        self, client: Client, offset: Optional[str], heard: Optional[Heard] = None
    ) -> Missed:
        lost = time.monotonic() if client.lost is None else client.lost.since
        return Missed(client, offset, self._journal_of, lost - self._margin, heard)

    def _journal_of(self, tag: str) -> Optional[Journal]:
        if tag == self.host_id:
            return self._journal
        found = self._readers.get(tag)
        return None if found is None else found[0]

    def _bring_back(self, client: Client, eio_sid: str, missed: Missed) -> str:
        """Connect it, in the loop.

        :return: its old connection, which is to be closed, if that is open.
        """
        sid, namespace = client.sid, client.namespace
        left: Optional[List[Callable[[], None]]] = []
        with self._tables:
            self._check_present(client)
            if self.sid_from_eio_sid(eio_sid, namespace) is not None:
                raise NotRecovered(UNKNOWN_PID)
            missed.read()
            old = ""
            if client.lost is None:
                old = client.eio_sid
                left = self._lose(client, _TRANSPORT_CLOSE)
            if left is None or client.not_saved:
                raise NotRecovered(NOT_SAVED)
            rooms = self.get_rooms(sid, namespace)
            client.arriving = []  # these are no changes
            self._take_out(sid, namespace)
            self._take_in(sid, eio_sid, namespace, rooms)
            client.arriving = None
            client.eio_sid, client.lost, client.fetched = eio_sid, None, None
            self._times.discard(sid)
            self._give_session(client)
            self._welcome(client)
            if client.before:  # journals that others may not have
                assert self._journal is not None
                stay = client.stay
                client.base, client.before = missed.offset, ()
                client.stay = Stay(self.host_id, self._journal.last, stay.rooms, stay.heard_as)
                # Until all of it is written, who goes on here would send some of it twice.
                client.not_saved = _ARRIVING
                self._save(client)
                for one in missed.events:
                    self._send_alone(client, one.packets)
                client.not_saved = ""
            else:
                for one in missed.events:
                    packets = offsets.add(one.packets, one.offset)
                    self._send_later((eio_sid,), packets)
            self._save(client)
        self._send_all()
        for no_answer in left:
            no_answer()
        return old

    def _check_present(self, client: Client) -> None:
        """:raises NotRecovered: when it has left."""
        if self._known.get(client.sid) is not client or not self.is_connected(
            client.sid, client.namespace
        ):
            raise NotRecovered(UNKNOWN_PID)

    def _welcome(self, client: Client) -> None:
        """The answer to its CONNECT."""
        data: Any = {"sid": client.sid, "pid": client.pid}
        self._send_later(
            (client.eio_sid,), self._encode(sio_packet.CONNECT, client.namespace, data)
        )

    def _give_session(self, client: Client) -> None:
        """Its new connection has what the application has stored for it."""
        try:
            session = self._session(client.sid, client.namespace)
        except (KeyError, AttributeError, TypeError):
            return  # it is gone again
        session.clear()
        session.update(client.stored())

    # From another one.

    async def _recover_from(
        self,
        tag: str,
        client: Client,
        namespace: str,
        asked: Asked,
        ask: Ask,
    ) -> Optional[Moved]:
        """:return: to whom it went, if it has been here before."""
        question = {"pid": asked.pid, "namespace": namespace}
        if client.pid != asked.pid or client.namespace != namespace:
            raise NotRecovered(UNKNOWN_PID)
        mark = next(self._requests)
        await self._wait_until(lambda: tag_of(client.sid) not in self._apart)
        heard: Heard
        moved: Optional[Moved]
        heard, moved = await self._run_in_loop(partial(self._expect_client, client, mark))
        arrived = False
        try:
            fetch = {**question, "do": "fetch", "offset": asked.offset, "mark": mark}
            answer, missed = await ask(tag, fetch, [[json.dumps(heard.to_json())]])
            _check_answer(answer)
            taken = {**question, "do": "taken", "tag": self.host_id}
            answer, packets = await ask(tag, taken, ())
            _check_answer(answer)
            last = _read_state(packets, client.eio_sid)
            await self._run_in_loop(partial(self._arrive, client, last, missed, asked.offset))
            arrived = True
        finally:
            if not arrived:
                self._do_not_expect(client, moved)
                await ask(tag, {**question, "do": "not_taken"}, ())
        return moved

    def _expect_client(self, client: Client, mark: int) -> Tuple[Heard, Optional[Moved]]:
        """Put it into the tables; what comes for it is held. In the loop.

        :return: how far the others were heard by then; and where it was, if its home is here.
        """
        assert self._journal is not None
        sid, namespace = client.sid, client.namespace
        rooms = [sid, *client.stay.rooms]
        with self._tables:
            # Behind all that this process has sent to it so far.
            self._publish({"method": "mark", "request": mark, "sid": sid, "namespace": namespace})
            try:
                self._take_in(sid, client.eio_sid, namespace, rooms)
            except ValueError:
                raise NotRecovered(UNKNOWN_PID) from None
            if not self._is_ours(tag_of(sid)):
                self._guests[sid] = self.host_id
            moved = self._moved.pop(sid, None)
            client.arriving = []
            self._known[sid] = client
            self._early[sid] = Early(None)
            return self._journal.position(), moved

    def _do_not_expect(self, client: Client, moved: Optional[Moved]) -> None:
        with self._tables:
            self._early.pop(client.sid, None)
            self._take_out(client.sid, client.namespace)
            self._known.pop(client.sid, None)
            self._guests.pop(client.sid, None)
            if moved is not None:
                self._note_moved(moved)

    def _arrive(self, client: Client, last: Client, missed: Packets, offset: Optional[str]) -> None:
        """It is here. In the loop.

        :param last: as the worker knew it that had it until now.
        """
        assert self._journal is not None
        sid = client.sid
        with self._tables:
            early = self._early[sid]
            if not early.whole:
                raise NotRecovered(INCOMPLETE)
            del self._early[sid]
            heard_as = self._guests.get(sid) or tag_of(sid)
            rooms = self._settle_rooms(client, last)
            client.arriving = None
            client.stay = Stay(self.host_id, self._journal.last, rooms, heard_as)
            client.before, client.lost, client.base = (), None, offset
            client.data, client.connected_at = last.data, last.connected_at
            client.not_saved = _ARRIVING  # until all that it has missed is written
            self._sid_of[client.pid] = sid
            self._capable[sid] = client
            self._save(client)
            self._note_arrival(sid)
            client.not_saved = last.not_saved
            if client.connected_at is not None:
                admin.connected_at(self)[sid] = client.connected_at
            self._give_session(client)
            self._welcome(client)
            for packets in missed:
                self._send_alone(client, list(packets))
            self._send_early_ones(sid, client.eio_sid, early)
            self._save(client)
        self._send_all()

    def _settle_rooms(self, client: Client, last: Client) -> List[Any]:
        """Those that it was in, with what has changed here meanwhile."""
        sid, namespace = client.sid, client.namespace
        rooms = dict.fromkeys(last.stay.rooms)
        for room, entered in client.arriving or ():
            if entered:
                rooms[room] = None
            else:
                rooms.pop(room, None)
        here = set(self._rooms_of.get((namespace, sid), ()))
        for room in here - set(rooms):
            IndexedManager.basic_leave_room(self, sid, namespace, room)
        for room in set(rooms) - here:
            IndexedManager.basic_enter_room(self, sid, namespace, room)
        return list(rooms)

    # --- of the worker that has it -------------------------------------------------------

    async def answer_claim(self, question: Mapping[str, Any], packets: Packets = ()) -> Said:
        """Answer another worker, to which a client of this one has come; called where handlers
        run.

        :return: the answer: with a ``reason`` when the client gets a new session.
        """
        try:
            do = question["do"]
            if do == "has":
                return self._which_are_here(question["sids"], question["tags"]), ()
            pid, namespace = str(question["pid"]), str(question["namespace"])
            if do == "claim":
                return self._claim(pid, namespace)
            client = self._claimed(pid, namespace)
            if do == "fetch":
                heard = Heard.from_json(json.loads(packets[0][0]))
                offset, mark = question["offset"], question["mark"]
                return {}, await self._fetch(client, offset, heard, mark)
            if do == "taken":
                call = partial(self._hand_over, client, str(question["tag"]))
                return {}, [[await self._run_in_loop(call)]]
            client.fetched = None
            return {}, ()
        except NotRecovered as error:
            return {"reason": error.reason}, ()
        except (LookupError, TypeError, ValueError) as error:
            logger.error("a question about a client is not understood: %r", error)
            return {"reason": INCOMPLETE}, ()

    def _claim(self, pid: str, namespace: str) -> Said:
        old = ""
        left: Optional[List[Callable[[], None]]] = []
        with self._tables:
            moved = self._moved.get(self._sid_of.get(pid, ""))
            if moved is not None and moved.namespace == namespace:
                return {"moved": moved.tag}, ()
            client = self._claimed(pid, namespace)
            if client.lost is None:
                old = client.eio_sid
                left = self._lose(client, _TRANSPORT_CLOSE)
            if left is None or client.not_saved:
                raise NotRecovered(NOT_SAVED)
            state = encode(client.save()).decode()
        if old and self._outlet is not None:
            self._outlet.close_connection(old)
        for no_answer in left:
            no_answer()
        return {}, [[state]]

    def _claimed(self, pid: str, namespace: str) -> Client:
        client = self._known.get(self._sid_of.get(pid, ""))
        if client is None or client.namespace != namespace or not client.capable:
            raise NotRecovered(UNKNOWN_PID)
        self._check_present(client)
        return client

    async def _fetch(
        self, client: Client, offset: Optional[str], heard: Heard, mark: int
    ) -> Packets:
        missed = self._missed(client, offset, heard)
        until = time.monotonic() + RECOVERY_WAIT
        while not missed.read(RECOVERY_SLICE) or not self._has_heard(client, heard, mark):
            if time.monotonic() > until:
                raise NotRecovered(INCOMPLETE)
            await self._sleep(_LOOK if mark not in self._marks else 0)
        await self._run_in_loop(partial(self._fetched, client, missed))
        return [one.packets for one in missed.events]

    def _has_heard(self, client: Client, heard: Heard, mark: int) -> bool:
        """Whether this process has heard all that the client does not get there."""
        journal = self._journal
        if journal is None or mark not in self._marks or not self._is_settled(client):
            return False
        with self._tables:
            own = heard.numbers.get(self.host_id, 0)
            if any(number <= own for number in self._unwritten):
                return False
            return journal.reaches(heard, client.stay.heard_as)

    def _fetched(self, client: Client, missed: Missed) -> None:
        assert self._journal is not None
        with self._tables:
            self._check_present(client)
            missed.read()
            client.fetched = self._journal.last, time.monotonic() + RECOVERY_HANDS

    def _hand_over(self, client: Client, tag: str) -> str:
        """It is another worker's. In the loop.

        :return: its state.
        """
        assert self._journal is not None
        sid, pid = client.sid, client.pid
        with self._tables:
            self._check_present(client)
            if client.fetched is None or client.fetched[1] < time.monotonic():
                raise NotRecovered(NO_OWNER)
            late = to_it_alone(client, client.fetched[0], self._journal)
            state = encode(client.save()).decode()
            self._remove(client)
            heard_as = client.stay.heard_as
            self._note_moved(Moved(sid, client.namespace, pid, tag, heard_as, state))
            for packets in late:
                fields = {
                    "method": "emit",
                    "namespace": client.namespace,
                    "room": sid,
                    "packet": self._packet_format(),
                }
                self._send_to([tag], fields, packets)
            return state

    def _remove(self, client: Client) -> None:
        """Take it out of all tables; no handler is called."""
        self._forget(client)
        self._take_out(client.sid, client.namespace)
        admin.connected_at(self).pop(client.sid, None)

    def _note_moved(self, moved: Moved) -> None:
        self._moved[moved.sid] = moved
        if moved.state:
            self._unconfirmed[moved.sid] = None
        self._sid_of[moved.pid] = moved.sid
        if self._journal is not None:
            self._journal.save(moved.pid, encode(moved.save()))
        while len(self._moved) > CLIENTS_MOVED:
            self._forget_moved(next(iter(self._moved)))

    def _forget_moved(self, sid: str) -> Optional[Moved]:
        moved = self._moved.pop(sid, None)
        self._unconfirmed.pop(sid, None)
        if moved is not None and sid not in self._known:
            self._sid_of.pop(moved.pid, None)
            if self._journal is not None:
                self._journal.remove(moved.pid)
        return moved

    # --- whether those to whom clients have gone have them ----------------------------------

    def _note_arrival(self, sid: str) -> None:
        """It was here, should somebody ask when it has left again; with ``_tables``."""
        assert self._journal is not None
        self._arrivals[sid] = time.monotonic() + CLIENT_ARRIVED
        self._journal.save(_arrival_of(sid), encode({"arrived": sid}))

    def _drop_arrivals(self, now: float) -> None:
        while self._arrivals and next(iter(self._arrivals.values())) < now:
            sid, _ = self._arrivals.popitem(last=False)
            if self._journal is not None:
                self._journal.remove(_arrival_of(sid))

    def _which_are_here(self, sids: Iterable[str], tags: Collection[str]) -> dict[str, Any]:
        """The answer to ``has``; those who are about to come are in neither list.

        :param tags: of who asks.
        """
        if self._expected:
            return {"reason": NO_OWNER}  # whether their journal is this process's shows soon
        has: List[str] = []
        gone: List[str] = []
        with self._tables:
            for sid in sids:
                client, moved = self._known.get(sid), self._moved.get(sid)
                if client is not None and client.arriving is not None:
                    continue
                is_there = client is not None or sid in self._arrivals
                is_there = is_there or (moved is not None and moved.tag not in tags)
                (has if is_there else gone).append(sid)
        return {"has": has, "gone": gone}

    @property
    def unconfirmed(self) -> int:
        """Clients that have gone to others, who have yet to say that they have them."""
        return len(self._unconfirmed)

    async def confirm(self, ask: Ask) -> None:
        """Ask whether those to whom clients have gone have them; called where handlers run.

        Clients that nobody has are lost here, and over.
        """
        asked: dict[str, List[str]] = {}
        with self._tables:
            for sid in list(self._unconfirmed):
                moved = self._moved.get(sid)
                if moved is None:
                    del self._unconfirmed[sid]  # it is here again
                elif moved.heard_as not in self._expected:
                    asked.setdefault(moved.tag, []).append(sid)
        for tag, sids in asked.items():
            tags = [self.host_id, *self._adopted]
            if tag in tags:
                answer = self._which_are_here(sids[:CLIENTS_ASKED], tags)
            else:
                question = {"do": "has", "sids": sids[:CLIENTS_ASKED], "tags": tags}
                answer, _ = await ask(tag, question, ())
            if answer.get("reason") == UNKNOWN_PID:  # nobody has anything of that worker
                answer = {"gone": sids[:CLIENTS_ASKED]}
            with self._tables:
                for sid in answer.get("has", ()):
                    self._confirm(sid, tag)
                for sid in answer.get("gone", ()):
                    self._take_back(sid, tag)

    def _confirm(self, sid: str, tag: str) -> None:
        moved = self._moved.get(sid)
        if moved is not None and moved.tag == tag and self._unconfirmed.pop(sid, 0) is None:
            self._note_moved(moved._replace(state=""))

    def _take_back(self, sid: str, tag: str) -> None:
        """Nobody has written down that it came; it may have missed something since."""
        moved = self._moved.get(sid)
        if moved is None or moved.tag != tag or sid not in self._unconfirmed:
            return
        client = Client.restored(decode(moved.state.encode()), f"lost.{new_id()}")
        self._forget_moved(sid)
        client.capable = False
        client.lost = client.lost or Lost(time.monotonic(), _SERVER_ERROR)
        self._take_in(sid, client.eio_sid, client.namespace, [sid, *client.stay.rooms])
        self._add_moved_here(client)
        self._times.add(sid, time.monotonic())

    # --- their ends ------------------------------------------------------------------------

    def _ended(self, client: Client) -> None:
        """It has left for good; with ``_tables``."""
        guest = client.sid in self._guests
        self._forget(client)
        if guest:
            self._say_gone(client.sid, tag_of(client.sid))

    def _say_gone(self, sid: str, tag: str) -> None:
        """Nothing needs to be passed on to a client any more by those who had it before."""
        if self._run_dir is not None:
            self._send_to([tag], {"method": "gone", "sid": sid, "worker": self.host_id})

    def expire(self, now: float) -> List[Tuple[str, str, str, str]]:
        """The clients that do not come back any more.

        :param now: by the host's monotonic clock; infinite for all that are lost.
        :return: Engine.IO sid, sid, namespace and reason of each, for its handler of
            ``disconnect``; :meth:`disconnect` is to be called then.
        """
        over = []
        with self._tables:
            for sid in list(self._times.pop_due(now)):
                client = self._known.get(sid)
                if client is None or client.lost is None:
                    continue
                later = 0.0
                if not self._is_settled(client):
                    later = time.monotonic() + 1
                elif client.fetched is not None:
                    later = client.fetched[1]
                if later > now:
                    self._times.add(sid, later)
                    continue
                over.append((client.eio_sid, sid, client.namespace, client.lost.reason))
            self._drop_arrivals(now)
            if self._journal is not None:
                self._journal.trim()
            for tag in [tag for tag, (_, until) in self._readers.items() if until < now]:
                del self._readers[tag]
                if self._journal is not None:
                    self._journal.remove(_heir_of(tag))
        return over

    # --- of workers that have died -----------------------------------------------------------

    async def inherit(
        self,
        journals: Sequence[Tuple[JournalReader, float]],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        """The clients of a worker that has died, or ended, may come back to this one.

        Between :meth:`expect` and :meth:`adopt`; :meth:`not_adopted` undoes it.

        :param journals: of that worker, and those that it was to inherit; and when each died, by
            the host's monotonic clock. The last one to die comes first.
        :param sleep: waits for so many seconds, as the worker does.
        """
        if self._journal is None or not journals:
            return
        with self._tables:
            for reader, died in journals:
                until = died + self.recovery + self._margin
                self._readers[reader.tag] = reader, until
            while len(self._readers) > JOURNALS_KEPT:
                self._readers.popitem(last=False)
            self._inheriting[journals[0][0].tag] = [reader.tag for reader, _ in journals]
        #: Of the journals whose clients were another heir's before.
        taken_over: set[str] = set()
        for reader, died in journals:
            if reader.tag in taken_over:
                continue
            try:
                for number, (_, state) in enumerate(reader.states()):
                    if number % _AT_ONCE == _AT_ONCE - 1:
                        await sleep(0)
                    saved = decode(state)
                    if "heir_of" in dict(saved.pairs()):
                        taken_over.add(saved.text("heir_of"))
                    elif "arrived" in dict(saved.pairs()):
                        with self._tables:
                            self._note_arrival(saved.text("arrived"))
                    else:
                        self._inherit_one(saved, reader, died)
            except ValueError as error:
                logger.error("not all clients of worker %s are known: %s", reader.tag, error)

    def _inherit_one(self, saved: Any, reader: JournalReader, died: float) -> None:
        """:raises ValueError: when it is not the state of a client."""
        assert self._journal is not None
        with self._tables:
            if "moved" in dict(saved.pairs()):
                moved = Moved.restored(saved)
                if self._sid_of.get(moved.pid) in self._known:
                    return
                since = self._moved.get(moved.sid)
                if since is None or since.tag == reader.tag:
                    self._note_moved(moved)
                return
            client = Client.restored(saved, f"lost.{new_id()}")
            if self._sid_of.get(client.pid) in self._known:
                return  # it has been here before
            if client.sid in self._moved:
                self._returning[client.sid] = self._moved.pop(client.sid)
            stay = client.stay
            stay.end, stay.ended = reader.last, died
            client.moves_to(self.host_id, self._journal.last)
            client.lost = client.lost or Lost(died, _SERVER_ERROR)
            rooms = [client.sid, *client.stay.rooms]
            self._take_in(client.sid, client.eio_sid, client.namespace, rooms)
            self._add_moved_here(client)
            self._times.add(client.sid, client.lost.since + self.recovery * client.capable)

    def _add_moved_here(self, client: Client) -> None:
        """It was with another worker; it is in the tables."""
        sid = client.sid
        if client.stay.heard_as != tag_of(sid):
            self._guests[sid] = client.stay.heard_as
        self._known[sid] = client
        self._sid_of[client.pid] = sid
        if client.capable:
            self._capable[sid] = client
        self._save(client)

    def _save_all_of(self, tags: Collection[str]) -> None:
        """They are this process's."""
        with self._tables:
            for client in self._known.values():
                if client.stay.heard_as in tags:
                    self._save(client)
                    self._returning.pop(client.sid, None)
            # Who inherits them next finds them here. Had this process died before, it would not.
            for tag in [tag for tag in self._inheriting if tag in tags]:
                for one in self._inheriting.pop(tag):
                    if self._journal is not None:
                        self._journal.save(_heir_of(one), encode({"heir_of": one}))

    def _not_inherited(self, tags: Collection[str]) -> None:
        """They are not."""
        with self._tables:
            for tag in tags:
                self._inheriting.pop(tag, None)
            for client in list(self._known.values()):
                if client.stay.heard_as in tags and client.lost is not None:
                    self._remove(client)
                    moved_to = self._returning.pop(client.sid, None)
                    if moved_to is not None:
                        self._note_moved(moved_to)
            for moved in list(self._moved.values()):
                if moved.heard_as in tags:
                    self._forget_moved(moved.sid)

    def _has_moved(self, tag: str) -> bool:
        return any(moved.heard_as == tag for moved in list(self._moved.values()))

    # --- clients that are passed on, see :mod:`.moving` ---------------------------------------

    def save_recovery(self, sid: str) -> Optional[dict[str, Any]]:
        """With ``_tables``."""
        client = self._known.get(sid)
        if client is None or self._journal is None:
            return None
        self._store(client)
        state = client.save()
        state["stay"]["end"], state["stay"]["ended"] = self._journal.last, time.monotonic()
        return state

    def restore_recovery(self, state: Any, eio_sid: str) -> None:
        """With ``_tables``. :raises ValueError: when it is not what :meth:`save_recovery` gives."""
        client = Client.restored(state, eio_sid)
        if client.stay.heard_as != tag_of(client.sid):
            self._guests[client.sid] = client.stay.heard_as
        if self._journal is None:
            return  # it does not come back to this one
        client.moves_to(self.host_id, self._journal.last)
        self._add_moved_here(client)

    def forget_recovery(self, sid: str) -> None:
        """With ``_tables``: another process has it."""
        client = self._known.get(sid)
        if client is not None:
            self._forget(client)
        self._guests.pop(sid, None)

    # --- messages for those who are with another worker ---------------------------------------

    def _tags_of(self, room: Room) -> set[Optional[str]]:
        """The workers that an emit to this room or these rooms concerns; ``{None}`` for all."""
        tags = tags_of(room)
        if None in tags or not (self._moved or self._guests):
            return tags
        rooms = room if isinstance(room, (list, tuple)) else (room,)
        return {self._place_of(str(sid)) for sid in rooms}

    def _place_of(self, sid: str) -> str:
        """The tag of who has a client, as far as this process knows."""
        guest = self._guests.get(sid)
        if guest is not None:
            return guest
        moved = self._moved.get(sid)
        return tag_of(sid) if moved is None else moved.tag

    def _passed_to(self, sid: str, stream: str) -> Optional[str]:
        """To whose clients a message for one is passed that has come to the clients of a tag."""
        moved = self._moved.get(sid)
        if moved is not None:
            return moved.tag
        guest = self._guests.get(sid)
        return guest if guest != stream and guest in self._apart else None

    def _names_of(self, tag: str, rooms: Iterable[str]) -> List[str]:
        """Those of these sids whose clients the worker with this tag has."""
        return [room for room in rooms if self._place_of(room) == tag]

    def _pass_on(self, message: RelayMessage) -> Optional[RelayMessage]:
        """Send what is for clients who have moved to where they are now.

        :param message: to this worker alone.
        :return: what is left of it, for clients of this one.
        """
        fields = message.fields
        name = "sid" if "sid" in fields else "room"
        named: Any = fields.get(name)
        sids: List[Any] = named if isinstance(named, list) else [named]
        if not all(map(is_sid, sids)) or message.stream is None:
            return message
        passed_to = {sid: self._passed_to(sid, message.stream) for sid in sids}
        if not any(passed_to.values()):
            return message
        volatile = fields["method"] == "volatile"
        scope = message.scope
        for tag in set(filter(None, passed_to.values())):
            theirs = [sid for sid in sids if passed_to[sid] == tag]
            if self._is_ours(tag):  # what this process sends reaches them directly
                passed_to.update(dict.fromkeys(theirs))
                scope = None
                continue
            if fields["method"] == "gone" and fields.get("worker") == tag:
                continue  # it says so
            passed = {**fields, name: theirs if isinstance(named, list) else named}
            passed.setdefault("reply_to", message.sender)
            self._send_to([tag], passed, message.packets, "a message", volatile)
        if fields["method"] == "gone":
            for sid in sids:
                self._forget_moved(sid)
        ours = [sid for sid in sids if passed_to[sid] is None]
        if not ours:
            return None
        left = RelayMessage(
            message.sender,
            message.sequence,
            {**fields, name: ours if isinstance(named, list) else named},
            message.packets,
            message.after,
            message.time,
        )
        left.scope, left.stream = scope, message.stream
        return left

    def _on_mark(self, message: RelayMessage) -> None:
        """All that its sender has sent to a client before this has come."""
        self._marks[message.fields["request"]] = None
        while len(self._marks) > RECOVERY_MARKS:
            self._marks.popitem(last=False)

    def _on_gone(self, message: RelayMessage) -> None:
        """A client that this one had before has left."""
        with self._tables:
            self._forget_moved(message.fields["sid"])

    # --- how it waits --------------------------------------------------------------------------

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        """:raises NotRecovered: when it takes too long."""
        until = time.monotonic() + RECOVERY_WAIT
        while not condition():
            if time.monotonic() > until:
                raise NotRecovered(NO_OWNER)
            await self._sleep(_LOOK)

    async def _run_in_loop(self, call: Callable[[], Any]) -> Any:
        """What it returns, called where messages of the relay come in: between two of them."""
        threads = None if self._outlet is None else self._outlet.threads
        if threads is None or threads.here:
            return call()
        done, results = self._create_event(), _Results()
        threads.run(0, results.take, call, done.set)
        await self._wait_for(done, RECOVERY_WAIT)
        if not results.give_up():
            await self._wait_for(done, RECOVERY_WAIT)  # it runs: no longer than that
        return results.get()

    HANDLERS: ClassVar[Mapping[str, Callable[[Any, RelayMessage], None]]] = {
        "mark": _on_mark,
        "gone": _on_gone,
    }


class _Results:
    """Of a call in another thread."""

    def __init__(self) -> None:
        #: Whoever takes it may call, or may say that nobody calls any more.
        self._turn = [None]
        self._result: Any = None
        self._error: Optional[BaseException] = NotRecovered(INCOMPLETE)

    def give_up(self) -> bool:
        """Whether it has not begun, and never will."""
        try:
            self._turn.pop()
        except IndexError:
            return False
        return True

    def take(self, call: Callable[[], Any], done: Callable[[], None]) -> None:
        if not self.give_up():
            return
        try:
            self._result, self._error = call(), None
        except BaseException as error:
            self._error = error
        done()

    def get(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._result


def _heir_of(tag: str) -> str:
    """Instead of a pid: that this process has the clients of a journal."""
    return f"heir of {tag}"


def _arrival_of(sid: str) -> str:
    """Likewise: that a client has come to this process from another one."""
    return f"arrived {sid}"


def _check_answer(answer: Mapping[str, Any]) -> None:
    """:raises NotRecovered: when it has a reason."""
    reason = answer.get("reason")
    if reason is not None:
        raise NotRecovered(reason if is_of_recovery(reason) else INCOMPLETE)


def _read_state(packets: Packets, eio_sid: str) -> Client:
    """:raises NotRecovered: when there is none."""
    try:
        state = packets[0][0]
        return Client.restored(decode(state.encode() if isinstance(state, str) else state), eio_sid)
    except (LookupError, ValueError):
        raise NotRecovered(INCOMPLETE) from None
