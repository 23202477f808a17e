"""One connection in a worker: eventlet's WSGI, on a socket that may move on.

Before each request on a kept connection its request line decides whether the
connection stays: a request of another worker's session, or a handshake, goes
back to the router with every byte already read. eventlet's own protocol class
does all the rest of HTTP.
"""

from __future__ import annotations

import errno
import io
import logging
import socket
import time
from typing import Any, Callable, Optional, Union
from urllib.parse import urlsplit, urlunsplit

import greenlet
from eventlet import hubs, patcher, wsgi
from eventlet.greenio import GreenSocket

from ..request import BadRequest, Request, parse_head
from .websocket import TAKE_CONNECTION, Connection, WebSocket

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

#: Seconds that a connection may wait for its next request. Proxies keep theirs for 60 (nginx,
#: AWS's load balancers) and have to be the first to close: else they send a request to where
#: nobody is any more. A client that polls has one every 25.
_KEPT = 75.0

#: Seconds that a client may pause in the middle of a request, or of taking the answer.
_STALLED = 60.0

#: Bytes of a connection's buffers: enough for a head; what is longer goes past them.
_BUFFER = 2048


class ClientGone(ConnectionResetError):
    """The connection ended in the middle of a request, or the client paused for too long."""

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "the client is gone")


class Interrupted(Exception):
    """Thrown into the greenlet of an idle connection when the worker drains."""


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
            raise ClientGone from None

    def recv_into(self, buffer: Any, size: int = 0, flags: int = 0) -> int:
        if self.prefix:
            view = memoryview(buffer)
            data = self.recv(size or len(view))
            view[: len(data)] = data
            return len(data)
        try:
            return int(super().recv_into(buffer, size or len(buffer), flags))
        except socket.timeout:
            raise ClientGone from None

    def send(self, data: Any, flags: int = 0) -> int:
        try:
            return int(super().send(data, flags))
        except socket.timeout:
            raise ClientGone from None

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


class _Stream(io.RawIOBase):
    """The socket as a raw stream that can say "nothing now" instead of waiting."""

    def __init__(self, sock: ClientSocket) -> None:
        self._sock = sock
        self.may_wait = True
        #: Whether the connection must not end here.
        self.in_request = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> Optional[int]:
        if not self.may_wait:
            return None
        size = self._sock.recv_into(buffer)
        if not size and self.in_request:
            raise ClientGone  # to eventlet, the end of what has come is the end of the request
        return size


