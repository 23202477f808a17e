"""Giving each connection to a worker, or letting it wait for one."""

from __future__ import annotations

import asyncio
import logging
import select
import time
from collections import deque
from typing import Optional, Protocol

from ..request import Kind
from .connection import Connection
from .pool import Member, Pool

logger = logging.getLogger("supervisor_sio.router")

#: Seconds after its start in which a router waits for workers that lived
#: through the one before it, before it calls their sessions unknown.
_REJOIN_TIME = 2.0

#: Seconds between the first worker after none and the release of those who
#: waited: its siblings are about to join, and should get their share.
_SETTLE_TIME = 0.25

#: Seconds between looks at all who wait for those whose client has gone.
_LOOK = 0.1

_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class Refuser(Protocol):
    """How to turn a connection away; the entrance knows."""

    def refuse(self, connection: Connection, status: str, reason: str) -> None: ...

    def drop(self, connection: Connection, reason: str) -> None: ...


class Carrier(Protocol):
    """The way to one worker."""

    def hand_over(self, connection: Connection) -> None: ...


class Placement:
    """Places connections on the workers of a pool.

    :param hold_timeout: seconds that a connection waits for a worker.
    """

    def __init__(self, pool: Pool, hold_timeout: float, max_pending: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._pool = pool
        self._hold_timeout = hold_timeout
        self._max_pending = max_pending
        self._carriers: dict[str, Carrier] = {}
        #: Connections that no worker can take yet, oldest first; idle ones apart,
        #: because no request waits on them.
        self._held: deque[Connection] = deque()
        self._idle: deque[Connection] = deque()
        self._looked = -_LOOK
        self._closed = False
        self._started = time.monotonic()
        self._settled = True
        #: Set once, before the first connection.
        self.refuser: Refuser

    def __len__(self) -> int:
        return len(self._held) + len(self._idle)

    def join(self, member: Member, carrier: Carrier) -> None:
        self._pool.add(member)
        self._carriers[member.tag] = carrier

    def leave(self, member: Member, carrier: Carrier) -> None:
        if self._carriers.get(member.tag) is carrier:
            del self._carriers[member.tag]
            self._pool.remove(member)

    def ready(self, member: Member) -> None:
        """A worker takes connections from now on; those who waited may go to it."""
        alone = not any(other.eligible for other in self._pool if other is not member)
        if len(self) and alone:
            self._settled = False
            self._loop.call_later(_SETTLE_TIME, self._settle)
        self.place_held()

    def _settle(self) -> None:
        self._settled = True
        self.place_held()

    def place(self, connection: Connection) -> None:
        """Hand over now, or hold."""
        now = time.monotonic()
        if self._placed(connection, now):
            return
        if self._closed:
            self._turn_away(connection, "router-stopping")
            return
        idle = connection.kind is None
        # An idle one makes nobody leave.
        if len(self) >= self._max_pending and (idle or not self.make_room()):
            self._turn_away(connection, "max-pending")
            return
        connection.deadline = now + self._hold_timeout
        if not len(self):
            logger.warning("no worker is ready: connections wait")
        self._hold(connection)

    def _hold(self, connection: Connection) -> None:
        (self._idle if connection.kind is None else self._held).append(connection)

    def place_held(self) -> None:
        if not len(self):
            return
        now = time.monotonic()
        waited = (*self._held, *self._idle)
        self._held.clear()
        self._idle.clear()
        for connection in waited:
            if self._placed(connection, now):
                continue
            if connection.deadline > now:
                self._hold(connection)
            else:
                self._turn_away(connection, "hold-timeout")
        if not len(self):
            logger.info("no connection waits any more")

    def close(self) -> None:
        """The router is about to end, and nobody can wait here any more."""
        self._closed = True
        for connection in (*self._held, *self._idle):
            self._turn_away(connection, "router-stopping")
        self._held.clear()
        self._idle.clear()

    def make_room(self) -> bool:
        """Let go of one that loses nothing by it, or of all whose client has gone; if any."""
        if self._idle:
            self.refuser.drop(self._idle.popleft(), "idle")
            return True
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return False
        self._looked = now
        poll = select.poll()
        for connection in self._held:
            poll.register(connection.sock, select.POLLRDHUP)
        gone = {descriptor for descriptor, events in poll.poll(0) if events & _GONE}
        held, self._held = self._held, deque()
        for connection in held:
            if connection.sock.fileno() in gone:
                self.refuser.drop(connection, "closed-early")
            else:
                self._held.append(connection)
        return bool(gone)

    def _placed(self, connection: Connection, now: float) -> bool:
        member = self._choose(connection, now)
        if member is None:
            return False
        if connection.kind is Kind.HANDSHAKE:
            member.handshakes += 1
        self._carriers[member.tag].hand_over(connection)
        return True

    def _choose(self, connection: Connection, now: float) -> Optional[Member]:
        if connection.kind is Kind.SESSION:
            owner = self._pool.owner(connection.tag)
            if owner is not None:
                return owner
            if connection.tag and now - self._started < _REJOIN_TIME:
                return None
            # Nobody's session any more: any worker can say so.
            return self._pool.place_plain()
        if not self._settled:
            return None
        if connection.kind is Kind.HANDSHAKE:
            return self._pool.place_handshake()
        return self._pool.place_plain()

    def _turn_away(self, connection: Connection, reason: str) -> None:
        if connection.kind is None:  # idle: there is no request to answer
            self.refuser.drop(connection, reason)
        else:
            self.refuser.refuse(connection, "503 Service Unavailable", reason)
