"""A request through the WSGI application, in a greenlet.

eventlet's own protocol class calls the application and writes its answer. A handshake of
Engine.IO is answered by the engine as soon as the application passes it on; eventlet has
nothing to do with it then.
"""

from __future__ import annotations

import errno
import io
import logging
import sys
import time
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Callable, Iterator, Optional
from urllib.parse import unquote

import eventlet
import greenlet
from eventlet import hubs, patcher, wsgi
from eventlet.greenio import GreenSocket

from ...common.limits import (
    BODY_GRACE_SECONDS,
    BODY_RATE,
    READS_PER_TURN,
    STALLED_SECONDS,
    UNREAD_BODY_BYTES,
)
from ...common.reasons import PROTOCOL, TOO_SLOW
from ...engine.http import ChunkedBody, Head, HttpError
from ...engine.request import Request
from ..eio import EXCHANGE

if TYPE_CHECKING:
    from .connection import Connection

logger = logging.getLogger("supervisor_sio.worker")

_socket: Any = patcher.original("socket")

#: What of a request's environment belongs to its connection. A session keeps the
#: environment of its handshake for as long as it lives, but not the connection.
_OF_CONNECTION = ("eventlet.set_idle", "eventlet.posthooks", EXCHANGE)
_NO_INPUT = io.BytesIO()

#: Bytes of a body that are read at a time, and of an answer that are joined for one write.
_BLOCK = 65536

#: The keys of an environment for fields that nearly every request has; so sessions share them.
_KEYS = {
    spelled.encode(): "HTTP_" + name.upper().replace("-", "_")
    for name in (
        "Accept Accept-Encoding Accept-Language Cache-Control Connection Cookie Origin Pragma "
        "Referer Sec-Fetch-Dest Sec-Fetch-Mode Sec-Fetch-Site Sec-WebSocket-Extensions "
        "Sec-WebSocket-Key Sec-WebSocket-Version Upgrade User-Agent X-Forwarded-For "
        "X-Forwarded-Host X-Forwarded-Proto X-Real-IP"
    ).split()
    for spelled in (name, name.lower())
}

#: Those whose values many clients have in common: their sessions share them, too.
_SHARED = frozenset(_KEYS.values()) - {
    "HTTP_COOKIE",
    "HTTP_SEC_WEBSOCKET_KEY",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_REAL_IP",
}

#: Fields that do not become ``HTTP_`` variables, or come from elsewhere.
_APART = (b"host", b"content-type", b"content-length")


class ClientGone(ConnectionResetError):
    """The connection ended in the middle of a request, or the client paused for too long."""

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "the client is gone")


class BadBody(OSError):
    """The body cannot be read to its end; the connection closes."""


class _Stalled(Exception):
    """The client has not sent, or taken, anything in time."""


@cache
def _as_frameworks_expect(error: type[OSError]) -> type[OSError]:
    """The same error, for which Flask answers 400 instead of logging a traceback.

    Werkzeug does that by itself where a body has a length, but not for one in chunks.
    """
    werkzeug: Any = sys.modules.get("werkzeug.exceptions")
    if werkzeug is None:
        return error

    def __init__(self: Any, *args: object) -> None:
        werkzeug.HTTPException.__init__(self)
        error.__init__(self, *args)

    names = {"__init__": __init__, "__module__": error.__module__}
    return type(error.__name__, (error, werkzeug.ClientDisconnected), names)


# --- reading and writing in a greenlet ------------------------------------------------------


def _wait(connection: Connection, what: str, timeout: float, read: bool) -> None:
    """Until the client sends something, or takes some.

    :raises ClientGone: when it does not.
    """
    sock = connection.sock
    if sock is None:
        raise _as_frameworks_expect(ClientGone)()
    if read:
        connection.stop_reading()
    try:
        hubs.trampoline(
            sock.fileno(), read=read, write=not read, timeout=timeout, timeout_exc=_Stalled
        )
    except _Stalled:
        connection.count(TOO_SLOW, what)
        raise _as_frameworks_expect(ClientGone)() from None
    except hubs.IOClosed:
        raise _as_frameworks_expect(ClientGone)() from None


def _receive(connection: Connection, size: int, timeout: float) -> bytes:
    """What the client has sent; empty at its end.

    :raises ClientGone: when nothing comes in time.
    """
    if connection.data:
        data, connection.data = connection.data[:size], connection.data[size:]
        return data
    while True:
        sock = connection.sock
        if sock is None:
            return b""
        try:
            return bytes(sock.recv(size))
        except BlockingIOError:
            _wait(connection, "sends nothing", timeout, read=True)