class Protocol(wsgi.HttpProtocol):  # type: ignore[misc]
    """Serves one connection; made by :class:`Server` for each."""

    server: Server
    request: ClientSocket
    environ: dict[str, Any]
    path: str

    def setup(self) -> None:
        self.connection = self.request
        self._stream = _Stream(self.request)
        self.rfile = io.BufferedReader(self._stream, _BUFFER)
        self.wfile = self.request.makefile("wb", _BUFFER)
        self._first = self.request.placed
        #: Whether the connection goes on without this object.
        self._given_up = False

    def _read_request_line(self) -> Any:
        self._stream.in_request = False
        first, self._first = self._first, False
        if not first and not self._wait_for_request():
            return b""
        # What was on its way when this worker began to drain is judged as well.
        settled = first and not self.server.draining
        line: bytes = super()._read_request_line()
        for _ in range(4):  # as the router does, skip what RFC 9112, 2.2, says to
            if line not in (b"\r\n", b"\n"):
                break
            line = super()._read_request_line()
        if line and not settled:
            # parse_head skips what eventlet would answer with 400: leave it to eventlet.
            try:
                request = parse_head(line, self.server.paths)
            except BadRequest:
                return line
            if request is not None and not self.server.keeps(request):
                self._hand_back(line + self._take_buffered())
                return line if not self._given_up else b""
        return line

    def parse_request(self) -> bool:
        self._stream.in_request = True
        if not super().parse_request():
            return False
        if not self.path.startswith("/"):
            # RFC 9112, 3.2: other forms than the absolute one are for proxies.
            absolute = urlsplit(self.path)
            if absolute.scheme not in ("http", "https"):
                self.send_error(400)
                return False
            self.path = urlunsplit(("", "", absolute.path or "/", absolute.query, ""))
        if self.command == "HEAD":
            self.close_connection = 1  # eventlet sends the body that the application may give
        return True

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)

    def _wait_for_request(self) -> bool:
        """Idle until the next request starts; false when it is not for this worker."""
        if self._buffered() or self.request.prefix:
            return True
        if self.server.draining:
            self._hand_back(b"")
            return False
        try:
            with self.server.idle(self):
                hubs.trampoline(self.request.fileno(), read=True)
        except Interrupted:
            self._hand_back(b"")
            return False
        except OSError:
            return False
        return True

    def _buffered(self) -> bytes:
        """What was read beyond the last request, without reading more."""
        self._stream.may_wait = False
        try:
            return bytes(self.rfile.peek())
        finally:
            self._stream.may_wait = True

    def _take_buffered(self) -> bytes:
        data = self._buffered()
        self.rfile.read(len(data))
        rest, self.request.prefix = self.request.prefix, b""
        return data + rest

    def _hand_back(self, prefix: bytes) -> None:
        self._given_up = self.server.hand_back(self.request, prefix)
        if not self._given_up and prefix:
            # No router to take it: serve it here, from the bytes at hand.
            newline = prefix.find(b"\n") + 1
            self.request.prefix = prefix[newline:]

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        sock = self.request
        environ["wsgi.url_scheme"] = sock.scheme
        if sock.scheme == "https":
            environ["HTTPS"] = "on"
        environ["wsgi.multiprocess"] = True
        environ[LAST_REQUEST] = self._end_with_response
        # Behind TLS, or a PROXY header, the socket's own address is not the client's view.
        environ["SERVER_NAME"], port = wsgi.addr_to_host_port(sock.local)
        environ["SERVER_PORT"] = str(port)
        if "HTTP_UPGRADE" in environ:
            environ[TAKE_CONNECTION] = self._take_connection
            # For an application that has eventlet's own websocket: it reads from the
            # socket, past this buffer, and needs what came right behind the request.
            sock.prefix = self._take_buffered()
            set_idle = environ["eventlet.set_idle"]

            def upgraded() -> None:
                set_idle()
                sock.settimeout(None)
                self.server.websockets.add(sock)
                self._request_counted()

            environ["eventlet.set_idle"] = upgraded
        return environ

    def _end_with_response(self) -> None:
        self.close_connection = 1  # eventlet says so to the client, RFC 9112, 9.6

    def _take_connection(self) -> Connection:
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
            self._request_counted()

    def _request_counted(self) -> None:
        self.request.session_counted()
        self.server.changed()

    def finish(self) -> None:
        if self._given_up:
            # It lives on elsewhere: a shutdown() here would end it there too.
            self.rfile.close()
            self.wfile.close()
            self.request.close()
        else:
            super().finish()


#: In a traceback.
_GONE = f"{ClientGone.__module__}.{ClientGone.__qualname__}"


class _ErrorLog:
    """eventlet tells of a failing application with ``info``."""

    def info(self, message: str, *args: Any) -> None:
        last = message.rstrip().rpartition("\n")[2]
        gone = last.startswith(("BrokenPipeError", "ConnectionResetError", _GONE))
        logger.log(logging.DEBUG if gone else logging.ERROR, message.rstrip(), *args)

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
            socket_timeout=_STALLED,
        )
        self.log = _ErrorLog()
        self.paths: tuple[bytes, ...] = ()
        self.keeps = keeps
        self.hand_back = hand_back
        self.changed = changed
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

    def end_websockets(self) -> None:
        """Wait no longer for what clients of websockets have to say."""
        for websocket in list(self.websockets):
            websocket.end()

    def idle(self, protocol: Protocol) -> _Idle:
        if not self._sweeping:
            self._sweeping = True
            hubs.get_hub().schedule_call_global(_KEPT, self._sweep)
        return _Idle(self._idle, protocol)

    def _sweep(self) -> None:
        """End the connections that have waited too long."""
        now = time.monotonic()
        for protocol, (_, since) in self._idle.items():
            if now < since + _KEPT:
                later = max(1.0, since + _KEPT - now)
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
