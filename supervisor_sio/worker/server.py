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
    """The state that all connections share.

    :param keeps: whether a request on a kept connection is for this worker.
    :param hand_back: hands a connection back to the router, with the bytes read of its next
        request, as soon as a router is connected; then calls :meth:`.Connection.moved`.
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
        #: Seconds that a client has to send a head, and idle seconds until its next request.
        self.head_timeout = 10.0
        self.keepalive_timeout = 75.0
        self.draining = False
        #: Whether a connection that becomes a websocket is closed at once.
        self.ending = False
        #: Tags whose sessions are restored but not owned by this worker yet: their requests are
        #: handed back to the router.
        self.coming: frozenset[str] = frozenset()
        self._open: set[Connection] = set()

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._open)

    def opened(self, connection: Connection) -> None:
        self._open.add(connection)
        self.runtime.prepare_threads()

    def ended(self, connection: Connection) -> None:
        self._open.discard(connection)

    def of_session(self, connection: Connection, head: Head) -> Optional[tuple[Engine, Request]]:
        """The request, and the engine that has its session and answers without the application.

        ``None`` if there is none.
        """
        if "sid=" not in head.query:
            return None
        for engine in self.runtime.engines:
            if engine.may_have_to_wait and b"origin" in head.named:
                continue  # only a task may wait for the application's origin check
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
        """The connections with an unfinished request, by the id of the request's session."""
        found: dict[str, list[Connection]] = {}
        for connection in self._open:
            if connection.requested and connection.state in _WITH_REQUEST:
                found.setdefault(connection.requested, []).append(connection)
        return found

    def release_idle(self) -> None:
        """Hand all idle connections back to the router."""
        for connection in list(self._open):
            self.runtime.call_soon(connection.release)

    def unsettle(self) -> None:
        """Sessions leave this worker: check all further requests with :attr:`keeps`."""
        for connection in self._open:
            connection.unsettle()

    def end_websockets(self) -> None:
        """Close all websockets, also future ones, because the worker stops."""
        self.ending = True
        for connection in list(self._open):
            connection.end_websocket()

    def abandon(self) -> None:
        """In a forked child: release all connections, which are the parent's."""
        for connection in list(self._open):
            connection.abandon()
