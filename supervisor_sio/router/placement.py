"""Place each connection at a worker, or let it wait for one.

When a connection waits:

========================================  =================================================
its request                               waits
========================================  =================================================
needs no session                          while no worker takes new sessions
opens a session                           likewise; and for up to ``spread_timeout`` while
                                          the ready workers have their share and others
                                          start, see :mod:`.spreading`
belongs to a session                      while its worker hangs or its channel is full;
                                          in the first seconds of a router also for a
                                          worker that has not connected yet
belongs to a session that is held         until a worker has adopted it, see :mod:`.held`
has not come yet (idle)                   as the first; idle connections are dropped first
                                          when others need room. The router reads the
                                          request when it comes, because it may be for a
                                          worker that takes no new sessions
========================================  =================================================

A connection waits for ``hold_timeout`` seconds, or while its session is held. It counts for
``max_pending``, and is dropped when its client closes it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Optional, Protocol

from ..common import reasons
from ..common.limits import PENDING_SHARE, REBALANCE_START
from ..common.request import HANDSHAKE, SESSION
from .connection import Connection
from .pool import Member, Pool
from .readable import Readable
from .shelf import Shelf
from .spreading import Spreading
from .throttle import Throttle
from .waiting import Waiting

logger = logging.getLogger("supervisor_sio.router")

#: Seconds after its start for which a router waits for workers of the router before it to connect,
#: before it treats their sessions as unknown.
REJOIN_TIME = 2.0

#: Seconds within which the clients of a stopped worker reconnect: socket.io-client waits for about
#: one, and for five after failed attempts.
_COME_BACK = 5.0

#: Seconds within which supervisord starts a worker again that it stops for a restart.
_RESTART = 2.0

#: Minimum seconds between two times that waiting connections are kept for the next router.
_KEEP_INTERVAL = 0.05

#: Minimum seconds between two checks for waiting connections whose client has closed them.
_LOOK = 0.1


class Entrance(Protocol):
    """Reads requests, and refuses connections; see :mod:`.entrance`."""

    def examine_again(self, connection: Connection) -> None: ...

    def refuse(self, connection: Connection, reason: str) -> None: ...

    def drop(self, connection: Connection, reason: str) -> None: ...


class Carrier(Protocol):
    """The channel to one worker."""

    def hand_over(self, connection: Connection) -> bool:
        """Hand a connection over; false if the worker is busy, or gone."""
        ...


class Placement:
    """Places connections on the workers of a pool.

    :param hold_timeout: seconds that a connection waits for a worker.
    :param spread_timeout: seconds that new sessions wait for starting workers.
    :param shelf: keeps waiting connections for the next router, in case this one dies.
    """

    def __init__(
        self,
        pool: Pool,
        hold_timeout: float,
        max_pending: int,
        shelf: Optional[Shelf] = None,
        spread_timeout: float = 0.0,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._pool = pool
        self._hold_timeout = hold_timeout
        self._max_pending = max_pending
        self._carriers: dict[str, Carrier] = {}
        self._shelf = shelf
        self._keep_soon = Throttle(self._loop, _KEEP_INTERVAL, self.keep)
        self.waiting = Waiting(max(1, max_pending // PENDING_SHARE), self._keep_soon)
        self._placing = False
        self._looked = -_LOOK
        self._closed = False
        self._told = False
        self._started = time.monotonic()
        self._spread_timeout = spread_timeout
        self._spreading = Spreading()
        self._spreading_ends: Optional[asyncio.TimerHandle] = None
        #: The name of the last stopped worker without takeover, and when it left.
        self._stopped: tuple[str, float] = "", 0.0
        #: Waiting idle connections by descriptor, and what reports their requests (made with the
        #: first one).
        self._idle: dict[int, Connection] = {}
        self._readable: Optional[Readable] = None
        #: Set once, before the first connection.
        self.entrance: Entrance

    def __len__(self) -> int:
        return len(self.waiting)

    # --- workers ------------------------------------------------------------------

    def join(self, member: Member, carrier: Carrier) -> None:
        self._pool.add(member)
        self._carriers[member.tag] = carrier

    def leave(self, member: Member, carrier: Carrier) -> None:
        if self._carriers.get(member.tag) is not carrier:
            return
        del self._carriers[member.tag]
        if member.draining and not member.takes:
            self._stopped = member.name, time.monotonic()
        tags = member.tags
        self._pool.remove(member)
        for tag in tags:
            self.released(tag)
        # Later, because this may be called from within placing when many workers die together.
        self._loop.call_soon(self.place_held)

    def released(self, tag: str) -> None:
        """The sessions with this tag have left a worker, or the router. If no worker has them now,
        their waiting requests may go to any worker, which answers that the session is unknown."""
        if tag not in self._pool.held and self._pool.owner(tag) is None:
            self.waiting.for_anybody(tag)

    def owner(self, tag: str) -> Optional[Member]:
        """See :meth:`.Pool.owner`."""
        return self._pool.owner(tag)

    def expects(self, tag: str) -> bool:
        """Whether an owner of this tag may connect soon: a worker of the router before this one."""
        return self._pool.knows(tag) or self._new(time.monotonic())

    def _new(self, now: float) -> bool:
        return now - self._started < REJOIN_TIME

    def starting(self, name: str) -> None:
        """supervisord has started a worker of this name."""
        now = time.monotonic()
        self._spreading.starting[name] = now
        stopped, when = self._stopped
        if name == stopped and now - when < _COME_BACK and self._pool.eligible:
            self._begin_to_spread()

    @property
    def expected(self) -> list[str]:
        """Workers that are about to be there: supervisord starts them, or has just stopped them.

        Without those that have been starting for so long that they may never be ready.
        """
        now = time.monotonic()
        names = {
            name
            for name, since in self._spreading.starting.items()
            if now - since < REBALANCE_START
        }
        name, when = self._stopped
        if now - when < _RESTART and not self._pool.named(name):
            names.add(name)
        return sorted(names)

    def not_starting(self, name: str) -> None:
        """That worker will not become ready, so no session waits for it."""
        if name in self._spreading.starting:
            del self._spreading.starting[name]
            self.place_held()

    def ready(self, member: Member) -> None:
        """A worker takes connections from now on; place the waiting ones."""
        self._spreading.starting.pop(member.name, None)
        if not any(other.eligible for other in self._pool if other is not member):
            self._begin_to_spread()
        self.resume(member)

    def _begin_to_spread(self) -> None:
        self._end_spreading()
        loads = {member.tag: member.load for member in self._pool if member.eligible}
        if self._spread_timeout and self._spreading.begin(loads):
            call_later = self._loop.call_later
            self._spreading_ends = call_later(self._spread_timeout, self._spread_no_more)

    def _end_spreading(self) -> None:
        if self._spreading_ends is not None:
            self._spreading_ends.cancel()
            self._spreading_ends = None
        self._spreading.end()

    def _spread_no_more(self) -> None:
        """Stop waiting for starting workers, and place waiting connections at the ready ones."""
        self._end_spreading()
        self.place_held()

    def resume(self, member: Member) -> None:
        """A worker can receive connections again."""
        now = time.monotonic()
        for tag in member.tags:
            while member.reachable:
                connection = self.waiting.first_for(tag)
                if connection is None or not self._take(connection, now):
                    break
        self.place_held()

    # --- connections ----------------------------------------------------------------

    def place(self, connection: Connection, deadline: Optional[float] = None) -> None:
        """Hand a connection over, or let it wait.

        :param deadline: of a connection that has waited before, by the monotonic clock.
        """
        now = time.monotonic()
        # Connections that have waited longer come first.
        behind = (
            self._spreading.on and connection.kind is HANDSHAKE and bool(self.waiting.handshakes)
        )
        if not behind and self._placed(connection, now):
            return
        if self._closed:
            self._turn_away(connection, reasons.ROUTER_STOPPING)
            return
        if len(self) >= self._max_pending and not self._make_room_for(connection):
            self._turn_away(connection, reasons.MAX_PENDING)
            return
        tag = self._waits_for(connection, now)
        full = tag not in self._pool.held and self.waiting.count_for(tag) >= self.waiting.share
        if tag and full and not self._sweep(now):
            self._turn_away(connection, reasons.WORKER_SHARE)
            return
        connection.deadline = now + self._hold_timeout if deadline is None else deadline
        self.waiting.add(connection, tag)
        self._watch(connection)
        if behind:
            self.place_held()

    def place_held(self) -> None:
        """Place the waiting connections that may go to any worker, oldest first."""
        if self._placing:
            return  # called from within itself
        self._placing = True
        try:
            now = time.monotonic()
            for connection in self.waiting.for_any_worker:
                self._take(connection, now)
            if not (self._spreading.starting or self.waiting.handshakes):
                self._end_spreading()
        finally:
            self._placing = False

    def tick(self) -> None:
        """Called once a second: check deadlines, and drop connections whose client has gone."""
        now = time.monotonic()
        self._sweep(now)
        if not self._new(now):
            for tag in self.waiting.tags:
                self.released(tag)
        self.place_held()
        overdue = self.waiting.overdue(now)
        if self._spreading.on and any(one.kind is HANDSHAKE for one in overdue):
            self._spread_no_more()  # exceed the shares rather than refuse a session
            overdue = self.waiting.overdue(now)
        for connection in overdue:
            if connection.tag in self._pool.held:
                continue  # held sessions have their own deadline
            self._remove(connection)
            self._turn_away(connection, reasons.HOLD_TIMEOUT)
        if not self._spreading.on:
            self._tell_of_stuck_ones()

    def _tell_of_stuck_ones(self) -> None:
        # Not those of held sessions, whose wait is short and expected.
        stuck = len(self) - sum(self.waiting.count_for(tag) for tag in self._pool.held)
        if bool(stuck) is not self._told:
            self._told = not self._told
            if self._told:
                one = stuck == 1
                who = "1 connection waits" if one else f"{stuck} connections wait"
                logger.warning("%s: no worker can take %s", who, "it" if one else "them")
            else:
                logger.info("no connection waits any more")

    def keep(self) -> None:
        """Keep the waiting connections for the next router."""
        if self._shelf is not None and not self._closed:
            self._shelf.keep(self.waiting)

    def release(self) -> list[Connection]:
        """The router ends: return the waiting connections to the caller."""
        self._closed = True
        self._idle.clear()
        if self._readable is not None:
            self._readable.close()
        waiting, self.waiting = self.waiting, Waiting(1)
        return list(waiting)

    def close(self) -> None:
        """The router ends, and no router follows: refuse the waiting connections."""
        self._closed = True
        if self._shelf is not None:
            self._shelf.clear()
        for connection in list(self.waiting):
            self._remove(connection)
            self._turn_away(connection, reasons.ROUTER_STOPPING)

    def make_room(self, network: str) -> bool:
        """Make room for a connection of this network; returns whether there is room now.

        Drops an idle connection, or those whose client has gone, or refuses one of a network that
        has more than its share, if this network has not.
        """
        idle = self.waiting.first_idle()
        if idle is not None:
            self._remove(idle)
            self.entrance.drop(idle, reasons.IDLE)
            return True
        if self._sweep(time.monotonic()):
            return True
        greediest = self.waiting.greediest(network)
        if greediest is None:
            return False
        self.waiting.remove(greediest)
        self._turn_away(greediest, reasons.ADDRESS_SHARE)
        return True

    def _make_room_for(self, connection: Connection) -> bool:
        # An idle connection does not displace others.
        return connection.kind is not None and self.make_room(connection.network)

    def _sweep(self, now: float) -> bool:
        """Drop the connections whose client has gone; returns whether there was one."""
        if not len(self) or now - self._looked < _LOOK:
            return False
        self._looked = now
        gone = self.waiting.gone()
        for connection in gone:
            self._remove(connection)
            self.entrance.drop(connection, reasons.CLOSED_EARLY)
        return bool(gone)

    def _watch(self, connection: Connection) -> None:
        """Watch an idle connection: its request may be for a worker that can take it at once."""
        if connection.kind is not None:
            return
        if self._readable is None:
            self._readable = Readable(self._loop, self._examine_idle)
        descriptor = connection.sock.fileno()
        try:
            self._readable.add(descriptor)
        except OSError:  # the limit of watched descriptors is reached: epoll(7)
            return  # a worker will read the request
        self._idle[descriptor] = connection

    def _unwatch(self, connection: Connection) -> None:
        descriptor = connection.sock.fileno()
        if self._readable is not None and self._idle.pop(descriptor, None) is not None:
            self._readable.remove(descriptor)

    def _remove(self, connection: Connection) -> None:
        """Stop waiting."""
        self._unwatch(connection)
        self.waiting.remove(connection)

    def _examine_idle(self, descriptor: int) -> None:
        connection = self._idle.get(descriptor)
        if connection is None:
            return  # it was removed in the same turn
        if self._shelf is not None:
            # Before its bytes are read: the next router must not find it without them.
            self._shelf.clear()
        self._remove(connection)
        self.entrance.examine_again(connection)

    def _take(self, connection: Connection, now: float) -> bool:
        """Place a waiting connection; false if it must keep waiting."""
        if not self._placed(connection, now, waited=True):
            return False
        self.waiting.remove(connection)
        return True

    def _placed(self, connection: Connection, now: float, waited: bool = False) -> bool:
        # Each turn but the last finds a chosen worker busy or gone.
        while True:
            member = self._choose(connection, now, waited)
            if member is None or not member.reachable:
                return False
            if waited:
                self._unwatch(connection)
                if self._shelf is not None:
                    # Before a worker has it: the next router must not find it as well.
                    self._shelf.clear()
            if self._carriers[member.tag].hand_over(connection):
                if connection.kind is HANDSHAKE:
                    self._spreading.gave(member.tag)
                return True
            if waited:
                self._watch(connection)
                self._keep_soon()

    def _choose(self, connection: Connection, now: float, waited: bool) -> Optional[Member]:
        if connection.kind is SESSION:
            tag = connection.tag
            owner = self._pool.owner(tag) or self._pool.giver(tag, connection.refused_by)
            if owner is not None or self._waits_for(connection, now):
                return owner
            # An unknown session: any worker can answer that.
            return self._pool.place_plain()
        if connection.kind is not HANDSHAKE:
            return self._pool.place_plain()
        if not self._spreading.on:
            return self._pool.place_handshake()
        waiting = self.waiting.handshakes + (not waited)
        return self._pool.place_handshake(self._spreading.with_room(self._pool.eligible, waiting))

    def _waits_for(self, connection: Connection, now: float) -> str:
        """The tag of the only worker that may serve the connection; empty when any may."""
        if connection.kind is not SESSION or not connection.tag:
            return ""
        if connection.tag in self._pool.held or self._new(now):
            return connection.tag
        return connection.tag if self._pool.owner(connection.tag) is not None else ""

    def _turn_away(self, connection: Connection, reason: str) -> None:
        if connection.kind is None:  # idle: there is no request to answer
            self.entrance.drop(connection, reason)
        else:
            self.entrance.refuse(connection, reason)
