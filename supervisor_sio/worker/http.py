"""One connection in a worker: HTTP for a WSGI application, on a socket that may move on.

Before each request on a kept connection its request line decides whether the
connection stays: a request of another worker's session, or a handshake, goes
back to the router with every byte already read. What stays is read by
:mod:`supervisor_sio.engine.http`, once; eventlet's own protocol class calls the
application and writes its answer.
"""

from __future__ import annotations

import errno
import io
import logging
import re
import socket
import sys
import time
import weakref
from functools import cache
from typing import Any, Callable, Iterator, Optional, Union
from urllib.parse import unquote

import eventlet
import greenlet
from eventlet import hubs, patcher, wsgi
from eventlet.greenio import GreenSocket

from ..common.limits import (
    BODY_GRACE_SECONDS,
    BODY_RATE,
    LINGER_SECONDS,
    READS_PER_TURN,
    STALLED_SECONDS,
    UNREAD_BODY_BYTES,
)
from ..common.reasons import PROTOCOL, TOO_SLOW
from ..common.request import BadRequest, Request, parse_head
from ..engine.http import ChunkedBody, Head, HttpError, find_end, read_head
from .forks import close_socket
from .websocket import TAKE_CONNECTION, Connection, WebSocket, refusals

logger = logging.getLogger("supervisor_sio.worker")

#: In the environment of a request: call it when the client has no more requests.
LAST_REQUEST = "supervisor_sio.last_request"

_socket: Any = patcher.original("socket")

#: ``(host, port)`` or the like; a Unix peer has an empty name.
SocketAddress = Any

#: What of a request's environment belongs to its connection. A session keeps the
#: environment of its handshake for as long as it lives, but not the connection.
_OF_CONNECTION = ("eventlet.set_idle", "eventlet.posthooks", TAKE_CONNECTION, LAST_REQUEST)
_NO_INPUT = io.BytesIO()

#: Bytes that are read at a time where a head is expected: most are shorter, and what comes
#: behind one has to fit into a message to the router.
_HEAD_READ = 2048

#: Bytes of a body that are read at a time, and of an answer that are joined for one write.
_BLOCK = 65536

#: A server should skip an empty line before a request (RFC 9112, 2.2); as the router, we skip four.
_EMPTY_LINES = re.compile(rb"(?:\r?\n){0,4}")

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

#: Fields that are no ``HTTP_`` variables, or come from elsewhere.
_APART = (b"host", b"content-type", b"content-length")


class ClientGone(ConnectionResetError):
    """The connection ended in the middle of a request, or the client paused for too long."""

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "the client is gone")


class BadBody(OSError):
    """The body cannot be read to its end; the connection closes."""


class Interrupted(Exception):
    """Thrown into the greenlet of an idle connection when the worker drains."""


class _HeadTimeout(Exception):
    """Thrown into the greenlet of a connection that has not sent its head in time."""


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


def _count(reason: str, peer: SocketAddress, detail: object) -> None:
    """The client of a connection did something that is counted."""
    refusals.count(reason, f"{wsgi.addr_to_host_port(peer)[0]} ({detail})")


#: All that are open, for a forked child, which has copies of their descriptors.
_clients: weakref.WeakSet[ClientSocket] = weakref.WeakSet()


