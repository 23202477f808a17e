"""Adopts the sessions that a stopping worker has passed on.

An adoption may also contain, or only contain, the journals of a worker that has ended: this worker
becomes the owner of its lost clients, see :mod:`.recovery`.

The sessions are restored without sending anything to clients, and the router is told. When it
confirms the adoption, this worker owns them: it reads and writes their connections, their
``on_takeover`` handlers run, and then their held messages are handled, see :mod:`.hold`. Only then
does it receive messages of the relay for them: it must not confirm these earlier, because another
worker may still adopt the sessions instead, after the emitter has ended. A request for such a
session that arrives earlier on another connection is handed back to the router.

======================  =======================================================================
the router's message    what happens
======================  =======================================================================
``on_adopt``            the sessions are restored; the answer is ``adopted`` or ``not_adopted``
``on_place``            what was sent to the sessions since the offer
``on_go``               the sessions continue here; ``heard`` says that messages of the relay arrive
``on_discard``          another worker has the sessions, or none: they are dropped here
======================  =======================================================================
"""

from __future__ import annotations

import logging
import time
from collections import deque
from functools import partial
from typing import Any, Callable, Deque, NamedTuple, Optional

from ..cluster import moving
from ..common import memory_file
from ..common.channel import close_all
from ..common.limits import TAKEOVER_BATCH, TAKEOVER_HANDLERS, TAKEOVER_STATE, TAKEOVER_TAGS
from ..common.reasons import NOT_RESTORED
from ..common.request import tag_of
from ..common.takeover import FORMAT
from ..engine.engine import Engine
from ..engine.session import Session
from ..relay.journal_reader import JournalReader
from ..relay.position import Position
from . import batches
from .arriving import Adoption, Journal
from .life import close_session
from .link import Link
from .moved_sessions import Arrived
from .recovery import recoveries
from .runtime import Runtime
from .server import Server
from .takeover import Home, Turns, adopting, restore_here

logger = logging.getLogger("supervisor_sio.worker")

#: Seconds between checks whether adopted tags still have sessions.
_LOOK = 2.0

#: Seconds between checks whether pending adoptions have finished.
_WAIT = 0.005

_STOPS = "this worker stops"


class _Adopted(NamedTuple):
    """A restored session, with its server."""

    home: Home
    arrived: Arrived

    @property
    def session(self) -> Session:
        return self.arrived.session