def _send_all(connection: Connection, data: Any) -> None:
    """:raises OSError: when the client does not take all of it."""
    while data:
        sock = connection.sock
        if sock is None:
            raise ClientGone()
        try:
            sent = sock.send(data)
        except BlockingIOError:
            _wait(connection, "takes nothing", STALLED_SECONDS, read=False)
            continue
        if sent == len(data):
            return
        data = memoryview(data)[sent:]


class ClientSocket(GreenSocket):  # type: ignore[misc]
    """The connection as a socket, for an application that wants it for something else."""

    def __init__(self, connection: Connection) -> None:
        old = connection.sock
        if old is None:
            raise ClientGone()
        sock = connection.sock = _socket.socket(old.family, old.type, old.proto, old.detach())
        sock.setblocking(False)
        connection.stop_reading()
        super().__init__(sock, set_nonblocking=False)
        self.settimeout(STALLED_SECONDS)
        self._connection = connection

    def __del__(self) -> None:
        pass  # the connection closes it

    def recv(self, size: int, flags: int = 0) -> bytes:
        connection = self._connection
        if connection.data:
            data, connection.data = connection.data[:size], connection.data[size:]
            return data
        return bytes(super().recv(size, flags))

    def recv_into(self, buffer: Any, size: int = 0, flags: int = 0) -> int:
        if self._connection.data:
            view = memoryview(buffer)
            data = self.recv(size or len(view))
            view[: len(data)] = data
            return len(data)
        return int(super().recv_into(buffer, size or len(buffer), flags))


class _Writer:
    """What eventlet writes answers to; nothing waits in it."""

    closed = False

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def writelines(self, pieces: list[bytes]) -> None:
        if sum(map(len, pieces)) <= _BLOCK:
            _send_all(self._connection, b"".join(pieces))
        else:
            for piece in pieces:
                _send_all(self._connection, piece)

    def flush(self) -> None:
        pass


# --- the request ----------------------------------------------------------------------------


class Body(wsgi.Input):  # type: ignore[misc]
    """The body of a request, as ``wsgi.input``. It ends where the body ends.

    Reading raises :class:`ClientGone` when the connection ends before, or the client is too
    slow, and :class:`BadBody` for chunks that are not valid.
    """

    # eventlet's attributes; its own constructor takes long
    rfile = None
    wfile_line = b"HTTP/1.1 100 Continue\r\n"
    hundred_continue_headers = None
    headers_sent = None
    chunk_length = -1

    def __init__(
        self, connection: Connection, length: Optional[int], wfile: Optional[_Writer]
    ) -> None:
        self.content_length = length or 0
        self.chunked_input = length is None
        self.position = 0
        self.wfile = wfile
        self.is_hundred_continue_response_sent = False
        self._connection: Optional[Connection] = connection
        self._socket: Optional[ClientSocket] = None
        self._chunks = ChunkedBody() if length is None else None
        #: What has come and was not read yet: from this position on.
        self._data = b""
        self._at = 0
        #: Bytes of the body that have come, and with everything around them.
        self._received = 0
        self._transferred = 0
        #: Seconds for which the client let us wait.
        self._waited = 0.0
        self._reads = 0

    @property
    def ended(self) -> bool:
        """Whether all of it has come."""
        if self._chunks is not None:
            return self._chunks.ended
        return self.position >= self.content_length

    @property
    def socket(self) -> Optional[ClientSocket]:
        """What the application was given, if it wanted it."""
        return self._socket

    def get_socket(self) -> Optional[ClientSocket]:
        """What eventlet's own websocket takes."""
        if self._socket is None and self._connection is not None:
            self._socket = ClientSocket(self._connection)
        return self._socket

    def read(self, length: Optional[int] = None) -> bytes:
        left = sys.maxsize if length is None or length < 0 else length
        pieces = []
        while left and self._more():
            piece = self._take(min(left, len(self._data) - self._at))
            left -= len(piece)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readline(self, size: Optional[int] = None) -> bytes:
        left = sys.maxsize if size is None or size < 0 else size
        pieces = []
        while left and self._more():
            end = self._data.find(b"\n", self._at, self._at + left) + 1
            piece = self._take((end or min(len(self._data), self._at + left)) - self._at)
            left -= len(piece)
            pieces.append(piece)
            if end:
                break
        return b"".join(pieces)

    def readlines(self, hint: Optional[int] = None) -> list[bytes]:
        lines: list[bytes] = []
        size = 0
        for line in iter(self.readline, b""):
            lines.append(line)
            size += len(line)
            if hint is not None and 0 < hint <= size:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def discard(self, buffer_size: int = 0) -> None:
        """Read what the application did not, so that the next request can be found.

        :raises BadBody: when that is too much.
        """
        most = self._transferred + UNREAD_BODY_BYTES
        if self.content_length - self.position > UNREAD_BODY_BYTES:
            raise BadBody("too much of a body is left unread")
        self._data = b""
        while self._more():
            self._data = b""
            if self._transferred > most:
                raise BadBody("too much of a body is left unread")

    def release(self) -> None:
        """The request is over; a copy of its environment may have this for much longer."""
        self._connection = self._socket = self.wfile = None
        self._data = b""
        self._chunks, self.content_length = None, 0

    def _take(self, size: int) -> bytes:
        begin, self._at = self._at, self._at + size
        return self._data[begin : self._at]

    def _more(self) -> bool:
        """Whether there is something to take, after waiting for it."""
        if self._at < len(self._data):
            return True
        self._data, self._at = b"", 0
        while not self._data and not self.ended:
            if self.should_send_hundred_continue:
                self.send_hundred_continue_response()
                self.is_hundred_continue_response_sent = True
            self._data = self._receive()
        return bool(self._data)

    def _receive(self) -> bytes:
        """Some of the body; or nothing, of one in chunks."""
        connection = self._connection
        assert connection is not None
        if self._chunks is None:
            data = self._receive_raw(connection, min(_BLOCK, self.content_length - self.position))
            self.position += len(data)
        else:
            try:
                data = self._chunks.feed(self._receive_raw(connection, self._chunks.wanted))
            except HttpError as error:
                connection.count(PROTOCOL, error)
                raise _as_frameworks_expect(BadBody)(str(error)) from None
            if self._chunks.ended:
                connection.data = self._chunks.rest + connection.data
        self._received += len(data)
        return data

    def _receive_raw(self, connection: Connection, size: int) -> bytes:
        self._reads += 1
        if not self._reads % READS_PER_TURN:
            eventlet.sleep(0)
        patience = BODY_GRACE_SECONDS + self._received / BODY_RATE - self._waited
        began = time.monotonic()
        try:
            data = _receive(connection, size, max(0.001, min(patience, STALLED_SECONDS)))
        finally:
            self._waited += time.monotonic() - began
        if not data:
            raise _as_frameworks_expect(ClientGone)()
        self._transferred += len(data)
        return data