class ClientSocket(GreenSocket):  # type: ignore[misc]
    """A client's connection, with the bytes that were read before it came here.

    Who pauses for longer than the timeout is :class:`ClientGone`.

    :param placed: the router chose this worker for the first request.
    """

    def __init__(
        self,
        sock: socket.socket,
        peer: SocketAddress,
        local: SocketAddress,
        scheme: str = "http",
        prefix: bytes = b"",
        placed: bool = True,
        on_session: Optional[Callable[[], None]] = None,
    ) -> None:
        super().__init__(sock)
        self.peer = peer
        self.local = local
        self.scheme = scheme
        self.prefix = prefix
        self.placed = placed
        self._on_session = on_session
        _clients.add(self)

    def session_counted(self) -> None:
        """The handshake this connection was placed for shows in the count of sessions."""
        done, self._on_session = self._on_session, None
        if done is not None:
            done()

    def recv(self, size: int, flags: int = 0) -> bytes:
        if self.prefix:
            data, self.prefix = self.prefix[:size], self.prefix[size:]
            return data
        try:
            return bytes(super().recv(size, flags))
        except socket.timeout:
            raise self._stalled("sends nothing") from None

    def recv_into(self, buffer: Any, size: int = 0, flags: int = 0) -> int:
        if self.prefix:
            view = memoryview(buffer)
            data = self.recv(size or len(view))
            view[: len(data)] = data
            return len(data)
        try:
            return int(super().recv_into(buffer, size or len(buffer), flags))
        except socket.timeout:
            raise self._stalled("sends nothing") from None

    def send(self, data: Any, flags: int = 0) -> int:
        try:
            return int(super().send(data, flags))
        except socket.timeout:
            raise self._stalled("takes nothing") from None

    def _stalled(self, what: str) -> OSError:
        _count(TOO_SLOW, self.peer, what)
        return _as_frameworks_expect(ClientGone)()

    def leave_green(self) -> Any:
        """The connection as a plain, non-blocking socket; this object lets go of it."""
        sock = _socket.socket(self.family, self.type, self.proto, self.fd.detach())
        sock.setblocking(False)
        return sock

    def end(self) -> None:
        """Read no more: some clients of a websocket never close their end."""
        try:
            self.fd.shutdown(socket.SHUT_RD)
        except OSError:
            pass  # closed already


class _Writer:
    """What eventlet writes answers to; nothing waits in it."""

    closed = False

    def __init__(self, sock: ClientSocket) -> None:
        self._sock = sock

    def writelines(self, pieces: list[bytes]) -> None:
        if sum(map(len, pieces)) <= _BLOCK:
            self._sock.sendall(b"".join(pieces))
        else:
            for piece in pieces:
                self._sock.sendall(memoryview(piece))

    def flush(self) -> None:
        pass


class Body(wsgi.Input):  # type: ignore[misc]
    """The body of a request, as ``wsgi.input``. It ends where the body ends.

    Reading raises :class:`ClientGone` when the connection ends before, or the client is too
    slow, and :class:`BadBody` for what are no chunks.
    """

    _sock: Optional[ClientSocket]
    content_length: int
    position: int

    def __init__(self, sock: ClientSocket, length: Optional[int], wfile: Optional[_Writer]) -> None:
        super().__init__(
            None,
            length or 0,
            sock,
            wfile=wfile,
            wfile_line=b"HTTP/1.1 100 Continue\r\n",
            chunked_input=length is None,
        )
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
        self._sock = self.wfile = None
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
        assert self._sock is not None
        if self._chunks is None:
            data = self._receive_raw(min(_BLOCK, self.content_length - self.position))
            self.position += len(data)
        else:
            try:
                data = self._chunks.feed(self._receive_raw(self._chunks.wanted))
            except HttpError as error:
                _count(PROTOCOL, self._sock.peer, error)
                raise _as_frameworks_expect(BadBody)(str(error)) from None
            if self._chunks.ended:
                self._sock.prefix = self._chunks.rest + self._sock.prefix
        self._received += len(data)
        return data

    def _receive_raw(self, size: int) -> bytes:
        sock = self._sock
        assert sock is not None
        self._reads += 1
        if not self._reads % READS_PER_TURN:
            eventlet.sleep(0)
        patience = BODY_GRACE_SECONDS + self._received / BODY_RATE - self._waited
        sock.settimeout(max(0.001, min(patience, STALLED_SECONDS)))
        began = time.monotonic()
        try:
            data = sock.recv(size)
        finally:
            sock.settimeout(STALLED_SECONDS)
            self._waited += time.monotonic() - began
        if not data:
            raise _as_frameworks_expect(ClientGone)()
        self._transferred += len(data)
        return data


class _Exchange:
    """What an application can ask about the connection, for as long as the request lasts.

    A copy of the environment has this, and nothing of the connection, for much longer.
    """

    __slots__ = ("_protocol",)

    def __init__(self, protocol: Protocol) -> None:
        self._protocol: Optional[Protocol] = protocol

    def release(self) -> None:
        self._protocol = None

    def set_idle(self) -> None:
        """Of eventlet's own websocket: the connection has become one."""
        if self._protocol is not None:
            self._protocol.upgraded()

    def last_request(self) -> None:
        if self._protocol is not None:
            self._protocol.close_connection = True  # eventlet says so, RFC 9112, 9.6

    def take_connection(self) -> Connection:
        if self._protocol is None:
            raise RuntimeError("the request is over")
        return self._protocol.take_connection()


