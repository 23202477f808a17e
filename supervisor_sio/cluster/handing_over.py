"""Hands a client of this worker over to another one, to which it has come back.

See :mod:`.recovery` for the steps, and :mod:`.claiming` for the new worker's side.
"""

from __future__ import annotations

import json
import logging
import time
from functools import partial
from typing import Any, Mapping, Optional

from ..common.limits import RECOVERY_HANDS, RECOVERY_WAIT
from ..common.reasons import IN_USE, INCOMPLETE, NO_OWNER, UNKNOWN_PID
from ..common.request import tag_of
from ..relay.journal_format import Heard
from .budget import Share
from .confirming import Confirming
from .lost import Client, Fetched, Moved, decode
from .missed import Missed, NotRecovered, OwnerGone, to_it_alone
from .recovery_base import LOOK, Packets, Said

logger = logging.getLogger("supervisor_sio")


class HandingOver(Confirming):
    """The part of a manager that hands its clients over to other workers."""

    async def answer_claim(self, question: Mapping[str, Any], packets: Packets = ()) -> Said:
        """Answer a worker to which a client of this one has come back; called where handlers run.

        :return: the answer; it has a ``reason`` if the client gets a new session.
        """
        try:
            do = question["do"]
            if do == "has":
                return self._which_are_here(dict(question["sids"]), question["tags"]), ()
            pid, namespace = str(question["pid"]), str(question["namespace"])
            if do == "claim":
                return await self._claim(pid, namespace)
            tag = str(question["tag"])
            said = self._handed_over(pid, namespace, tag) if do == "taken" else None
            if said is not None:
                return {}, said
            client = self._claimed(pid, namespace)
            if do == "fetch":
                heard = Heard.from_json(json.loads(packets[0][0]))
                return {}, await self._fetch(client, question["offset"], heard, tag)
            if do == "taken":
                return {}, await self._run_in_loop(partial(self._hand_over, client, tag))
            if client.fetched is not None and client.fetched.tag == tag:
                self._end(self._reading, client.fetched.share)
                client.fetched = None
            self._between.discard(client.sid)
            return {}, ()
        except NotRecovered as error:
            again = {"again": True} if isinstance(error, OwnerGone) else {}
            return {"reason": error.reason, **again}, ()
        except (LookupError, TypeError, ValueError) as error:
            logger.error("a malformed question about a client is refused: %r", error)
            return {"reason": INCOMPLETE}, ()

    async def _claim(self, pid: str, namespace: str) -> Said:
        """The answer to ``claim``: the client's state and this process's position, or the worker to
        which it has moved."""
        moved = self._moved.get(self._sid_of.get(pid, ""))
        if moved is not None and moved.namespace == namespace:
            self._check_moved(moved)
            return {"moved": moved.tag}, ()
        client = self._claimed(pid, namespace)
        old = await self._check_unused(client)
        with self._tables:
            client = self._claimed(pid, namespace)
            left = self._take_from(client, old)
            if left is None or client.cannot_come_back:
                raise NotRecovered(client.why_not_saved)
            assert self._journal is not None
            state = client.encode().decode()
            self._between.add(client.sid)
            heard = self._journal.position(client.stay.heard_as, tag_of(client.sid))
        if old and self._outlet is not None:
            self._outlet.close_connection(old)
        for no_answer in left:
            no_answer()
        return {}, [[state], [json.dumps(heard.to_json())]]

    def _claimed(self, pid: str, namespace: str) -> Client:
        """:raises NotRecovered: when this process does not have the client."""
        sid = self._sid_of.get(pid, "")
        client = self._known.get(sid)
        if client is None and sid in self._moved:
            raise NotRecovered(IN_USE)  # it has moved to another worker during the questions
        if client is not None and client.arriving is not None:
            raise NotRecovered(IN_USE)  # it arrives from another worker, on another connection
        if client is None and pid in self._gone:
            raise NotRecovered(self._gone[pid])
        if client is None or client.namespace != namespace or not client.capable:
            raise NotRecovered(UNKNOWN_PID)
        self._check_present(client)
        return client

    async def _fetch(
        self, client: Client, offset: Optional[str], heard: Heard, tag: str
    ) -> Packets:
        """The answer to ``fetch``.

        :param heard: the new worker's position when it began to hold messages for the client.
        :return: this process's position, and the missed events up to it.
        """
        if tag == self.host_id:
            raise NotRecovered(NO_OWNER)  # the asking process has inherited the client meanwhile
        until = time.monotonic() + RECOVERY_WAIT
        has_heard = partial(self._has_heard, client, heard)
        await self._wait_until(has_heard, until, INCOMPLETE)  # before any event is in memory
        missed, share = await self._read_missed(client, offset, until)
        try:
            fetch = partial(self._fetched, client, missed, tag, share)
            while True:
                await self._wait_until(has_heard, until, INCOMPLETE)
                fetched = await self._run_in_loop(fetch)
                if fetched is not None:
                    break
                if time.monotonic() > until:
                    raise NotRecovered(INCOMPLETE)
                await self._sleep(LOOK)
        except BaseException:
            self._end(self._reading, share)
            raise
        self._give(self._reading, share)
        return [[json.dumps(fetched.to_json())], *(one.packets for one in missed.events)]

    def _has_heard(self, client: Client, heard: Heard) -> bool:
        """Whether this process has received every message that the new worker does not hold."""
        journal = self._journal
        if journal is None or not self._is_settled(client):
            return False
        with self._tables:
            if not journal.reaches(heard, client.stay.heard_as, tag_of(client.sid)):
                return False
            return not self._lacks_own(client, heard)

    def _lacks_own(self, client: Client, heard: Heard) -> bool:
        """Whether an own message that the new worker does not hold has yet to be written."""
        home = tag_of(client.sid)
        return any(heard.has(self.host_id, *one, to=home) for one in self._unwritten)

    def _fetched(self, client: Client, missed: Missed, tag: str, share: Share) -> Optional[Heard]:
        """Read the last missed events. In the loop.

        :return: the position up to which they are read; ``None`` when an own message has yet to be
            written.
        """
        assert self._journal is not None
        with self._tables:
            self._check_present(client)
            if client.lost is None:
                raise NotRecovered(IN_USE)  # it has come back here meanwhile
            heard = self._journal.position(client.stay.heard_as, tag_of(client.sid))
            if self._lacks_own(client, heard):
                return None
            missed.read()
            self._reading.has_read(share, missed.size)
            until = time.monotonic() + RECOVERY_HANDS
            client.fetched = Fetched(self._journal.last, until, tag, share)
            return heard

    def _hand_over(self, client: Client, tag: str) -> Packets:
        """Give the client to the other worker. In the loop.

        :return: its state; and what was emitted to it since then without being published.
        """
        assert self._journal is not None
        sid, pid = client.sid, client.pid
        with self._tables:
            self._check_present(client)
            fetched = client.fetched
            if fetched is None and client.lost is not None:
                raise OwnerGone  # its events were fetched from a worker that has died since
            if fetched is None or fetched.tag != tag:
                raise NotRecovered(IN_USE)  # it has come back to a third worker
            if fetched.until < time.monotonic():
                raise NotRecovered(NO_OWNER)
            self._reading.end(fetched.share)
            late = to_it_alone(client, fetched.number, self._journal)
            state = client.encode().decode()
            self._remove(client)
            heard_as = client.stay.heard_as
            moved = Moved(sid, client.namespace, pid, tag, heard_as, state)
            self._note_moved(moved._replace(at=time.monotonic(), number=fetched.number))
            return [[state], *late]

    def _handed_over(self, pid: str, namespace: str, tag: str) -> Optional[Packets]:
        """The same answer for a client that the other worker has already: it asks again, as the
        owner or the router died before it had the answer.

        :raises NotRecovered: when the answer cannot be repeated.
        """
        with self._tables:
            moved = self._moved.get(self._sid_of.get(pid, ""))
            if moved is None:  # the client is about to come back here
                moved = next((one for one in self._returning.values() if one.pid == pid), None)
            if moved is None or not moved.state:
                return None
            if (moved.tag, moved.namespace) != (tag, namespace):
                return None
            client = Client.restored(decode(moved.state.encode()), "")
            journal = self._journal_of(client.stay.tag)
            if journal is None:
                raise NotRecovered(INCOMPLETE)
            return [[moved.state], *to_it_alone(client, moved.number, journal)]
