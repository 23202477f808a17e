"""Passes a request to the WSGI application, in a greenlet.

eventlet's protocol class calls the application and writes its response. An Engine.IO handshake is
answered by the engine, without eventlet, as soon as the application passes it on.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, Callable, Optional, cast

import eventlet
import greenlet
from eventlet import wsgi

from ...cluster.environs import NO_INPUT
from ...engine.http import Head
from ...engine.request import Request
from ..body import BadBody, ClientGone
from ..environ import make_environ
from ..taker import EXCHANGE, Taker
from .body import Body
from .green import Writer

if TYPE_CHECKING:
    from ..connection import Connection

logger = logging.getLogger("supervisor_sio.worker")

#: Keys of a request's environment that refer to its connection. They are removed after the request,
#: because a session keeps the environment of its handshake for its whole life.
_OF_CONNECTION = ("eventlet.set_idle", "eventlet.posthooks", EXCHANGE)


class _Taker(Taker):
    __slots__ = ()

    def set_idle(self) -> None:
        """eventlet's own websocket calls it when it has taken over the connection."""
        call = cast("Optional[_Call]", self._request)
        if call is not None:
            call.upgraded()


#: Names of exceptions in tracebacks that a client has caused.
_CLIENTS = ("BrokenPipeError", "ConnectionResetError") + tuple(
    f"{error.__module__}.{error.__qualname__}" for error in (ClientGone, BadBody)
)


class _ErrorLog:
    """The log of eventlet's protocol class, which reports a failing application with ``info``."""

    def info(self, message: str, *args: Any) -> None:
        last = message.rstrip().rpartition("\n")[2]
        level = logging.DEBUG if last.startswith(_CLIENTS) else logging.ERROR
        if sys.exc_info()[0] is not None:  # the message is the traceback
            logger.log(level, "a request to the application failed", exc_info=True)
        else:
            logger.log(level, message.rstrip(), *args)

    def debug(self, message: str, *args: Any) -> None:
        logger.debug(message, *args)

    error = debug  # called when clients close the connection in a request


class _Settings:
    """The attributes of its server that eventlet's protocol class reads."""

    log = _ErrorLog()
    log_output = False
    log_x_forwarded_for = False
    debug = False
    keepalive = True


class _Started:
    """Records calls of ``start_response`` until it is known whether the engine answers."""

    __slots__ = ("_calls", "_written", "_real")

    def __init__(self) -> None:
        self._calls: list[tuple[Any, ...]] = []
        self._written: list[bytes] = []
        self._real: Any = None

    def __call__(self, *args: Any) -> Callable[[bytes], None]:
        if self._real is not None:  # called by a generator, which starts only when it is iterated
            write: Callable[[bytes], None] = self._real(*args)
            return write
        self._calls.append(args)
        return self._written.append

    def repeat(self, start_response: Any) -> None:
        """Repeat the recorded calls, and pass further calls on directly."""
        self._real = start_response
        for args in self._calls:
            write = start_response(*args)
        for data in self._written:
            write(data)


