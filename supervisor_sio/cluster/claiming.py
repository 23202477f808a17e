"""Gets a client of another worker that has come back to this one.

See :mod:`.recovery` for the steps, and :mod:`.handing_over` for the owner's side.
"""

from __future__ import annotations

import json
import time
from functools import partial
from typing import Any, Awaitable, Callable, FrozenSet, List, Mapping, Optional, Tuple

from ..common.limits import RECOVERY_WAIT
from ..common.reasons import IN_USE, INCOMPLETE, NO_OWNER, UNKNOWN_PID, is_of_recovery
from ..common.request import tag_of
from ..relay.journal_format import Heard
from ..relay.publisher import Publisher
from . import admin
from .budget import Share
from .confirming import Confirming
from .early import Early
from .histories import Stay
from .lost import ARRIVING, Client, Moved, decode
from .missed import NotRecovered, OwnerGone, size_of
from .offsets import Asked
from .recovery_base import Ask, Packets, Results, Said
from .rooms import IndexedManager


class Claiming(Confirming):
    """The part of a manager that gets clients from their owners."""

    # From the manager and its other parts.
    _apart: FrozenSet[str]
    _join_relay: Callable[[], Publisher]
    _disconnect_here: Callable[[List[str], str], Awaitable[None]]

    async def _recover_from(
        self,
        tag: str,
        client: Client,
        namespace: str,
        asked: Asked,
        ask: Ask,
        there: Heard,
    ) -> Optional[Moved]:
        """Take the steps ``fetch`` and ``taken`` after a ``claim``.

        :param there: the owner's position.
        :return: the worker to which the client had moved from here, if it was here before.
        """
        question = {"pid": asked.pid, "namespace": namespace, "tag": self.host_id}
        if client.pid != asked.pid or client.namespace != namespace:
            raise NotRecovered(UNKNOWN_PID)
        home = tag_of(client.sid)
        await self._wait_until(lambda: home not in self._apart)
        heard: Heard
        moved: Optional[Moved]
        share: Optional[Share] = None
        heard, moved = await self._run_in_loop(partial(self._expect_client, client, there))
        arrived = False
        try:
            fetch = {**question, "do": "fetch", "offset": asked.offset}
            answer, missed = await ask(tag, fetch, [[json.dumps(heard.to_json())]])
            check_answer(answer)
            fetched, missed = read_heard(missed)
            until = time.monotonic() + RECOVERY_WAIT
            await self._wait_until(lambda: self._has_heard_all(client, fetched), until)
            # The owner reads nothing for other clients while this share is waited for.
            share = await self._get_room(self._arriving, until)
            with self._tables:
                self._arriving.has_read(share, sum(map(size_of, missed)))
            self._check_expected(client)
            # Between the owner's answer and the end of _arrive() no journal has the client as one
            # that can come back: so no thread has to wake up in between.
            results = Results()

            def arrive(said: Said) -> None:
                base = asked.offset
                results.take(partial(self._arrive_as, said, client, missed, fetched, base))

            answer, _ = await ask(tag, {**question, "do": "taken"}, (), arrive)
            if results.give_up():  # none has arrived
                check_answer(answer)
                raise NotRecovered(NO_OWNER)
            results.get()
            arrived = True
            self._give(self._arriving, share, client.eio_sid)
        finally:
            if not arrived:
                if share is not None:
                    self._end(self._arriving, share)
                self._do_not_expect(client)
                await ask(tag, {**question, "do": "not_taken"}, ())
        return moved

    def _expect_client(self, client: Client, there: Heard) -> Tuple[Heard, Optional[Moved]]:
        """Add the client to the tables, and hold what arrives for it. In the loop.

        :return: the present position here; and where the client was, if it had moved from here.
        """
        assert self._journal is not None and self._subscriber is not None
        sid, namespace = client.sid, client.namespace
        home = tag_of(sid)
        rooms = [sid, *client.stay.rooms]
        with self._tables:
            try:
                self._take_in(sid, client.eio_sid, namespace, rooms)
            except ValueError:
                raise NotRecovered(IN_USE) from None  # it is coming back on another connection too
            if not self._is_ours(home):
                self._guests[sid] = self.host_id
                self._subscriber.hear_for_guests(home, there.to_one)
            moved = self._moved.pop(sid, None)
            if moved is not None:
                self._returning[sid] = moved
            self._between.add(sid)
            client.arriving = []
            self._known[sid], self._sid_of[client.pid] = client, sid
            self._early[sid] = Early(None)
            heard = self._journal.position(self._guests.get(sid) or home, home)
            last, _ = self._join_relay().last([home])
            heard.to_one[self.host_id] = last.get(home, 0)
            return heard, moved

    def _check_expected(self, client: Client) -> Early:
        """The messages that have arrived for the client.

        :raises NotRecovered: when this process has inherited the client, so that the claim is void;
            or when more has arrived for it than is held.
        """
        with self._tables:
            if self._known.get(client.sid) is not client:
                raise NotRecovered(NO_OWNER)
            early = self._early[client.sid]
        if not early.whole:
            raise NotRecovered(INCOMPLETE)
        return early

    def _do_not_expect(self, client: Client) -> None:
        with self._tables:
            if self._known.get(client.sid) is not client:
                return
            self._early.pop(client.sid, None)
            self._take_out(client.sid, client.namespace)
            self._let_go(client)
            moved = self._returning.pop(client.sid, None)
            if moved is not None:
                self._note_moved(moved)
            left = self._awaited.left(client.sid)
        for no_answer in left:
            no_answer()

    def _has_heard_all(self, client: Client, fetched: Heard) -> bool:
        """Whether every message that was fetched for the client has arrived here."""
        assert self._journal is not None
        home = tag_of(client.sid)
        return self._journal.reaches(fetched, self._guests.get(client.sid) or home, home)

    def _arrive_as(
        self,
        said: Said,
        client: Client,
        missed: Packets,
        fetched: Heard,
        offset: Optional[str],
    ) -> None:
        """:param said: the owner's answer to ``taken``.
        :raises NotRecovered: when it does not give the client.
        """
        answer, packets = said
        check_answer(answer)
        last = read_state(packets, client.eio_sid)
        self._arrive(client, last, [*missed, *packets[1:]], fetched, offset)

    def _arrive(
        self,
        client: Client,
        last: Client,
        missed: Packets,
        fetched: Heard,
        offset: Optional[str],
    ) -> None:
        """Take the client over. In the loop.

        :param last: its last state at the owner.
        :param fetched: the owner's position when it read the missed events.
        """
        assert self._journal is not None
        sid = client.sid
        with self._tables:
            early = self._check_expected(client)
            del self._early[sid]
            self._returning.pop(sid, None)
            self._between.discard(sid)
            heard_as = self._guests.get(sid) or tag_of(sid)
            rooms = self._settle_rooms(client, last)
            client.arriving = None
            client.stay = Stay(self.host_id, self._journal.last, rooms, heard_as)
            client.before, client.lost, client.base = (), None, offset
            client.back = time.monotonic()
            self._see_whether_behind(client)
            client.data, client.connected_at = last.data, last.connected_at
            client.not_saved = ARRIVING  # until all missed events are written
            self._note_known(client)
            self._save(client)
            self._note_arrival(sid, client.back)
            client.not_saved = last.not_saved
            if client.connected_at is not None:
                admin.connected_at(self)[sid] = client.connected_at
            self._give_session(client)
            self._welcome(client)
            for packets in missed:
                self._send_alone(client, list(packets))
            early.drop(partial(fetched.has, to=tag_of(sid)))
            self._send_early_ones(sid, client.eio_sid, early)
            self._save(client)
        self._send_all()
        if early.ends:
            self._spawn(self._disconnect_here, [sid], client.namespace)

    def _settle_rooms(self, client: Client, last: Client) -> List[Any]:
        """Give the client its former rooms, with the changes made here meanwhile."""
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


def check_answer(answer: Mapping[str, Any]) -> None:
    """:raises NotRecovered: when the answer has a reason."""
    reason = answer.get("reason")
    if answer.get("again") is True:
        raise OwnerGone
    if reason is not None:
        raise NotRecovered(reason if is_of_recovery(reason) else INCOMPLETE)


def read_heard(packets: Packets) -> Tuple[Heard, Packets]:
    """The position in an answer of the owner; and the rest of the answer.

    :raises NotRecovered: when the answer is malformed.
    """
    try:
        return Heard.from_json(json.loads(packets[0][0])), packets[1:]
    except (LookupError, ValueError, RecursionError):
        raise NotRecovered(INCOMPLETE) from None


def read_state(packets: Packets, eio_sid: str) -> Client:
    """:raises NotRecovered: when there is no state in the answer."""
    try:
        state = packets[0][0]
        return Client.restored(decode(state.encode() if isinstance(state, str) else state), eio_sid)
    except (LookupError, ValueError):
        raise NotRecovered(INCOMPLETE) from None