class Protocol(wsgi.HttpProtocol):  # type: ignore[misc]
    """Serves one connection; made by :class:`Server` for each."""

    server: Server
    request: ClientSocket
    environ: dict[str, Any]
    close_connection: bool

    def setup(self) -> None:
        self.connection = self.request
        self.request.settimeout(STALLED_SECONDS)
        self.wfile = _Writer(self.request)
        self._first = self.request.placed
        #: Whether the connection goes on without this object.
        self._given_up = False
        #: Whether the client may be sending what nobody reads.
        self._unread = False

    def handle_one_request(self) -> None:
        self.close_connection = True
        try:
            data = self._read_head()
            if not data:
                return
            head = read_head(data)
        except HttpError as error:
            self._refuse(error)
            return
        self.command = head.method
        self.requestline = f"{head.method} {head.path}"  # in eventlet's messages
        self.request_version = head.version
        # eventlet sends the body that an application may give for HEAD as well.
        self.close_connection = not head.keep_alive or head.method == "HEAD"
        self.environ = self._make_environ(head)
        # All that eventlet looks up; an old client wants to be told.
        old = head.keep_alive and head.version == "HTTP/1.0"
        self.headers = {"Connection": "keep-alive"} if old else {}
        self.application = self._call
        try:
            self.handle_one_response()
        except OSError as error:
            self.close_connection = True
            if error.errno not in wsgi.BROKEN_SOCK:
                raise

    # --- reading a head -------------------------------------------------------

    def _read_head(self) -> bytes:
        """The next head; empty when there is none, or it is not for this worker.

        :raises HttpError: for what cannot be one.
        """
        sock, server = self.request, self.server
        first, self._first = self._first, False
        # What was on its way when this worker began to drain is judged as well.
        settled = first and not server.draining
        deadline = time.monotonic() + server.head_timeout if first else None
        if sock.prefix and not first:
            eventlet.sleep(0)  # who sends many requests at once has one in each turn
        data, sock.prefix = sock.prefix, b""
        looked = 0
        while True:
            if data and deadline is None:
                deadline = time.monotonic() + server.head_timeout
            if not looked and data[:1] in (b"\r", b"\n"):
                data = data[_EMPTY_LINES.match(data).end() :]  # type: ignore[union-attr]
            if data and not settled:
                request = self._judge(data)
                if request is not None:
                    settled = True
                    if not server.keeps(request) and self._hand_back(data):
                        return b""
            end = find_end(data, looked)
            if end:
                sock.prefix = data[end:]
                return data[:end]
            looked = len(data)
            more = self._receive(data, deadline)
            if not more:
                return b""
            data += more

    def _judge(self, data: bytes) -> Optional[Request]:
        try:
            return parse_head(data, self.server.paths)
        except BadRequest as bad:
            raise HttpError(bad.reason, bad.status) from None

    def _receive(self, data: bytes, deadline: Optional[float]) -> bytes:
        """What comes next; empty when nothing will, or the connection has moved on.

        :param data: of the head, so far.
        """
        sock, server = self.request, self.server
        while True:
            try:
                return bytes(sock.fd.recv(_HEAD_READ))
            except BlockingIOError:
                pass
            except OSError:
                return b""
            if server.draining and (self._hand_back(data) or not data):
                return b""
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                with server.idle(self):
                    hubs.trampoline(
                        sock.fileno(), read=True, timeout=timeout, timeout_exc=_HeadTimeout
                    )
            except Interrupted:
                pass
            except _HeadTimeout:
                if not data:
                    return b""
                raise HttpError("no complete head in time", "408 Request Timeout") from None
            except OSError:
                return b""

    def _hand_back(self, prefix: bytes) -> bool:
        self._given_up = self.server.hand_back(self.request, prefix)
        return self._given_up

    def _refuse(self, error: HttpError) -> None:
        _count(TOO_SLOW if error.status.startswith("408") else PROTOCOL, self.request.peer, error)
        self._unread = True
        body = f"{error.status}\n"
        text = (
            f"HTTP/1.1 {error.status}\r\nConnection: close\r\n"
            f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        )
        try:
            self.request.sendall(text.encode())
        except OSError:
            pass

    # --- the request and its answer -------------------------------------------

    def _make_environ(self, head: Head) -> dict[str, Any]:
        sock = self.request
        peer, peer_port = wsgi.addr_to_host_port(sock.peer)
        # Behind TLS, or a PROXY header, the socket's own address is not the client's view.
        local, local_port = wsgi.addr_to_host_port(sock.local)
        environ: dict[str, Any] = {
            "REQUEST_METHOD": head.method,
            "SCRIPT_NAME": "",
            "RAW_PATH_INFO": head.path,
            "PATH_INFO": unquote(head.path, "latin-1"),
            "QUERY_STRING": head.query,
            "SERVER_NAME": local,
            "SERVER_PORT": str(local_port),
            "SERVER_PROTOCOL": head.version,
            "REMOTE_ADDR": peer,
            "REMOTE_PORT": str(peer_port),
            "GATEWAY_INTERFACE": "CGI/1.1",
            "wsgi.errors": sys.stderr,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": sock.scheme,
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            "eventlet.posthooks": [],
        }
        if head.host:
            environ["HTTP_HOST"] = head.host
        if sock.scheme == "https":
            environ["HTTPS"] = "on"
        self._add_fields(environ, head)
        expects = environ.get("HTTP_EXPECT", "").lower() == "100-continue"
        may_wait = expects and head.length != 0 and head.version == "HTTP/1.1"
        self._body = Body(sock, head.length, self.wfile if may_wait else None)
        environ["wsgi.input"] = environ["eventlet.input"] = self._body
        if head.length is None:
            # Else there is a length to go by; Werkzeug makes a 400 of what it finds wrong then.
            environ["wsgi.input_terminated"] = True
        self._exchange = exchange = _Exchange(self)
        if not head.may_upgrade:
            environ.pop("HTTP_UPGRADE", None)
        if "HTTP_UPGRADE" in environ:
            environ["eventlet.set_idle"] = exchange.set_idle
            environ[TAKE_CONNECTION] = exchange.take_connection
        else:
            environ[LAST_REQUEST] = exchange.last_request
        return environ

    def _add_fields(self, environ: dict[str, Any], head: Head) -> None:
        for name, raw in head.fields:
            value = raw.decode("latin-1")
            key = _KEYS.get(name)
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

    def _call(self, environ: dict[str, Any], start_response: Any) -> Any:
        try:
            return self.server.app(environ, start_response)
        except BadBody:
            self.close_connection = True
            start_response("400 Bad Request", [("Content-Type", "text/plain")], sys.exc_info())
            return [b"400 Bad Request\n"]

    def upgraded(self) -> None:
        """The application keeps the connection for something else than HTTP."""
        self.request.settimeout(None)
        self.server.websockets.add(self.request)
        self._request_counted()

    def take_connection(self) -> Connection:
        self._given_up = True
        sock = self.request
        address = wsgi.addr_to_host_port(sock.peer)[0]
        return Connection(sock.leave_green(), address, sock.prefix, self.server)

    def handle_one_response(self) -> None:
        try:
            super().handle_one_response()
        finally:
            environ, self.environ = self.environ, {}
            environ["wsgi.input"] = environ["eventlet.input"] = _NO_INPUT
            for name in _OF_CONNECTION:
                environ.pop(name, None)
            self._unread = not self._body.ended
            self._body.release()
            self._exchange.release()
            self._request_counted()

    def _request_counted(self) -> None:
        self.request.session_counted()
        self.server.changed()

    def finish(self) -> None:
        if self._given_up:
            # It lives on elsewhere: a shutdown() here would end it there too.
            self.request.close()
            return
        if self._unread or self.request.prefix:
            self._linger()
        try:
            self.request.fd.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the client was faster
        self.request.close()

    def _linger(self) -> None:
        """Let the client read the answer: to close over unread bytes would reset the connection.

        RFC 9112, 9.6.
        """
        try:
            self.request.fd.shutdown(socket.SHUT_WR)
            with eventlet.Timeout(LINGER_SECONDS, False):
                while self.request.recv(_BLOCK):
                    eventlet.sleep(0)
        except OSError:
            pass


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


