"""Passes the sessions of a stopping worker on to the router, and restores a session.

Steps: no handler starts any more (see :mod:`.hold`); running handlers finish; the managers stop
delivering messages of the relay, and save their positions in its streams; the router gets the
sessions, each removed from this process in one turn of the loop. Sessions that cannot be moved
stay, and are closed as in a worker without takeover.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from itertools import groupby
from typing import Any, AsyncIterator, Deque, NamedTuple, Optional

from ..cluster import moving, sessions
from ..common import memory_file
from ..common.channel import close_all
from ..common.not_movable import NotMovable
from ..common.reasons import HANDLER_RUNNING, MID_REQUEST, NO_ROUTER, NOT_RESTORED, PASS_TIMEOUT
from ..common.request import tag_of
from ..engine.engine import Engine
from ..engine.session import OPENING, Session
from .batches import Batch, Moved
from .dispatch import Dispatcher
from .link import Link
from .moved_sessions import Arrived, Leaving, restore
from .runtime import Runtime
from .server import Server

logger = logging.getLogger("supervisor_sio.worker")

#: Seconds between checks of a condition.
_LOOK = 0.005

#: Seconds after which a long operation lets the loop run.
SLICE = 0.01

#: Time reserved for passing sessions, which handlers may not use: most seconds, and most of the
#: whole time, as a fraction.
_MOST_FOR_PASSING, _PART_FOR_PASSING = 2.0, 0.5

#: Seconds to wait for a router's answer, and seconds to wait for a connection to its socket.
_ROUTER, _SOCKET = 2.0, 0.5

#: Seconds for the manager to finish its operations.
_SETTLING = 1.0

#: Reasons for which a session is tried again.
_PASSING_REASONS = (HANDLER_RUNNING, MID_REQUEST)


class Home(NamedTuple):
    """A Socket.IO server whose sessions move."""

    #: Its index, in the order in which the application created its servers.
    number: int
    server: Any
    dispatcher: Dispatcher

    @property
    def engine(self) -> Engine:
        engine: Engine = self.server.eio.engine
        return engine

    @property
    def manager(self) -> Any:
        return self.server.manager


def homes(runtime: Runtime) -> list[Home]:
    """The servers of this process whose sessions move; the sessions of other servers are closed."""
    return [home for home in adopting(runtime) if home.dispatcher.moves]


def adopting(runtime: Runtime) -> list[Home]:
    """The servers of this process that can get clients of another, by takeover or recovery."""
    dispatchers = [outlet for outlet in runtime.outlets if isinstance(outlet, Dispatcher)]
    found = []
    for index, server in enumerate(sessions.servers()):
        for dispatcher in dispatchers:
            if dispatcher.serves(server) and (dispatcher.moves or dispatcher.recovery is not None):
                found.append(Home(index, server, dispatcher))
    return found


class Turns:
    """Lets the loop run regularly during a long operation."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._began = time.monotonic()

    @property
    def over(self) -> bool:
        return time.monotonic() - self._began > SLICE

    async def next(self) -> bool:
        """Let the loop run if the turn is over; return whether it was."""
        over = self.over
        if over:
            await self._runtime.sleep(0)
            self._began = time.monotonic()
        return over


class Waiting(NamedTuple):
    """A session that is to move, and why it has not moved yet."""

    home: Home
    sid: str
    why: NotMovable = NotMovable(PASS_TIMEOUT)

    @property
    def session(self) -> Optional[Session]:
        """The session; ``None`` if it has ended."""
        return self.home.engine.sessions.get(self.sid)


