"""Clients of a worker that has died: they come back to this one, or it tells of them."""

from __future__ import annotations

import logging
import time
from typing import Any, Awaitable, Callable, Collection, List, Sequence, Tuple

from ..common.ids import new_id
from ..common.limits import JOURNALS_KEPT, RECOVERY_SLICE
from ..relay.journal_reader import JournalReader
from .confirming import Confirming
from .lost import Client, Lost, Moved, decode, encode
from .recovery_base import SERVER_ERROR

logger = logging.getLogger("supervisor_sio")

#: Clients that are restored, or looked at, before others get a turn.
_AT_ONCE = 50


class Inheriting(Confirming):
    """The part of a manager that goes on from the journals of others."""

    # From another part.
    _do_not_expect: Callable[[Client], None]

    def forget_moved(self) -> None:
        super().forget_moved()
        #: By the tag of a worker whose clients this one is about to have: those of all journals
        #: that have come with them.
        self._inheriting: dict[str, List[str]] = {}

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
            errors: List[ValueError] = []
            try:
                for number, (_, state) in enumerate(reader.states()):
                    if number % _AT_ONCE == _AT_ONCE - 1:
                        await sleep(0)
                    try:
                        self._inherit_state(state, reader, died, taken_over)
                    except ValueError as error:  # the others are not to suffer
                        errors.append(error)
            except ValueError as error:
                errors.append(error)
            if errors:
                text = "not all clients of worker %s are known, last of %d: %s"
                logger.error(text, reader.tag, len(errors), errors[-1])

    def _inherit_state(
        self, state: bytes, reader: JournalReader, died: float, taken_over: set[str]
    ) -> None:
        """:raises ValueError: when it is not a state."""
        saved = decode(state)
        if "heir_of" in dict(saved.pairs()):
            taken_over.add(saved.text("heir_of"))
        elif "arrived" in dict(saved.pairs()):
            with self._tables:
                self._note_arrival(saved.text("arrived"))
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
                return  # it is here
            if known is not None:  # from the one that has died, which cannot hand it over any more
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
        """Write down who the clients are, for a moment: they are this process's.

        Before :meth:`adopt`, until this returns true, so that others get a turn. Until that they
        do not change here; who inherits them next may find some of them twice.

        :return: whether that is all of them.
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

    def _save_all_of(self, tags: Collection[str]) -> None:
        """They are this process's."""
        with self._tables:
            for tag in tags:
                for pid, state in self._unwritten_states.pop(tag, {}).items():
                    if self._journal is not None:
                        self._journal.save(pid, state)
            for sid in list(self._returning):
                client = self._known.get(sid)
                if client is None or (client.arriving is None and client.stay.heard_as in tags):
                    del self._returning[sid]
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
        """Those that are of no use any more; with ``_tables``."""
        for tag in [tag for tag, (_, until) in self._readers.items() if until < now]:
            del self._readers[tag]
            if self._journal is not None:
                self._journal.remove(_heir_of(tag))


def _heir_of(tag: str) -> str:
    """Instead of a pid: that this process has the clients of a journal."""
    return f"heir of {tag}"