class _Call(wsgi.HttpProtocol):  # type: ignore[misc]
    """One request, and the application's response."""

    protocol_version = wsgi.DEFAULT_MAX_HTTP_VERSION
    #: Send each yielded piece at once, as PEP 3333 requires.
    minimum_chunk_size = 1
    server = _Settings

    def __init__(self, connection: Connection, head: Head) -> None:
        self._connection = connection
        self._head = head
        self._app = connection.server.app
        self._taken = False
        self.environ = environ = make_environ(connection, head)
        waits = head.length != 0 and head.version == "HTTP/1.1" and "HTTP_EXPECT" in environ
        waits = waits and environ["HTTP_EXPECT"].lower() == "100-continue"
        self.wfile = Writer(connection)
        self._body = Body(connection, head.length, self.wfile if waits else None)
        environ["wsgi.input"] = environ["eventlet.input"] = self._body
        environ["eventlet.posthooks"] = []
        if head.length is None:
            # Werkzeug reads a chunked body only with this. It is not set for a body with a length,
            # for which Werkzeug answers errors with 400.
            environ["wsgi.input_terminated"] = True
        self._taker = taker = _Taker(self)
        environ[EXCHANGE] = taker
        if "HTTP_UPGRADE" in environ:
            environ["eventlet.set_idle"] = taker.set_idle

    def run(self) -> None:
        try:
            if "EIO=" in self._head.query and self._head.length == 0:
                self._try_handshake()
            else:
                self._respond(self._call)
        finally:
            self._release()
        if self._taken:
            self._connection.leave_to_engine(not self._body_ended)
        else:
            self._connection.application_ended(bool(self.close_connection), not self._body_ended)

    def take(self) -> tuple[Request, Connection]:
        self._taken = True
        connection = self._connection
        request = Request(self._head, connection.scheme, connection.address, lambda: self.environ)
        return request, connection

    def upgraded(self) -> None:
        """The application has upgraded the connection to another protocol."""
        sock = self._body.get_socket()
        if sock is not None:
            sock.settimeout(None)
        self._connection.note_upgrade()

    def _try_handshake(self) -> None:
        """Call the application for a handshake, which nearly always lets the engine answer."""
        started = _Started()
        try:
            result = self._app(self.environ, started)
        except (Exception, eventlet.Timeout) as error:
            if not self._failed_after_answer():
                self._respond(_raise(error))
            return
        if self._taken:
            _close(result)
            return
        handled = self._body.socket is not None and wsgi.WSGI_LOCAL.already_handled

        def answered(environ: dict[str, Any], start_response: Any) -> Any:
            wsgi.WSGI_LOCAL.already_handled = handled
            started.repeat(start_response)
            return result

        self._respond(answered)

    def _respond(self, application: Any) -> None:
        head = self._head
        self.application = application
        self.client_address = self._connection.peer
        self.command = head.method
        self.requestline = f"{head.method} {head.path}"  # in eventlet's messages
        self.request_version = head.version
        # Close after HEAD, because eventlet would also send a body that the application returns.
        self.close_connection = not head.keep_alive or head.method == "HEAD"
        # The only field that eventlet reads; HTTP/1.0 clients need it in the response.
        old = head.keep_alive and head.version == "HTTP/1.0"
        self.headers = {"Connection": "keep-alive"} if old else {}
        try:
            self.handle_one_response()
        except OSError as error:
            self.close_connection = True
            if error.errno not in wsgi.BROKEN_SOCK:
                raise

    def _call(self, environ: dict[str, Any], start_response: Any) -> Any:
        try:
            result = self._app(environ, start_response)
        except BadBody:
            self._taken, self.close_connection = False, True
            start_response("400 Bad Request", [("Content-Type", "text/plain")], sys.exc_info())
            return [b"400 Bad Request\n"]
        except (Exception, eventlet.Timeout):
            if not self._failed_after_answer():
                raise
            result = ()
        if self._taken:
            wsgi.WSGI_LOCAL.already_handled = True
        return result

    def _failed_after_answer(self) -> bool:
        """Log an application's error if the engine has answered already; return whether it has."""
        if self._taken and self._connection.is_answered:
            logger.exception("a request to the application failed")
            return True
        self._taken = False
        return False

    def _release(self) -> None:
        environ, self.environ = self.environ, {}
        environ["wsgi.input"] = environ["eventlet.input"] = NO_INPUT
        for name in _OF_CONNECTION:
            environ.pop(name, None)
        self._body_ended = self._body.ended
        self._body.release()
        self._taker.release()


def _close(result: Any) -> None:
    close = getattr(result, "close", None)
    if close is not None:
        close()


def _raise(error: BaseException) -> Callable[..., Any]:
    def fail(environ: dict[str, Any], start_response: Any) -> Any:
        raise error

    return fail


def serve(connection: Connection, head: Head) -> None:
    """Serve a request; call it in a greenlet of its own."""
    try:
        _Call(connection, head).run()
    except (ConnectionError, greenlet.GreenletExit):
        connection.end()
    except Exception as error:
        connection.failed(error)