class Departure:
    """Passes on the sessions of a stopping worker."""

    def __init__(self, runtime: Runtime, server: Server, link: Link) -> None:
        self._runtime = runtime
        self._server = server
        self._link = link
        #: Whether sessions may have left for which requests still arrive here.
        self.passing = False
        #: How many sessions the router has taken.
        self.passed_on = 0
        #: Sessions taken out that the router does not have; restored here if it takes no more.
        self._unsent: list[tuple[Home, Moved, list[int]]] = []
        #: The last of them, if it did not fit and begins the next batch.
        self._next: Optional[tuple[str, list[int]]] = None

    async def pass_on(self, seconds: float) -> None:
        """Pass on all sessions that can be moved. The others stay, with their messages held.

        :param seconds: the time to do so.
        """
        leaving = [home for home in homes(self._runtime) if home.engine.sessions]
        if not leaving or self._link.all_stop:
            return
        deadline = time.monotonic() + seconds
        for home in leaving:
            home.dispatcher.hold.keep_all()
        await self._ping(leaving)
        for_passing = min(_MOST_FOR_PASSING, seconds * _PART_FOR_PASSING)
        await self._wait_for_handlers(leaving, deadline - for_passing)
        has_router = await self._wait_for_router(deadline)
        if self._link.all_stop:
            return
        if not has_router:
            self._count_rest(leaving, NO_ROUTER)
            return
        hearing = [home for home in leaving if home.manager.hears]
        positions = [home.manager.detach() for home in hearing]
        files = [(one.channel, list(one.tags), one.write()) for one in positions]
        if not await self._link.pass_on(files, self._batches(leaving, deadline)):
            self._take_back()
            if not self.passed_on:
                for home, position in zip(hearing, positions):
                    home.manager.passed_nothing(position)
            if self._link.not_passed:
                self._count_rest(leaving, self._link.not_passed)

    async def _ping(self, leaving: list[Home]) -> None:
        """Ping all clients now: ``ping_interval`` plus the move would be too long for some."""
        turns = Turns(self._runtime)
        for one in _all_of(leaving):
            if one.session is not None:
                one.session.ping_early()
            await turns.next()

    async def _wait_for_handlers(self, leaving: list[Home], until: float) -> None:
        running = _all_of(leaving)
        while running:
            _, running = await self._divide(running)
            if not running or time.monotonic() > until or self._link.all_stop:
                return
            await self._runtime.sleep(_LOOK)

    async def _wait_for_router(self, deadline: float) -> bool:
        """Wait for a router, which may be restarting; return whether one is connected."""
        now = time.monotonic()
        deadline, last = min(deadline, now + _ROUTER), now + _SOCKET
        while not self._link.welcomed and not self._link.all_stop:
            now = time.monotonic()
            if now > (deadline if self._link.up else min(deadline, last)):
                return False
            await self._runtime.sleep(_LOOK)
        return True

    async def _divide(self, waiting: list[Waiting]) -> tuple[list[Waiting], list[Waiting]]:
        """The sessions without a running handler, and those with one."""
        ready: list[Waiting] = []
        later: list[Waiting] = []
        turns = Turns(self._runtime)
        for one in waiting:
            session = one.session
            if session is not None and not session.closed and _has_handler(one.home, session):
                later.append(one._replace(why=NotMovable(HANDLER_RUNNING)))
            elif session is not None:
                ready.append(one)
            await turns.next()
        return ready, later

    # --- the sessions -------------------------------------------------------------------

    async def _batches(
        self, leaving: list[Home], deadline: float
    ) -> AsyncIterator[tuple[str, int, list[int]]]:
        """Yield batches for :meth:`.Link.pass_on`, until all movable sessions have left."""
        self.passing = True
        self._server.unsettle()
        waiting = _all_of(leaving)
        while waiting and time.monotonic() < deadline:
            ready, later = await self._divide(waiting)
            # Then packets that handlers have sent in other threads are in the sessions' output.
            for home in leaving:
                await home.manager.wait_settled(_SETTLING, self._runtime.sleep)
            for tag, group in groupby(sorted(ready, key=_tag), key=_tag):
                queue = deque(group)
                while queue or self._next is not None:
                    batch = await self._next_batch(queue, later, deadline)
                    if batch:
                        yield tag, len(batch), [_write(batch), *batch.descriptors]
                        self._sent(batch)
            waiting = [one for one in later if one.why.reason in _PASSING_REASONS]
            self._count([one for one in later if one.why.reason not in _PASSING_REASONS])
            if waiting:
                await self._runtime.sleep(_LOOK)
        self._count(waiting)

    async def _next_batch(
        self, queue: Deque[Waiting], later: list[Waiting], deadline: float
    ) -> Batch:
        """Take sessions out for a batch.

        :param later: sessions that cannot be moved now are appended to it.
        """
        batch = Batch()
        if self._next is not None:
            batch.add(*self._next)
            self._next = None
        turns, leaving = Turns(self._runtime), Leaving(self._server)
        while queue:
            if time.monotonic() > deadline:
                later += queue
                queue.clear()
                break
            if await turns.next():
                leaving = Leaving(self._server)
            one = queue.popleft()
            session = one.session
            if session is None:
                continue  # the session has ended
            try:
                moved, descriptors = self._take_out(one.home, session, leaving)
            except NotMovable as why:
                later.append(one._replace(why=why))
                continue
            except Exception as error:  # do not stop the other sessions
                text = "cannot pass on session %s"
                self._runtime.log(logger, logging.ERROR, text, one.sid, exc_info=error)
                continue
            self._unsent.append((one.home, moved, descriptors))
            text = moved.as_text()
            if not batch.has_room(text, len(descriptors)):
                self._next = text, descriptors
                break
            batch.add(text, descriptors)
        return batch

    def _take_out(self, home: Home, session: Session, leaving: Leaving) -> tuple[Moved, list[int]]:
        """Remove a session from this process.

        :raises NotMovable: if it cannot be moved now; it is unchanged then.
        """
        sid, server, hold = session.sid, home.server, home.dispatcher.hold
        client = None
        if not session.closed:
            if _has_handler(home, session):
                raise NotMovable(HANDLER_RUNNING)
            leaving.check(home.engine, sid)
            client = moving.save_client(server, sid, session.data)
        taken = leaving.take_out(home.engine, sid)
        if client is not None:
            moving.remove_client(server, sid)
        held = hold.kept(session)
        hold.moved(session)
        moved = Moved(
            sid,
            home.number,
            list(home.engine.paths),
            taken.state,
            client,
            held,
            len(taken.descriptors),
        )
        return moved, taken.descriptors

    def _sent(self, batch: Batch) -> None:
        """The router has confirmed a batch."""
        self.passed_on += len(batch)
        del self._unsent[: len(batch)]

    def _count_rest(self, leaving: list[Home], reason: str) -> None:
        """Count all remaining sessions, which this worker will close."""
        for session in [session for home in leaving for session in home.engine.sessions.values()]:
            if not session.closed:
                self._runtime.count(reason, f"session {session.sid}")

    def _count(self, left: list[Waiting]) -> None:
        """Count sessions that this worker will close."""
        for one in left:
            detail = f" ({one.why.detail})" if one.why.detail else ""
            self._runtime.count(one.why.reason, f"session {one.sid}{detail}")

    def _take_back(self) -> None:
        """Restore the sessions that the router has not taken, to close them with their handlers."""
        unsent, self._unsent = self._unsent, []
        for home, moved, descriptors in unsent:
            arrived = restore_here(self._runtime, self._server, home, moved, descriptors)
            if arrived is not None:
                self._runtime.call_soon(arrived.start)