class _Taker:
    """How the Socket.IO server takes a request from its application, see :mod:`..eio`.

    A copy of the environment may have this for much longer than the request lasts.
    """

    __slots__ = ("_call",)

    def __init__(self, call: _Call) -> None:
        self._call: Optional[_Call] = call

    def take(self) -> tuple[Request, Connection]:
        """The engine answers it: the application's answer does not count.

        :raises RuntimeError: when the request is over.
        """
        if self._call is None:
            raise RuntimeError("the request is over")
        return self._call.take()

    def set_idle(self) -> None:
        """Of eventlet's own websocket: the connection has become one."""
        if self._call is not None:
            self._call.upgraded()

    def release(self) -> None:
        self._call = None


class EnvironOf:
    """Makes the environment of a request that goes past the application."""

    __slots__ = ("_connection", "_head")

    def __init__(self, connection: Connection, head: Head) -> None:
        self._connection = connection
        self._head = head

    def __call__(self) -> dict[str, Any]:
        environ = _make_environ(self._connection, self._head)
        environ["wsgi.input"] = _NO_INPUT
        return environ


def _make_environ(connection: Connection, head: Head) -> dict[str, Any]:
    peer, peer_port = wsgi.addr_to_host_port(connection.peer)
    # Behind TLS, or a PROXY header, the socket's own address is not the client's view.
    local, local_port = wsgi.addr_to_host_port(connection.local)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": head.method,
        "SCRIPT_NAME": "",
        "RAW_PATH_INFO": head.path,
        "PATH_INFO": unquote(head.path, "latin-1") if "%" in head.path else head.path,
        "QUERY_STRING": head.query,
        "SERVER_NAME": local,
        "SERVER_PORT": str(local_port),
        "SERVER_PROTOCOL": head.version,
        "REMOTE_ADDR": peer,
        "REMOTE_PORT": str(peer_port),
        "GATEWAY_INTERFACE": "CGI/1.1",
        "wsgi.errors": sys.stderr,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": connection.scheme,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if head.host:
        environ["HTTP_HOST"] = head.host
    if connection.scheme == "https":
        environ["HTTPS"] = "on"
    _add_fields(environ, head)
    if not head.may_upgrade:
        environ.pop("HTTP_UPGRADE", None)
    return environ


@lru_cache(256)
def _text(value: bytes) -> str:
    return value.decode("latin-1")


