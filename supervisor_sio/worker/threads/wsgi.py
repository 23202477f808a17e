"""Passes a request to the WSGI application, in a thread of the pool.

Meanwhile the thread uses the connection's socket: it waits for the client, and transfers bodies and
responses of any length without the loop. The application passes an Engine.IO handshake on to the
engine; if it answers itself, its response is sent like any other.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Optional

from ...cluster.environs import NO_INPUT
from ...engine.http import Head
from ...engine.request import Request
from ..body import BadBody, ClientGone
from ..environ import make_environ
from ..runtime import Threads
from ..taker import EXCHANGE, Taker
from .answer import Answer, FileWrapper
from .client import Body, Client, is_to_be_asked_for
from .pool import Pool
from .upgraded import SOCKET, UpgradedSocket

if TYPE_CHECKING:
    from ..connection import Connection

logger = logging.getLogger("supervisor_sio.worker")


class _Call:
    """One request, and the application's response."""

    def __init__(self, connection: Connection, head: Head, threads: Threads, pool: Pool) -> None:
        self._connection = connection
        self._head = head
        self._threads = threads
        self._taken = False
        client = Client(connection, threads, pool)
        self._environ = environ = make_environ(connection, head)
        waits = is_to_be_asked_for(head)
        self._body = environ["wsgi.input"] = Body(client, head.length, waits)
        self._answer = Answer(client, head, self._body, connection.server.runtime.date())
        if head.length is None:
            # Werkzeug reads a chunked body only with this. It is not set for a body with a length,
            # for which Werkzeug answers errors with 400.
            environ["wsgi.input_terminated"] = True
        environ["wsgi.file_wrapper"] = FileWrapper
        self._taker = environ[EXCHANGE] = Taker(self)
        self._upgraded: Optional[UpgradedSocket] = None
        # Not in an Engine.IO handshake, whose environment the session keeps for its whole life.
        if "HTTP_UPGRADE" in environ and "EIO=" not in head.query:
            self._upgraded = environ[SOCKET] = UpgradedSocket(connection, threads)

    def take(self) -> tuple[Request, Connection]:
        self._taken = True
        connection, environ = self._connection, self._environ
        request = Request(self._head, connection.scheme, connection.address, lambda: environ)
        return request, connection

    def run(self) -> None:
        """Let the application answer, and return the connection to the loop."""
        connection, threads = self._connection, self._threads
        gone = unread = False
        try:
            self._respond()
            unread = not self._leave_nothing_unread()
        except ClientGone:
            gone = True
        finally:
            self._release()
        if gone or self._has_upgraded:
            threads.run(0, connection.end)
        elif self._taken:
            threads.run(0, connection.leave_to_engine, unread)
        else:
            threads.run(0, connection.application_ended, self._answer.closes, unread)

    def _respond(self) -> None:
        result: Any = None
        try:
            try:
                result = self._connection.server.app(self._environ, self._answer.start_response)
                if self._is_answer_wanted:
                    self._answer.send(result)
            finally:
                close = getattr(result, "close", None)
                if close is not None:
                    close()
        except ClientGone:
            raise
        except BadBody:
            if self._is_answer_wanted:
                self._answer.fail("400 Bad Request")
        except BaseException as error:
            # flask-sock raises StopIteration under gunicorn after a websocket has ended.
            if not (self._has_upgraded and isinstance(error, StopIteration)):
                logger.exception("a request to the application failed")
            if self._is_answer_wanted:
                self._answer.fail("500 Internal Server Error")

    @property
    def _has_upgraded(self) -> bool:
        """Whether the application has upgraded the connection to another protocol."""
        return self._upgraded is not None and self._upgraded.is_used

    @property
    def _is_answer_wanted(self) -> bool:
        return not (self._taken or self._has_upgraded)

    def _leave_nothing_unread(self) -> bool:
        """Read the rest of the body; return whether the next request, if any, is next to read."""
        body = self._body
        if self._taken or body.ended or self._answer.closes or body.has_to_be_asked_for:
            return body.ended
        try:
            body.discard()
        except BadBody:
            return False
        return True

    def _release(self) -> None:
        """Remove references to the connection from the environment, which a session may keep."""
        self._environ["wsgi.input"] = NO_INPUT
        self._environ.pop(EXCHANGE, None)
        self._taker.release()
        self._body.release()
        if self._upgraded is not None:
            self._environ.pop(SOCKET, None)
            self._upgraded.release()


def serve(connection: Connection, head: Head, threads: Threads, pool: Pool) -> None:
    """Serve a request in a thread of the pool.

    :param threads: calls functions in the loop.
    """
    try:
        _Call(connection, head, threads, pool).run()
    except Exception as error:
        threads.run(0, connection.failed, error)
