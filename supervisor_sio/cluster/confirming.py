"""Whether those to whom clients have gone have them.

The new worker of a client may end before it has written down that it has it. So the former one
asks a little later, ``has``; when nobody has the client, it tells of it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any, Collection, Iterable, List, Optional

from ..common.ids import new_id
from ..common.limits import CLIENT_ARRIVED, CLIENTS_ASKED
from ..common.reasons import NO_OWNER, UNKNOWN_PID
from .forwarding import Forwarding
from .lost import Client, Lost, decode, encode
from .recovery_base import SERVER_ERROR, Ask


class Confirming(Forwarding):
    """The part of a manager that asks, and answers, who has a client."""

    # From the manager and its other parts.
    _adopted: dict[str, Optional[int]]

    def forget_moved(self) -> None:
        super().forget_moved()
        #: By sid, those that have come lately, and until when others may ask about them.
        self._arrivals: OrderedDict[str, float] = OrderedDict()

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
        client.capable = False
        client.lost = client.lost or Lost(time.monotonic(), SERVER_ERROR)
        self._take_in(sid, client.eio_sid, client.namespace, [sid, *client.stay.rooms])
        self._add_moved_here(client)
        self._forget_moved(sid)  # after that: the journal has it all the time
        self._times.add(sid, time.monotonic())


def _arrival_of(sid: str) -> str:
    """Instead of a pid: that a client has come to this process from another one."""
    return f"arrived {sid}"
