"""A request through the WSGI application, in a thread of the pool.

The thread has the connection's socket meanwhile, so that what waits for a client waits here, and
a body or an answer of any length goes through without a step in the loop. A handshake of
Engine.IO is passed on to the engine by the application; what the application answers instead goes
out as any other answer.
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
    """One request, and the application's answer."""

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
            # Else there is a length to go by; Werkzeug makes a 400 of what it finds wrong then.
            environ["wsgi.input_terminated"] = True
        environ["wsgi.file_wrapper"] = FileWrapper
        self._taker = environ[EXCHANGE] = Taker(self)
        self._upgraded: Optional[UpgradedSocket] = None
        # Not in a handshake of Engine.IO, whose environment lives as long as its session.
        if "HTTP_UPGRADE" in environ and "EIO=" not in head.query:
            self._upgraded = environ[SOCKET] = UpgradedSocket(connection, threads)

    def take(self) -> tuple[Request, Connection]:
        self._taken = True
        connection, environ = self._connection, self._environ
        request = Request(self._head, connection.scheme, connection.address, lambda: environ)
        return request, connection

    def run(self) -> None:
        """Have the application answer it, and give the connection back to the loop."""
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
            # That is how gunicorn is told that the connection has become a websocket.
            if not (self._has_upgraded and isinstance(error, StopIteration)):
                logger.exception("a request to the application failed")
            if self._is_answer_wanted:
                self._answer.fail("500 Internal Server Error")

    @property
    def _has_upgraded(self) -> bool:
        """Whether the application has made something else than HTTP of the connection."""
        return self._upgraded is not None and self._upgraded.is_used

    @property
    def _is_answer_wanted(self) -> bool:
        return not (self._taken or self._has_upgraded)

    def _leave_nothing_unread(self) -> bool:
        """Whether the next request, if there is one, follows."""
        body = self._body
        if self._taken or body.ended or self._answer.closes or body.has_to_be_asked_for:
            return body.ended
        try:
            body.discard()
        except BadBody:
            return False
        return True

    def _release(self) -> None:
        """A session may keep the environment of its handshake, but not the connection."""
        self._environ["wsgi.input"] = NO_INPUT
        self._environ.pop(EXCHANGE, None)
        self._taker.release()
        self._body.release()
        if self._upgraded is not None:
            self._environ.pop(SOCKET, None)
            self._upgraded.release()


def serve(connection: Connection, head: Head, threads: Threads, pool: Pool) -> None:
    """Serve a request; in a thread of the pool.

    :param threads: the way back to the loop.
    """
    try:
        _Call(connection, head, threads, pool).run()
    except Exception as error:
        threads.run(0, connection.failed, error)
