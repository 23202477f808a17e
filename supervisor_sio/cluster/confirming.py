"""Asks new workers of clients that have moved from here whether they have them.

A new worker may die before it has written down that it has the client. So the former owner asks a
little later, ``has``; if no worker has the client, the former owner calls its ``disconnect``
handler.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any, Collection, List, Mapping, Optional, Tuple

from ..common.ids import new_id
from ..common.limits import CLIENT_ARRIVED, CLIENTS_ASKED
from ..common.reasons import INCOMPLETE, NO_OWNER, UNKNOWN_PID
from .forwarding import Forwarding
from .lost import Client, Lost, Moved, decode, encode
from .missed import NotRecovered
from .recovery_base import SERVER_ERROR, Ask

#: In place of an arrival of a client that has not arrived.
_NEVER = (-1.0, -1.0)


class Confirming(Forwarding):
    """The part of a manager that asks, and answers, whether a worker has a client."""

    # From the manager and its other parts.
    _adopted: dict[str, Optional[int]]

    def forget_moved(self) -> None:
        super().forget_moved()
        #: By sid: clients that have arrived lately, when, and until when others may ask about them.
        self._arrivals: OrderedDict[str, Tuple[float, float]] = OrderedDict()

    def _note_arrival(self, sid: str, at: float) -> None:
        """Note that a client was here, in case a question comes after it has left; with
        ``_tables``.

        :param at: monotonic time when it arrived.
        """
        assert self._journal is not None
        self._arrivals[sid] = at, time.monotonic() + CLIENT_ARRIVED
        self._journal.save(_arrival_of(sid), encode({"arrived": sid, "at": at}))

    def _drop_arrivals(self, now: float) -> None:
        while self._arrivals and next(iter(self._arrivals.values()))[1] < now:
            sid, _ = self._arrivals.popitem(last=False)
            if self._journal is not None:
                self._journal.remove(_arrival_of(sid))

    def _which_are_here(self, sids: Mapping[str, float], tags: Collection[str]) -> dict[str, Any]:
        """The answer to ``has``. Clients that are about to arrive are in neither list.

        :param sids: each with the monotonic time when the asking process gave the client away: an
            arrival here, or a move to another worker, before that time proves nothing.
        :param tags: of the asking process.
        """
        if self._expected:
            return {"reason": NO_OWNER}  # it is not certain yet which clients it inherits
        has: List[str] = []
        gone: List[str] = []
        with self._tables:
            for sid, since in sids.items():
                client, moved = self._known.get(sid), self._moved.get(sid)
                if client is not None and client.arriving is not None:
                    continue
                is_there = client is not None or self._arrivals.get(sid, _NEVER)[0] >= since
                if moved is not None and moved.tag not in tags:
                    is_there = is_there or moved.at >= since
                (has if is_there else gone).append(sid)
        return {"has": has, "gone": gone}

    @property
    def unconfirmed(self) -> int:
        """Number of clients that have moved from here and are not confirmed yet."""
        return len(self._unconfirmed)

    async def confirm(self, ask: Ask) -> None:
        """Ask the new workers of clients whether they have them; called where handlers run.

        Clients that no worker has are lost here, and expire at once.
        """
        asked: dict[str, dict[str, float]] = {}
        with self._tables:
            for sid in list(self._unconfirmed):
                moved = self._moved.get(sid)
                if moved is None:
                    del self._unconfirmed[sid]  # the client is back here
                elif moved.heard_as not in self._expected:
                    sids = asked.setdefault(moved.tag, {})
                    if len(sids) < CLIENTS_ASKED:
                        sids[sid] = moved.at
        for tag, sids in asked.items():
            tags = [self.host_id, *self._adopted]
            if tag in tags:
                answer = self._which_are_here(sids, tags)
            else:
                answer, _ = await ask(tag, {"do": "has", "sids": sids, "tags": tags}, ())
            if answer.get("reason") == UNKNOWN_PID:  # no worker has inherited that one's clients
                answer = {"gone": list(sids)}
            with self._tables:
                for sid in answer.get("has", ()):
                    self._confirm(sid, tag)
                for sid in answer.get("gone", ()):
                    self._take_back(sid, tag)

    def _check_moved(self, moved: Optional[Moved]) -> None:
        """:raises NotRecovered: when the worker to which a client has moved died before it had the
        client, and this process has inherited what that one had.
        """
        if moved is not None and self._is_ours(moved.tag):
            raise NotRecovered(INCOMPLETE)

    def _confirm(self, sid: str, tag: str) -> None:
        moved = self._moved.get(sid)
        if moved is not None and moved.tag == tag and self._unconfirmed.pop(sid, 0) is None:
            self._note_moved(moved._replace(state=""))

    def _take_back(self, sid: str, tag: str) -> None:
        """No worker has written down that the client arrived: take it back, without recovery, as it
        may have missed events."""
        moved = self._moved.get(sid)
        if moved is None or moved.tag != tag or sid not in self._unconfirmed:
            return
        client = Client.restored(decode(moved.state.encode()), f"lost.{new_id()}")
        client.capable = False
        client.lost = client.lost or Lost(time.monotonic(), SERVER_ERROR)
        self._take_in(sid, client.eio_sid, client.namespace, [sid, *client.stay.rooms])
        self._add_moved_here(client)
        self._forget_moved(sid)  # only now: the journal must have the client all the time
        self._times.add(sid, time.monotonic())


def _arrival_of(sid: str) -> str:
    """The journal's key for the note that a client has arrived, in place of a pid."""
    return f"arrived {sid}"