class Arrival:
    """One adoption."""

    def __init__(self, runtime: Runtime, server: Server, adoption: Adoption) -> None:
        self.sessions: list[_Adopted] = []
        #: Whether the router has revoked the adoption.
        self.discarded = False
        self._runtime = runtime
        self._server = server
        self._adoption = adoption
        self._homes = {home.number: home for home in adopting(runtime)}
        #: The managers with the positions up to which the sessions have received messages; and
        #: functions that undo the managers' preparations.
        self._positions: list[tuple[Any, Position]] = []
        self._undo: list[Callable[[], None]] = []

    @property
    def id(self) -> int:
        return self._adoption.id

    @property
    def tags(self) -> list[str]:
        return self._adoption.tags

    async def restore(self) -> None:
        """Restore all sessions that can be restored.

        :raises ValueError: if the adoption as a whole fails; everything is dropped then.
        """
        try:
            if self._adoption.batches and self._adoption.format != FORMAT:
                raise ValueError(f"sessions of format {self._adoption.format}, not {FORMAT}")
            self._positions = [
                (self._manager(channel), Position.read(descriptor))
                for channel, descriptor in self._adoption.positions
            ]
            for manager, position in self._positions:
                manager.expect(position.tags)
                self._undo.append(partial(manager.not_adopted, position.tags))
            await self._inherit()
            turns = Turns(self._runtime)
            for _, count, descriptors in self._adoption.batches:
                await self._restore_batch(count, descriptors, turns)
            if self.discarded:
                raise ValueError("the router has revoked the adoption")
        except (ValueError, OSError) as error:
            self.discard()
            raise ValueError(str(error)) from None
        finally:
            # The descriptors of journals stay open: another worker may inherit them from this one.
            close_all([descriptor for _, descriptor in self._adoption.positions])
            for _, _, descriptors in self._adoption.batches:
                close_all(descriptors)

    def _manager(self, channel: str) -> Any:
        for home in self._homes.values():
            if home.manager.hears == channel:
                return home.manager
        raise ValueError(f"no Socket.IO server of the application is on channel {channel!r}")

    def place(self, channel: str, descriptor: int) -> None:
        """Begin in a channel of the relay where the router stopped.

        :raises ValueError: when that is not understood.
        """
        manager, position = self._manager(channel), Position.read(descriptor)
        self._positions = [one for one in self._positions if one[0] is not manager]
        self._positions.append((manager, position))

    async def _inherit(self) -> None:
        """Make the clients of the journals lost clients of this worker."""
        inherited: dict[str, list[tuple[JournalReader, float]]] = {}
        # The worker that died last had inherited the other journals: its state is the newest.
        for journal in sorted(self._adoption.journals.values(), key=_died, reverse=True):
            segments = {log: list(one.values()) for log, one in journal.logs.items()}
            try:
                reader = JournalReader(segments)
            except ValueError as error:
                text = "the journal of %s cannot be read: %s"
                self._runtime.log(logger, logging.ERROR, text, journal.source.tag, error)
                continue
            inherited.setdefault(journal.source.channel, []).append((reader, journal.died))
        seconds = max(
            (journal.seconds for journal in self._adoption.journals.values()), default=0.0
        )
        for channel, journals in inherited.items():
            await self._manager(channel).inherit(journals, self._runtime.sleep, seconds)

    async def _restore_batch(self, count: int, descriptors: list[int], turns: Turns) -> None:
        """:param descriptors: the descriptors of restored sessions are removed from it."""
        memory = descriptors[0]
        restored = 0
        try:
            values = batches.read(memory_file.read(memory, TAKEOVER_BATCH + TAKEOVER_STATE))
            for value in values:
                if self.discarded:
                    return
                moved = batches.restore(value)
                own = descriptors[1 : 1 + moved.descriptors]
                del descriptors[1 : 1 + moved.descriptors]
                self._restore_one(moved, own)
                restored += 1
                await turns.next()
        except ValueError as error:
            # After an error the remaining descriptors cannot be assigned to sessions.
            for _ in range(count - restored):
                self._runtime.count(NOT_RESTORED, f"a batch ({error})")

    def _restore_one(self, moved: batches.Moved, descriptors: list[int]) -> None:
        home = self._homes.get(moved.server)
        if home is None:
            close_all(descriptors)
            self._runtime.count(NOT_RESTORED, f"session {moved.sid} (no such Socket.IO server)")
            return
        arrived = restore_here(self._runtime, self._server, home, moved, descriptors)
        if arrived is not None:
            self.sessions.append(_Adopted(home, arrived))

    def write(self) -> bool:
        """Write states of the journals' clients to this worker's journal, for a limited time.

        :return: whether all of them are written.
        """
        return all(manager.write_states(position.tags) for manager, position in self._positions)

    def hear(self) -> None:
        """Start receiving messages of the relay for the sessions."""
        for manager, position in self._positions:
            manager.adopt(position)
        self._positions.clear()
        for recovery in recoveries(self._runtime):
            recovery.look()

    def keep_journals(self, link: Link) -> None:
        """Register the inherited journals with the router, like this worker's own."""
        for journal in self._adoption.journals.values():
            for log, segments in journal.logs.items():
                for number, descriptor in segments.items():
                    link.journals.add(journal.segment(log, number), descriptor)
        self._adoption.journals.clear()

    def discard(self) -> None:
        """Drop everything, without sending anything."""
        self.discarded = True
        for home, arrived in self.sessions:
            home.dispatcher.hold.moved(arrived.session)
            moving.remove_client(home.server, arrived.session.sid)
            arrived.discard()
        self.sessions.clear()
        for undo in self._undo:
            undo()
        self._undo.clear()
        for journal in self._adoption.journals.values():
            close_all(journal.descriptors)
        self._adoption.journals.clear()


