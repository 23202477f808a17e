"""Engine.IO sessions on their way to another worker, and from one: each with its connections.

A session takes along whatever of its client is under way: the websocket or websockets, a poll
that waits, a POST that waits for its answer or for the rest of its body, an answer of which the
client has yet to take the rest. A connection that waits for a request belongs to no session: it
goes back to the router, as whenever a worker stops.

The client has sent nothing and got nothing that would tell it of the move.
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
    """What a connection is to its session."""

    #: As the fields of the session's state are called that each belongs to.
    POLL = "poll"
    POST = "post"
    CANDIDATE = "candidate"
    WEBSOCKET = "websocket"
    #: A POST whose body has not all come.
    BODY = "body"
    #: An answer that has not all been written.
    ANSWER = "answer"


#: The state that a connection has in each of them.
_STATES = {
    Role.POLL: State.WAITING,
    Role.POST: State.WAITING,
    Role.CANDIDATE: State.WEBSOCKET,
    Role.WEBSOCKET: State.WEBSOCKET,
    Role.BODY: State.BODY,
    Role.ANSWER: State.WAITING,
}


class Taken(NamedTuple):
    """A session that has left this process."""

    #: What :func:`restore` takes, as JSON takes it.
    state: dict[str, Any]
    #: Of its connections, in the order in which the state has them; the caller's to close.
    descriptors: list[int]


class Leaving:
    """Sessions that leave in this turn of the loop: what it knows is not true any more later."""

    def __init__(self, server: Server) -> None:
        self._requests = server.requests()

    def check(self, engine: Engine, sid: str) -> None:
        """Whether another process can go on with a session.

        :raises NotMovable: when not, or not now.
        :raises KeyError: when there is no such session.
        """
        self._connections(engine.sessions[sid])

    def take_out(self, engine: Engine, sid: str) -> Taken:
        """Stop a session with which another process goes on; neither owner nor client is told.

        :raises NotMovable: as :meth:`check`, and nothing has been changed then.
        :raises KeyError: as well.
        """
        found = self._connections(engine.sessions[sid])
        connections = [{"role": role.value, **one.save()} for role, one in found]
        state = {
            **engine.take_out(sid),
            # Of the clock that all processes of a host have in common, CLOCK_MONOTONIC.
            "at": time.monotonic(),
            "connections": connections,
        }
        return Taken(state, [one.give_away() for _, one in found])

    def _connections(self, session: Session) -> list[tuple[Role, Connection]]:
        """:raises NotMovable: for one of them, or the session itself."""
        session.check_movable()
        found: list[tuple[Role, Connection]] = []
        for name, exchange in session.connections().items():
            role, connection = Role(name), cast(Connection, exchange)
            # A client need not wait for the answer to its POST.
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
                raise NotMovable(MID_REQUEST, "the application has a request of it")
        for _, connection in found:
            connection.check_movable()
        return found


class _Gone:
    """In the place of a connection that has ended before the answer to its POST."""

    session: Optional[Session] = None

    def is_there(self) -> bool:
        """:meth:`.Exchange.is_there`"""
        return False

    def answer(self, response: bytes, close: bool = False) -> None:
        """:meth:`.Exchange.answer`: there is nobody who reads it."""

    def upgrade(self, response: bytes, websocket: WebSocket) -> Connection:
        """:meth:`.Exchange.upgrade`: no POST is one."""
        raise NotImplementedError


class Arrived:
    """A session of another process, with its connections, which does nothing yet.

    Either :meth:`start` or :meth:`discard` follows.
    """

    #: Set by :func:`restore`.
    session: Session

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connections: list[Connection] = []
        self._by_role: dict[Role, Connection] = {}

    def start(self) -> None:
        """Go on: what has been sent to it meanwhile leaves, and what its client sends is read."""
        self.session.start()
        for connection in self._connections:
            connection.start()
        self._server.runtime.watch()

    def discard(self) -> None:
        """Another process goes on: close the descriptors. Neither owner nor client is told."""
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
            raise saved.wrong("role", f"that of one in state {connection.state.value}")
        if role not in (Role.BODY, Role.ANSWER):
            if role in self._by_role:
                raise saved.wrong("role", "one that no other connection has")
            self._by_role[role] = connection

    def _give_back(self) -> None:
        """It could not be restored: the descriptors are the caller's again."""
        for connection in self._connections:
            connection.give_away()


def restore(server: Server, engine: Engine, state: Any, descriptors: Sequence[int]) -> Arrived:
    """Have a session that has left another process; in the loop.

    :param engine: that of the same Socket.IO server as there.
    :param state: :attr:`Taken.state`.
    :param descriptors: of its connections, in the same order.
    :raises ValueError: names the field that is wrong. Nothing is left then, and the descriptors
        are the caller's; otherwise they belong to the connections.
    """
    arrived = Arrived(server)
    try:
        arrived._restore(engine, state, descriptors)
    except BaseException:
        arrived._give_back()
        raise
    return arrived