def _has_handler(home: Home, session: Session) -> bool:
    """Whether a handler of the application runs for the session."""
    if session.state is OPENING or home.dispatcher.is_running(session):
        return True
    return not moving.is_settled(home.server, session.sid)


def restore_here(
    runtime: Runtime, server: Server, home: Home, moved: Moved, descriptors: list[int]
) -> Optional[Arrived]:
    """Restore a session, which does nothing before it is started; ``None`` if that fails.

    :param descriptors: its connections, which are closed on failure.
    """
    try:
        return _restore(server, home, moved, descriptors)
    except ValueError as error:
        runtime.count(NOT_RESTORED, f"session {moved.sid} ({error})")
        return None


def _restore(server: Server, home: Home, moved: Moved, descriptors: list[int]) -> Arrived:
    for path in moved.paths:
        home.engine.add_path(path)
    try:
        arrived = restore(server, home.engine, moved.engine, descriptors)
    except ValueError:
        close_all(descriptors)
        raise
    try:
        if moved.client is not None:
            moving.restore_client(home.server, moved.sid, moved.client)
    except ValueError:
        arrived.discard()
        raise
    if moved.client is not None:
        home.dispatcher.has_come(arrived.session, bool(moved.client["namespaces"]))
        home.dispatcher.hold.keep(arrived.session, moved.held)
    return arrived


def _all_of(leaving: list[Home]) -> list[Waiting]:
    return [Waiting(home, sid) for home in leaving for sid in home.engine.sessions]


def _tag(one: Waiting) -> str:
    return tag_of(one.sid)


def _write(batch: Batch) -> int:
    return memory_file.write("sessions", batch.as_bytes())
