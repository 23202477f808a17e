"""All connections of a worker."""

from __future__ import annotations

from typing import Any, Callable, Optional

from ..common.request import Request as RequestLine
from ..common.request import tag_of
from ..engine.engine import Engine
from ..engine.http import Head
from ..engine.request import Request
from .connection import Connection, State
from .environ import EnvironOf
from .runtime import Runtime

_WITH_REQUEST = (State.BODY, State.WAITING, State.APPLICATION)


class Server:
    """What the connections have in common.

    They come from the router, or from a listener of this process, and may go back.

    :param keeps: whether a request on a kept connection is for this worker.
    :param hand_back: gives a connection to the router, with what was read of the next request,
        as soon as there is one; calls :meth:`.Connection.moved` then, or when that cannot be.
    :param changed: called when the figures of this worker may have changed.
    """

    def __init__(
        self,
        app: Any,
        runtime: Runtime,
        keeps: Callable[[RequestLine], bool],
        hand_back: Callable[[Connection, bytes], None],
        changed: Callable[[], None],
    ) -> None:
        self.app = app
        self.runtime = runtime
        self.keeps = keeps
        self.hand_back = hand_back
        self.changed = changed
        self.paths: tuple[bytes, ...] = ()
        #: Seconds that a client has to send a head, and to send its next request.
        self.head_timeout = 10.0
        self.keepalive_timeout = 75.0
        self.draining = False
        #: Whether a connection that becomes a websocket is to end at once.
        self.ending = False
        #: Tags of sessions that are here, and are not this worker's yet: requests of them go back
        #: to the router.
        self.coming: frozenset[str] = frozenset()
        self._open: set[Connection] = set()

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._open)

    def opened(self, connection: Connection) -> None:
        self._open.add(connection)
        self.runtime.watch()

    def ended(self, connection: Connection) -> None:
        self._open.discard(connection)

    def of_session(self, connection: Connection, head: Head) -> Optional[tuple[Engine, Request]]:
        """The engine that has the session of a request, which needs no application then."""
        if "sid=" not in head.query:
            return None
        for engine in self.runtime.engines:
            if engine.may_have_to_wait and b"origin" in head.named:
                continue  # which only a task may
            if head.path in engine.paths:
                request = Request(
                    head, connection.scheme, connection.address, EnvironOf(connection, head)
                )
                if request.sid in engine.sessions:
                    if self.coming and tag_of(request.sid) in self.coming:
                        return None
                    return engine, request
        return None

    def requests(self) -> dict[str, list[Connection]]:
        """The connections with a request that is not over, by the id of its session."""
        found: dict[str, list[Connection]] = {}
        for connection in self._open:
            if connection.requested and connection.state in _WITH_REQUEST:
                found.setdefault(connection.requested, []).append(connection)
        return found

    def release_idle(self) -> None:
        """Send every connection that waits for its next request back to the router."""
        for connection in list(self._open):
            self.runtime.call_soon(connection.release)

    def unsettle(self) -> None:
        """Sessions leave this worker: ask :attr:`keeps` of each request that has yet to begin."""
        for connection in self._open:
            connection.unsettle()

    def end_websockets(self) -> None:
        """Close all websockets, and those that come yet: the worker stops."""
        self.ending = True
        for connection in list(self._open):
            connection.end_websocket()

    def abandon(self) -> None:
        """In a forked child: let go of all connections, which are the parent's."""
        for connection in list(self._open):
            connection.abandon()