def _add_fields(environ: dict[str, Any], head: Head) -> None:
    for name, raw in head.fields:
        key = _KEYS.get(name)
        value = _text(raw) if key in _SHARED else raw.decode("latin-1")
        if key is None:
            lower = name.lower()
            if lower in _APART:
                if lower == b"content-type":
                    environ.setdefault("CONTENT_TYPE", value)
                elif lower == b"content-length":
                    environ["CONTENT_LENGTH"] = value
                continue
            if b"_" in name:
                continue  # an application could not tell it from one with a hyphen
            key = "HTTP_" + name.decode().upper().replace("-", "_")
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    environ.setdefault("CONTENT_TYPE", "text/plain")  # as eventlet has it


# --- the application --------------------------------------------------------------------------

#: In a traceback, of what clients do.
_CLIENTS = ("BrokenPipeError", "ConnectionResetError") + tuple(
    f"{error.__module__}.{error.__qualname__}" for error in (ClientGone, BadBody)
)


class _ErrorLog:
    """eventlet tells of a failing application with ``info``."""

    def info(self, message: str, *args: Any) -> None:
        last = message.rstrip().rpartition("\n")[2]
        level = logging.DEBUG if last.startswith(_CLIENTS) else logging.ERROR
        if sys.exc_info()[0] is not None:  # its traceback is the message
            logger.log(level, "a request to the application failed", exc_info=True)
        else:
            logger.log(level, message.rstrip(), *args)

    def debug(self, message: str, *args: Any) -> None:
        logger.debug(message, *args)

    error = debug  # of clients that end their request before its end


class _Settings:
    """What eventlet's protocol class wants of its server."""

    log = _ErrorLog()
    log_output = False
    log_x_forwarded_for = False
    debug = False
    keepalive = True


class _Started:
    """``start_response`` until it is known who answers."""

    __slots__ = ("_calls", "_written", "_real")

    def __init__(self) -> None:
        self._calls: list[tuple[Any, ...]] = []
        self._written: list[bytes] = []
        self._real: Any = None

    def __call__(self, *args: Any) -> Callable[[bytes], None]:
        if self._real is not None:  # by a generator, which begins when it is asked for its first
            write: Callable[[bytes], None] = self._real(*args)
            return write
        self._calls.append(args)
        return self._written.append

    def repeat(self, start_response: Any) -> None:
        """What was called before, and from here on."""
        self._real = start_response
        for args in self._calls:
            write = start_response(*args)
        for data in self._written:
            write(data)


class _Call(wsgi.HttpProtocol):  # type: ignore[misc]
    """One request, and the application's answer."""

    protocol_version = wsgi.DEFAULT_MAX_HTTP_VERSION
    #: What an application yields is sent at once, as WSGI has it (PEP 3333).
    minimum_chunk_size = 1
    server = _Settings

    def __init__(self, connection: Connection, head: Head) -> None:
        self._connection = connection
        self._head = head
        self._app = connection.server.app
        self._taken = False
        self.environ = environ = _make_environ(connection, head)
        waits = head.length != 0 and head.version == "HTTP/1.1" and "HTTP_EXPECT" in environ
        waits = waits and environ["HTTP_EXPECT"].lower() == "100-continue"
        self.wfile = _Writer(connection)
        self._body = Body(connection, head.length, self.wfile if waits else None)
        environ["wsgi.input"] = environ["eventlet.input"] = self._body
        environ["eventlet.posthooks"] = []
        if head.length is None:
            # Else there is a length to go by; Werkzeug makes a 400 of what it finds wrong then.
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
        """The application keeps the connection for something else than HTTP."""
        sock = self._body.get_socket()
        if sock is not None:
            sock.settimeout(None)
        self._connection.upgraded = True
        self._connection.counted()

    def _try_handshake(self) -> None:
        """Most likely the engine answers."""
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
        # eventlet sends the body that an application may give for HEAD as well.
        self.close_connection = not head.keep_alive or head.method == "HEAD"
        # All that eventlet looks up; an old client wants to be told.
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
        """Whether the application has failed when the engine had answered."""
        if self._taken and self._connection.is_answered:
            logger.exception("a request to the application failed")
            return True
        self._taken = False
        return False

    def _release(self) -> None:
        environ, self.environ = self.environ, {}
        environ["wsgi.input"] = environ["eventlet.input"] = _NO_INPUT
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
    """Serve a request; in a greenlet of its own, which it does not outlive."""
    try:
        _Call(connection, head).run()
    except (ConnectionError, greenlet.GreenletExit):
        connection.end()
    except Exception as error:
        connection.failed(error)
