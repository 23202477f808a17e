"""Inherits the clients of a dead worker: they come back to this one, or expire here."""

from __future__ import annotations

import logging
import time
from typing import Any, Awaitable, Callable, Collection, List, Sequence, Tuple

from ..common.ids import new_id
from ..common.limits import JOURNALS_KEPT, RECOVERY_SLICE
from ..relay.journal_format import HEIR_OF
from ..relay.journal_reader import JournalReader
from .confirming import Confirming
from .lost import Client, Lost, Moved, decode, encode
from .recovery_base import SERVER_ERROR

logger = logging.getLogger("supervisor_sio")

#: Clients that are restored, or skipped, before others get a turn.
_AT_ONCE = 50


class Inheriting(Confirming):
    """The part of a manager that goes on from the journals of dead workers."""

    # From another part.
    _do_not_expect: Callable[[Client], None]

    def forget_moved(self) -> None:
        super().forget_moved()
        #: By the tag of a worker whose clients are about to be inherited: the tags of all journals
        #: that came with them.
        self._inheriting: dict[str, List[str]] = {}

    async def inherit(
        self,
        journals: Sequence[Tuple[JournalReader, float]],
        sleep: Callable[[float], Awaitable[None]],
        seconds: float = 0.0,
    ) -> None:
        """Restore the clients of a worker that has died, or ended, so that they may come back here.

        It is called between :meth:`expect` and :meth:`adopt`; :meth:`not_adopted` undoes it.

        :param journals: of that worker, and those that it was to inherit itself; and when each
            worker died, by the host's monotonic clock. The last one to die comes first.
        :param sleep: waits for so many seconds, as the worker does.
        :param seconds: how long after the death another heir may still get these journals, even if
            ``recovery`` is shorter here: so long the note must stay that the clients have moved.
        """
        if self._journal is None or not journals:
            return
        with self._tables:
            for reader, died in journals:
                until = died + max(self.recovery, seconds) + self._margin
                self._readers[reader.tag] = reader, until
            while len(self._readers) > JOURNALS_KEPT:
                self._readers.popitem(last=False)
            self._inheriting[journals[0][0].tag] = [reader.tag for reader, _ in journals]
        #: Tags of journals whose clients another heir had inherited already.
        taken_over: set[str] = set()
        for reader, died in journals:
            if reader.tag in taken_over:
                continue
            errors: List[ValueError] = []
            try:
                for number, (_, state) in enumerate(reader.states()):
                    if number % _AT_ONCE == _AT_ONCE - 1:
                        await sleep(0)
                    try:
                        self._inherit_state(state, reader, died, taken_over)
                    except ValueError as error:  # the other clients are restored
                        errors.append(error)
            except ValueError as error:
                errors.append(error)
            if errors:
                text = "not all clients of worker %s can be restored: %d errors, last: %s"
                logger.error(text, reader.tag, len(errors), errors[-1])

    def _inherit_state(
        self, state: bytes, reader: JournalReader, died: float, taken_over: set[str]
    ) -> None:
        """:raises ValueError: when it is not an entry of a journal."""
        saved = decode(state)
        if "heir_of" in dict(saved.pairs()):
            taken_over.add(saved.text("heir_of"))
        elif "arrived" in dict(saved.pairs()):
            with self._tables:
                self._note_arrival(saved.text("arrived"), saved.seconds("at"))
        else:
            self._inherit_one(saved, reader, died)

    def _inherit_one(self, saved: Any, reader: JournalReader, died: float) -> None:
        """:raises ValueError: when it is not the state of a client."""
        assert self._journal is not None
        with self._tables:
            if "moved" in dict(saved.pairs()):
                moved = Moved.restored(saved)
                known = self._known.get(moved.sid)
                if known is not None and known.arriving is None:
                    return
                since = self._moved.get(moved.sid) or self._returning.get(moved.sid)
                if since is not None and since.tag != reader.tag and since.at >= moved.at:
                    return
                if known is None:
                    self._note_moved(moved)
                else:  # it is about to come from there
                    self._returning[moved.sid] = moved
                return
            client = Client.restored(saved, f"lost.{new_id()}")
            known = self._known.get(client.sid)
            if known is not None and known.arriving is None:
                return  # this process has the client
            if known is not None:  # it was arriving from the dead worker, which cannot go on
                self._do_not_expect(known)
            if client.sid in self._moved:
                self._returning[client.sid] = self._moved.pop(client.sid)
            stay = client.stay
            stay.end, stay.ended = reader.last, died
            client.moves_to(self.host_id, self._journal.last)
            if client.lost is None:
                proven = died - self._margin
                if not client.behind and proven >= client.back:
                    client.known = proven
                client.lost = Lost(died, SERVER_ERROR)
            rooms = [client.sid, *client.stay.rooms]
            self._take_in(client.sid, client.eio_sid, client.namespace, rooms)
            self._add_moved_here(client)
            seconds = self.recovery * client.capable
            if client.capable and client.cannot_come_back:
                seconds = 0.0
                self._note_gone(client, client.why_not_saved)
            self._times.add(client.sid, client.lost.since + seconds)

    def write_states(self, tags: Collection[str]) -> bool:
        """Write the states of inherited clients to the journal, for a slice of time.

        It is called before :meth:`adopt`, until it returns true, so that others get a turn. The
        clients do not change meanwhile; the next heir may find some of them twice.

        :return: whether all states are written.
        """
        until = time.monotonic() + RECOVERY_SLICE
        for tag in tags:
            states = self._unwritten_states.get(tag, {})
            while states:
                with self._tables:
                    if self._journal is not None and states:
                        self._journal.save(*states.popitem())
                if time.monotonic() > until:
                    return False
        return True

    def _save_states_of(self, tags: Collection[str]) -> None:
        """The clients with these tags are this process's own now: save those not written yet."""
        with self._tables:
            for tag in tags:
                for pid, state in self._unwritten_states.pop(tag, {}).items():
                    if self._journal is not None:
                        self._journal.save(pid, state)
            for sid in list(self._returning):
                client = self._known.get(sid)
                if client is None or (client.arriving is None and client.stay.heard_as in tags):
                    del self._returning[sid]

    def _note_heir_of(self, tags: Collection[str]) -> None:
        """The next heir finds the clients with these tags in this journal, with their position: it
        must skip the inherited journals."""
        with self._tables:
            for tag in [tag for tag in self._inheriting if tag in tags]:
                for one in self._inheriting.pop(tag):
                    if self._journal is not None:
                        self._journal.save(_heir_of(one), encode({"heir_of": one}))

    def _not_inherited(self, tags: Collection[str]) -> None:
        """Remove the inherited clients with these tags: another process has them."""
        with self._tables:
            for tag in tags:
                self._inheriting.pop(tag, None)
            for client in list(self._known.values()):
                if client.stay.heard_as in tags and client.lost is not None:
                    self._remove(client)
                    moved_to = self._returning.pop(client.sid, None)
                    if moved_to is None:
                        self._unwrite(client.pid, client.stay.heard_as)
                    else:
                        self._note_moved(moved_to)
            for moved in list(self._moved.values()):
                if moved.heard_as in tags:
                    self._forget_moved(moved.sid)
            for moved in list(self._returning.values()):
                if moved.heard_as in tags:
                    del self._returning[moved.sid]
            for tag in tags:
                self._unwritten_states.pop(tag, None)

    def _drop_journals(self, now: float) -> None:
        """Drop inherited journals that have expired; with ``_tables``."""
        for tag in [tag for tag, (_, until) in self._readers.items() if until < now]:
            del self._readers[tag]
            if self._journal is not None:
                self._journal.remove(_heir_of(tag))


def _heir_of(tag: str) -> str:
    return f"{HEIR_OF}{tag}"