class Adopter:
    """Handles the adoptions of a worker. Call all methods in the loop."""

    def __init__(self, runtime: Runtime, server: Server, link: Link) -> None:
        self._runtime = runtime
        self._server = server
        self._link = link
        #: How many sessions this worker has taken over.
        self.taken_over = 0
        #: By adopted tag, the Engine.IO sessions that may still exist.
        self.tags: dict[str, list[tuple[Engine, str]]] = {}
        self._arrivals: dict[int, Arrival] = {}
        #: How many confirmed adoptions are being started.
        self._starting = 0
        self._looking = self._stopped = False
        #: Sessions whose on_takeover handler waits, and the number of running ones.
        self._waiting: Deque[_Adopted] = deque()
        self._running = 0

    async def stop(self, seconds: float) -> None:
        """Refuse new adoptions, and wait for the pending ones."""
        self._stopped = True
        deadline = time.monotonic() + seconds
        while (self._arrivals or self._starting) and time.monotonic() < deadline:
            await self._runtime.sleep(_WAIT)
        for id in list(self._arrivals):
            self.on_discard(id)
            self._link.not_adopted(id, _STOPS)
        self._waiting.clear()  # these handlers run in the worker that adopts the sessions next

    # --- messages from the router ---------------------------------------------------------

    def on_adopt(self, adoption: Adoption) -> None:
        """:meth:`.arriving.Adopter.on_adopt`"""
        if self._stopped:
            adoption.close()
            self._link.not_adopted(adoption.id, _STOPS)
            return
        arrival = Arrival(self._runtime, self._server, adoption)
        self._arrivals[adoption.id] = arrival
        self._set_coming()
        self._runtime.spawn(self._restore(adoption, arrival))

    async def _restore(self, adoption: Adoption, arrival: Arrival) -> None:
        try:
            await arrival.restore()
        except ValueError as error:
            if self._pop(adoption.id) is not None:
                self._link.not_adopted(adoption.id, str(error))
            self._look_soon()
        else:
            self._link.adopted(adoption.id, len(arrival.sessions))

    def on_place(self, id: int, name: str, descriptor: int) -> None:
        """:meth:`.arriving.Adopter.on_place`"""
        arrival = self._arrivals.get(id)
        if arrival is not None:  # else stop() has dropped it
            arrival.place(name, descriptor)

    def on_go(self, id: int) -> None:
        """:meth:`.arriving.Adopter.on_go`"""
        arrival = self._pop(id)
        if arrival is None:
            return  # stop() has dropped it
        self._starting += 1
        for tag in arrival.tags:
            self.tags.setdefault(tag, [])
        arrival.keep_journals(self._link)
        self._go(arrival)

    def _go(self, arrival: Arrival) -> None:
        if not arrival.write():
            self._runtime.call_soon(self._go, arrival)
            return
        arrival.hear()
        self._link.heard(arrival.id)
        self.taken_over += len(arrival.sessions)
        for one in arrival.sessions:
            sid = one.session.sid
            self.tags.setdefault(tag_of(sid), []).append((one.home.engine, sid))
        self._start(deque(arrival.sessions))

    def _start(self, sessions: Deque[_Adopted]) -> None:
        """Start the sessions. Called by the loop itself, because handlers start in here."""
        turns = Turns(self._runtime)
        while sessions:
            if turns.over:
                self._runtime.call_soon(self._start, sessions)
                return
            one = sessions.popleft()
            sid = one.session.sid
            if sid not in one.home.engine.sessions:
                continue  # the session has been passed on again
            try:
                one.arrived.start()
                self._begin(one)
            except Exception as error:  # do not stop the other sessions
                text = "cannot continue session %s"
                self._runtime.log(logger, logging.ERROR, text, sid, exc_info=error)
                close_session(one.home.engine, sid)
        self._starting -= 1
        self._bound_tags()
        self._look_soon()
        self._server.changed()

    def on_discard(self, id: int) -> None:
        """:meth:`.arriving.Adopter.on_discard`"""
        arrival = self._pop(id)
        if arrival is not None:
            arrival.discard()
            self._look_soon()

    def _pop(self, id: int) -> Optional[Arrival]:
        """Remove an adoption whose result is known."""
        arrival = self._arrivals.pop(id, None)
        self._set_coming()
        return arrival

    def _set_coming(self) -> None:
        arrivals = self._arrivals.values()
        self._server.coming = frozenset(tag for arrival in arrivals for tag in arrival.tags)

    # --- their handlers -------------------------------------------------------------------

    def _begin(self, one: _Adopted) -> None:
        if one.session.closed:
            return  # the session only waits for its last poll
        if moving.has_on_takeover(one.home.server):
            self._waiting.append(one)
            self._run_handlers()
        else:
            one.home.dispatcher.hold.release(one.session)

    def _run_handlers(self) -> None:
        turns = Turns(self._runtime)
        while self._waiting and self._running < TAKEOVER_HANDLERS:
            if turns.over:
                self._runtime.call_soon(self._run_handlers)
                return
            one = self._waiting.popleft()
            if one.session.closed:
                continue
            self._running += 1
            hold = one.home.dispatcher.hold
            if one.home.server.eio.run_alone(one.session, self._run_handler, one):
                hold.release(one.session)
            else:
                hold.release_when_done(one.session)

    async def _run_handler(self, one: _Adopted) -> None:
        try:
            await moving.run_on_takeover(one.home.server, one.session.sid)
        finally:
            one.home.server.eio.in_loop(self._handler_done)

    def _handler_done(self) -> None:
        self._running -= 1
        if self._waiting and self._running == TAKEOVER_HANDLERS - 1:
            self._runtime.call_soon(self._run_handlers)

    # --- their tags -----------------------------------------------------------------------

    def _bound_tags(self) -> None:
        """Close the sessions of the smallest tags, if there are more than ``TAKEOVER_TAGS``."""
        by_size = sorted(self.tags, key=lambda tag: len(self.tags[tag]))
        for tag in by_size[: max(0, len(by_size) + 1 - TAKEOVER_TAGS)]:
            for engine, sid in self.tags[tag]:
                self._runtime.count(NOT_RESTORED, f"a worker with {TAKEOVER_TAGS} tags")
                close_session(engine, sid)

    def _look_soon(self) -> None:
        if not self._looking:
            self._looking = True
            self._runtime.call_later(_LOOK, self._look)

    def _look(self) -> None:
        """Give up tags without sessions."""
        self._looking = False
        before = len(self.tags)
        if not self._arrivals and not self._starting:
            managers = [home.manager for home in adopting(self._runtime)]
            for tag in list(self.tags):
                # A client's sid has another tag than its session if it connected after the move.
                if _is_in_use(self.tags[tag]) or any(m.has_clients_of(tag) for m in managers):
                    continue
                del self.tags[tag]
                for manager in managers:
                    if manager.hears:
                        manager.give_up(tag)
        if len(self.tags) < before:
            self._link.tags(list(self.tags))
        if self.tags:
            self._look_soon()


def _died(journal: Journal) -> float:
    return journal.died


def _is_in_use(sids: list[tuple[Engine, str]]) -> bool:
    """Whether one of these sessions still exists; ended ones at the end of the list are removed."""
    while sids and sids[-1][1] not in sids[-1][0].sessions:
        sids.pop()
    return bool(sids)
