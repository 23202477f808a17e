"""Moves Engine.IO sessions, with their connections, out of this worker and into it.

With a session move its websocket and the websocket of an upgrade, a pending poll, a POST that waits
for its response or the rest of its body, and a response that is not completely written. An idle
connection belongs to no session: it is handed back to the router, as whenever a worker stops.

The client does not notice the move.
"""

from __future__ import annotations

import os
import socket
import time
from enum import Enum
from typing import Any, NamedTuple, Optional, Sequence, cast

from ..common.not_movable import NotMovable
from ..common.reasons import MID_REQUEST
from ..engine.engine import Engine
from ..engine.saved import Saved
from ..engine.session import Session
from ..engine.websocket import WebSocket
from .connection import Connection, State
from .server import Server


class Role(Enum):
    """The role of a connection in its session."""

    #: These values are names of fields in the session's state.
    POLL = "poll"
    POST = "post"
    CANDIDATE = "candidate"
    WEBSOCKET = "websocket"
    #: A POST whose body is incomplete.
    BODY = "body"
    #: A response that is not completely written.
    ANSWER = "answer"


#: The state of a connection in each role.
_STATES = {
    Role.POLL: State.WAITING,
    Role.POST: State.WAITING,
    Role.CANDIDATE: State.WEBSOCKET,
    Role.WEBSOCKET: State.WEBSOCKET,
    Role.BODY: State.BODY,
    Role.ANSWER: State.WAITING,
}


class Taken(NamedTuple):
    """A session that was taken out of this process."""

    #: The state for :func:`restore`, as JSON-compatible values.
    state: dict[str, Any]
    #: Descriptors of its connections, in the order of the state; the caller owns them.
    descriptors: list[int]


class Leaving:
    """Takes sessions out; valid only in one turn of the loop, since it caches connections."""

    def __init__(self, server: Server) -> None:
        self._requests = server.requests()

    def check(self, engine: Engine, sid: str) -> None:
        """Check that another process can continue a session.

        :raises NotMovable: if it cannot, or cannot now.
        :raises KeyError: if there is no such session.
        """
        self._connections(engine.sessions[sid])

    def take_out(self, engine: Engine, sid: str) -> Taken:
        """Remove a session that another process will continue, without calling its owner.

        :raises NotMovable: see :meth:`check`; the session is unchanged then.
        :raises KeyError: if there is no such session.
        """
        found = self._connections(engine.sessions[sid])
        connections = [{"role": role.value, **one.save()} for role, one in found]
        state = {
            **engine.take_out(sid),
            # CLOCK_MONOTONIC, which all processes of a host share.
            "at": time.monotonic(),
            "connections": connections,
        }
        return Taken(state, [one.give_away() for _, one in found])

    def _connections(self, session: Session) -> list[tuple[Role, Connection]]:
        """:raises NotMovable: if one of them, or the session itself, cannot be moved."""
        session.check_movable()
        found: list[tuple[Role, Connection]] = []
        for name, exchange in session.connections().items():
            role, connection = Role(name), cast(Connection, exchange)
            # A POST's connection may have ended, since a client need not wait for the response.
            if role is not Role.POST or not connection.ended:
                found.append((role, connection))
        for connection in self._requests.get(session.sid, ()):
            if any(connection is one for _, one in found):
                continue
            if connection.state is State.BODY:
                found.append((Role.BODY, connection))
            elif connection.is_answering:
                found.append((Role.ANSWER, connection))
            else:
                raise NotMovable(MID_REQUEST, "the application is handling a request of it")
        for _, connection in found:
            connection.check_movable()
        return found


class _Gone:
    """Stands in for a POST's connection that ended before the response."""

    session: Optional[Session] = None

    def is_there(self) -> bool:
        """:meth:`.Exchange.is_there`"""
        return False

    def answer(self, response: bytes, close: bool = False) -> None:
        """:meth:`.Exchange.answer`: drops the response."""

    def upgrade(self, response: bytes, websocket: WebSocket) -> Connection:
        """:meth:`.Exchange.upgrade`: never called for a POST."""
        raise NotImplementedError


class Arrived:
    """A session of another process, with its connections, which does nothing yet.

    Call either :meth:`start` or :meth:`discard` next.
    """

    #: Set by :func:`restore`.
    session: Session

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connections: list[Connection] = []
        self._by_role: dict[Role, Connection] = {}

    def start(self) -> None:
        """Continue the session: send its pending packets, and read from its connections."""
        self.session.start()
        for connection in self._connections:
            connection.start()
        self._server.runtime.prepare_threads()

    def discard(self) -> None:
        """Close the descriptors without calling the owner: another process continues."""
        self.session.let_go()
        for connection in self._connections:
            if not connection.ended:
                os.close(connection.give_away())

    def _restore(self, engine: Engine, state: Any, descriptors: Sequence[int]) -> None:
        saved = Saved(state, "session")
        connections = saved.list("connections")
        if len(connections) != len(descriptors):
            raise saved.wrong("connections", f"a list of {len(descriptors)}")
        for index, descriptor in enumerate(descriptors):
            self._add(engine, connections.object(index), descriptor)
        for role in (Role.POLL, Role.CANDIDATE, Role.WEBSOCKET):
            is_there = role in self._by_role
            if is_there == saved.is_none(role.value):
                which = "without" if is_there else "with"
                raise saved.wrong("connections", f"a list {which} a {role.value}")
        self.session = engine.restore(
            state,
            self._connect,
            self._by_role.get(Role.POLL),
            self._by_role.get(Role.POST) or _Gone(),
            max(0.0, time.monotonic() - saved.seconds("at")),
        )

    def _connect(self, websocket: WebSocket) -> Connection:
        link = self._by_role.get(Role.CANDIDATE) or self._by_role[Role.WEBSOCKET]
        link.attach(websocket)
        return link

    def _add(self, engine: Engine, saved: Saved, descriptor: int) -> None:
        role = saved.choice("role", Role)
        self._server.runtime.descriptor_opened(descriptor)
        # As in Worker._take_connection()
        sock = socket.SocketType(-1, socket.SOCK_STREAM, 0, descriptor)
        try:
            sock.setblocking(False)
            connection = Connection.restore(self._server, engine, sock, saved)
        except BaseException:
            sock.detach()
            raise
        self._connections.append(connection)
        self._server.opened(connection)
        is_answer = role is Role.ANSWER
        if connection.state is not _STATES[role] or connection.is_answering != is_answer:
            raise saved.wrong("role", f"that of a connection in state {connection.state.value}")
        if role not in (Role.BODY, Role.ANSWER):
            if role in self._by_role:
                raise saved.wrong("role", "a role that no other connection has")
            self._by_role[role] = connection

    def _give_back(self) -> None:
        """Restoring has failed: return the descriptors to the caller."""
        for connection in self._connections:
            connection.give_away()


def restore(server: Server, engine: Engine, state: Any, descriptors: Sequence[int]) -> Arrived:
    """Restore a session of another process; call it in the loop.

    :param engine: the engine of the same Socket.IO server as in the other process.
    :param state: :attr:`Taken.state`.
    :param descriptors: of its connections, in the same order; the connections own them afterwards.
    :raises ValueError: if a field, which it names, is wrong. Nothing was changed then, and the
        caller keeps the descriptors.
    """
    arrived = Arrived(server)
    try:
        arrived._restore(engine, state, descriptors)
    except BaseException:
        arrived._give_back()
        raise
    return arrived