class Server(wsgi.Server):  # type: ignore[misc]
    """The WSGI server behind all connections of this worker.

    ``eventlet.wsgi.server`` has an accept loop, a limit of 1024 connections,
    and a shutdown() on every connection that ends; here connections come from
    the router and may go back to it.

    :param keeps: whether a request on a kept connection is for this worker.
    :param hand_back: gives a connection to the router; false when that cannot be.
    :param changed: called when the figures of this worker may have changed.
    """

    def __init__(
        self,
        app: Any,
        keeps: Callable[[Request], bool],
        hand_back: Callable[[ClientSocket, bytes], bool],
        changed: Callable[[], None],
    ) -> None:
        super().__init__(
            socket=None,
            address=None,
            app=app,
            protocol=Protocol,
            log_output=False,
            debug=False,
            max_http_version=wsgi.DEFAULT_MAX_HTTP_VERSION,
            # What an application yields is sent at once, as WSGI has it (PEP 3333).
            minimum_chunk_size=1,
        )
        self.log = _ErrorLog()
        self.paths: tuple[bytes, ...] = ()
        self.keeps = keeps
        self.hand_back = hand_back
        self.changed = changed
        #: Seconds that a client has to send a head.
        self.head_timeout = 10.0
        #: Seconds that a kept connection may wait for its next request.
        self.keepalive_timeout = 75.0
        self.connections = 0
        self.draining = False
        self.websockets: set[Union[ClientSocket, WebSocket]] = set()
        #: Their greenlets, and since when they wait; who has waited longest comes first.
        self._idle: dict[Protocol, tuple[Any, float]] = {}
        self._sweeping = False

    def serve_connection(self, sock: ClientSocket) -> None:
        """Serve a connection until it ends or moves on; runs in its own greenlet."""
        self.connections += 1
        try:
            self.process_request([sock.peer, sock, wsgi.STATE_IDLE])
        except (Interrupted, ConnectionError):
            pass
        except Exception:
            logger.exception("a connection of %s ended with an error", sock.peer)
        finally:
            self.connections -= 1
            self.websockets.discard(sock)
            sock.session_counted()
            sock.close()
            self.changed()

    def opened(self, websocket: WebSocket) -> None:
        """A connection lives on as a websocket, see :mod:`.websocket`."""
        self.connections += 1
        self.websockets.add(websocket)

    def ended(self, websocket: WebSocket) -> None:
        self.connections -= 1
        self.websockets.discard(websocket)
        self.changed()

    def abandon(self) -> None:
        """In a forked child: let go of all connections, which are the parent's."""
        for client in _clients:
            close_socket(client.fd)
        for websocket in self.websockets:
            if isinstance(websocket, WebSocket):
                websocket.abandon()

    def end_websockets(self) -> None:
        """Wait no longer for what clients of websockets have to say."""
        for websocket in list(self.websockets):
            websocket.end()

    def idle(self, protocol: Protocol) -> _Idle:
        if not self._sweeping:
            self._sweeping = True
            hubs.get_hub().schedule_call_global(self.keepalive_timeout, self._sweep)
        return _Idle(self._idle, protocol)

    def _sweep(self) -> None:
        """End the connections that have waited too long."""
        now = time.monotonic()
        for protocol, (_, since) in self._idle.items():
            if now < since + self.keepalive_timeout:
                later = max(1.0, since + self.keepalive_timeout - now)
                hubs.get_hub().schedule_call_global(later, self._sweep)
                return
            hubs.get_hub().schedule_call_global(0, self._wake, protocol, TimeoutError)
        self._sweeping = False

    def release_idle(self) -> None:
        """Send every connection that waits for its next request back to the router."""
        for protocol in self._idle:
            hubs.get_hub().schedule_call_global(0, self._wake, protocol, Interrupted)

    def _wake(self, protocol: Protocol, error: type[Exception]) -> None:
        if protocol in self._idle:  # else its next request has just begun
            self._idle[protocol][0].throw(error)


class _Idle:
    """While it lasts, the connection is between two requests and can be interrupted."""

    def __init__(self, idle: dict[Protocol, tuple[Any, float]], protocol: Protocol) -> None:
        self._all = idle
        self._protocol = protocol

    def __enter__(self) -> None:
        self._all[self._protocol] = greenlet.getcurrent(), time.monotonic()

    def __exit__(self, *error: object) -> None:
        del self._all[self._protocol]
