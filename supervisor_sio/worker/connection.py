"""One connection of a client, driven by callbacks of the runtime's loop.

No task waits for a client: the loop calls :meth:`Connection._readable` when bytes have arrived.
The states of a connection:

===========  ==================================================================================
HEAD         waits for the next request, or the rest of its head
BODY         waits for the rest of a body, which the engine gets as a whole
WAITING      the engine has the request and has not answered, or the response is being written
APPLICATION  the application has the request, see :meth:`.Runtime.serve`
MOVING       the connection is handed back to the router, as soon as one is connected
WEBSOCKET    the engine has a websocket on the connection
LINGER       the last response was sent; input is read and dropped, since closing with unread
             input could destroy the response
CLOSED
===========  ==================================================================================

Before each request on a kept connection, the request line decides whether the connection stays:
for a session of another worker, and for a handshake, it is handed back to the router, with all
bytes already read.
"""

from __future__ import annotations

import logging
import re
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol

from ..common.cors import origins_of
from ..common.limits import (
    HEAD_BYTES,
    LINGER_SECONDS,
    READING_STOPS,
    SLOW_OUTPUT,
    STALLED_SECONDS,
)
from ..common.reasons import FAILED, PROTOCOL, TOO_SLOW
from ..common.request import BadRequest, parse_head
from ..common.unavailable import refusal
from ..engine.deadlines import NEVER
from ..engine.engine import Engine
from ..engine.http import Head, HttpError, find_end, read_head
from ..engine.request import Request
from ..engine.websocket import WebSocket
from .forks import close_socket
from .movable import Gathering, Movable, SocketAddress
from .movable import State as State
from .output import Backlog

if TYPE_CHECKING:
    from .server import Server

logger = logging.getLogger("supervisor_sio.worker")

_PEEK = int(socket.MSG_PEEK)

#: Bytes to read at once where a head is expected: most heads are shorter, and the bytes behind
#: one have to fit into a message to the router.
_HEAD_READ = 2048
_READ = 65536

#: A server should skip an empty line before a request (RFC 9112, 2.2); like the router, skip 4.
_EMPTY_LINES = re.compile(rb"(?:\r?\n){0,4}")

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


# Reading a global takes a tenth of the time of an enum's attribute.
_HEAD, _BODY, _WAITING, _APPLICATION, _MOVING, _WEBSOCKET, _LINGER, _CLOSED = State


class Tenant(Protocol):
    """Reads and writes the socket of a connection in the application's place."""

    def readable(self) -> None:
        """The socket is readable; called while the connection listens."""

    def stop(self) -> None:
        """The worker stops."""

    def lost(self) -> None:
        """The connection has ended: release the socket, which is about to be closed."""


class Connection(Movable):
    """A client's connection: an Exchange of the engine, and a Link if it becomes a websocket.

    :param sock: a plain non-blocking socket, which the connection owns from now on.
    :param prefix: bytes that the router or another worker has read from it.
    :param placed: whether the router chose this worker for the first request.
    :param on_session: called when the figures include the handshake for which it was placed.
    """

    __slots__ = ("upgraded", "tenant", "_on_session", "_looked")

    def __init__(
        self,
        server: Server,
        sock: Any,
        peer: SocketAddress,
        local: SocketAddress,
        scheme: str = "http",
        prefix: bytes = b"",
        placed: bool = True,
        on_session: Optional[Callable[[], None]] = None,
    ) -> None:
        super().__init__(server, sock, peer, local, scheme)
        self.data = prefix
        #: Whether the application has upgraded it to another protocol.
        self.upgraded = False
        #: What uses the socket while the application has the request, unless that is a task that
        #: notices the end of the connection itself.
        self.tenant: Optional[Tenant] = None
        self._on_session = on_session
        #: How many bytes of an incomplete head have been searched for its end.
        self._looked = 0
        self._settled = placed and not server.draining

    def open(self) -> None:
        """Start serving; call it in the loop."""
        self.server.opened(self)
        self._guarded(self._open)

    def _open(self) -> None:
        self._look()
        if self.state is _HEAD and not self._kept:
            self.due_in(self.server.head_timeout)

    @property
    def address(self) -> str:
        """The client's address, for the log."""
        return self.peer[0] if isinstance(self.peer, tuple) else "unix"

    @property
    def ended(self) -> bool:
        return self.sock is None

    def fileno(self) -> int:
        return -1 if self.sock is None else int(self.sock.fileno())

    def count(self, reason: str, detail: object = "") -> None:
        """Count a fault of the client."""
        source = f"{self.address} ({detail})" if detail else self.address
        self.server.runtime.count(reason, source)

    def session_counted(self) -> None:
        """The figures now include the handshake for which this connection was placed."""
        done, self._on_session = self._on_session, None
        if done is not None:
            done()

    # --- reading ------------------------------------------------------------------

    def listen(self) -> None:
        """Start calling :meth:`_readable` when the socket is readable."""
        if self._reading is None and self.sock is not None:
            self._reading = self.server.runtime.add_reader(self.sock.fileno(), self._readable, self)

    def stop_reading(self) -> None:
        """Stop calling :meth:`_readable`."""
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def descriptor_lost(self) -> None:
        if self.sock is not None:
            self.sock.detach()  # the descriptor's number belongs to another file now
        self.end(FAILED)

    def _guarded(self, task: Callable[..., Any], *args: Any) -> None:
        """Call a task; an error in it only ends this connection."""
        try:
            task(*args)
        except Exception as error:
            self.failed(error)

    def failed(self, error: Exception) -> None:
        """Log an internal error, and close the connection."""
        text = "error in the connection of a client"
        self.server.runtime.log(logger, logging.ERROR, text, exc_info=error)
        self.end(FAILED)

    def _readable(self, _descriptor: int = -1) -> None:
        sock = self.sock
        if sock is None:
            return  # closed by another callback of this turn
        websocket = self._websocket
        if websocket is None:
            try:
                self._read_http(sock)
            except Exception as error:
                self.failed(error)
            return
        backlog = self._backlog
        if self._held or (backlog is not None and backlog.size > READING_STOPS):
            self.stop_reading()
            return
        try:
            data = sock.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.end()
            return
        if self.data:
            data, self.data = self.data + data, b""
        self._receive(websocket.receive, data)

    def _receive(self, task: Callable[..., None], *args: Any) -> None:
        """Let the websocket handle received bytes; write the packets sent meanwhile at once."""
        self._collected = True
        try:
            task(*args)
        except Exception as error:  # the websocket has closed itself
            text = "error while handling a websocket message"
            self.server.runtime.log(logger, logging.ERROR, text, exc_info=error)
        if self._out is None and not self._closing:
            self._collected = False
            return
        try:
            self.flush()
        except Exception as error:
            self.failed(error)

    def _read_http(self, sock: Any) -> None:
        state, body = self.state, self._body
        if self.tenant is not None:
            self.tenant.readable()
            return
        if state is _APPLICATION or state is _MOVING:
            self.stop_reading()  # the application reads by itself
            return
        if state is _HEAD and self.data and not self._looked:
            self.stop_reading()  # the next request, already read, is handled first
            return
        size = _HEAD_READ
        if body is not None:
            size = body.body.wanted
        elif state is _LINGER:
            size = _READ
        try:
            data = sock.recv(size)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.end()
        elif state is _HEAD:
            self.data += data
            self._look()
        elif body is not None:
            self._take_body(body, data)
        elif state is _WAITING:
            self.data += data
            if len(self.data) > HEAD_BYTES:
                self.stop_reading()

    # --- a head -------------------------------------------------------------------

    def _look(self, tried_to_move: bool = False) -> None:
        """Handle the next request, if its head is complete."""
        try:
            head = self._next_head(tried_to_move)
        except HttpError as error:
            self._refuse(error)
            return
        if head is not None:
            self._begin(head)

    def _next_head(self, tried_to_move: bool) -> Optional[Head]:
        """The head of the next request; ``None`` if it is incomplete, or the connection moves.

        :raises HttpError: if it is not valid.
        """
        server, data = self.server, self.data
        if not self._looked and data[:1] in (b"\r", b"\n"):
            data = self.data = data[_EMPTY_LINES.match(data).end() :]  # type: ignore[union-attr]
        end = find_end(data, self._looked)
        head = read_head(data[:end]) if end else None
        if head is not None:
            self._request = server.of_session(self, head)
        if self._request is None and not self._settled and data:
            try:
                request = parse_head(data, server.paths)
            except BadRequest as bad:
                raise HttpError(bad.reason, bad.status) from None
            if request is not None:
                self._settled = True
                if not server.keeps(request):
                    self._move()
                    return None
        if head is not None:
            self.data = data[end:]
            self._looked = 0
            return head
        if data and not self._looked and self._kept:
            self.due_in(server.head_timeout)
        self._looked = len(data)
        if server.draining and not tried_to_move:
            self._move()
        else:
            self.listen()
        return None

    def _go_on(self) -> None:
        """Handle the next request, of which bytes have been read already."""
        if self.state is _HEAD:
            self._guarded(self._look)

    def _refuse(self, error: HttpError) -> None:
        self.count(TOO_SLOW if error.status.startswith("408") else PROTOCOL, error)
        self._begun()
        self._unread = True
        self.state = _WAITING
        head, origins = self.data, {}
        if self.sock is not None:
            origins = origins_of(engine.options for engine in self.server.runtime.engines)
            with suppress(OSError):  # read on after a line that is too long, to find Origin
                head += self.sock.recv(_READ)
        self.answer(refusal(error.status, head, origins), close=True)

    # --- a request ----------------------------------------------------------------

    def _begun(self) -> None:
        """Reset the state of the previous request."""
        self._kept = True
        self._settled = self._close = self._unread = self._answered = False
        self._sid = ""

    def _begin(self, head: Head) -> None:
        self._begun()
        self._close = not head.keep_alive
        self.deadline = NEVER
        if self._request is None:
            self.state = _APPLICATION
            if "sid=" in head.query and head.path.encode().startswith(self.server.paths):
                self._sid = Request(head, self.scheme, self.address, dict).sid
            self.server.runtime.serve(self, head)
            return
        engine, request = self._request
        self.state = _WAITING
        self.listen()  # to notice the end of the connection
        if head.method == "POST":
            self._begin_body(engine, request)
            return
        if head.length != 0:
            self._unread = self._close = True
        engine.handle(request, self, None)

    def _begin_body(self, engine: Engine, request: Request) -> None:
        length, data = request.head.length, self.data
        if length is not None and length <= min(len(data), engine.options.max_http_buffer_size):
            self.data = data[length:]
            engine.handle(request, self, data[:length])
            return
        most = engine.body_limit(request)
        if isinstance(most, bytes):
            self._unread = True
            self.answer(most, close=True)
            return
        try:
            self._body = Gathering(length, most, time.monotonic())
        except HttpError:
            self._unread = True
            engine.refuse_body(request, self)
            return
        expects = request.header(b"expect").lower() == "100-continue"
        if expects and not data and request.head.version == "HTTP/1.1":
            self._add(_CONTINUE)
            self.flush()
        self.state = _BODY
        self.data = b""
        self._take_body(self._body, data)

    def _take_body(self, gathering: Gathering, data: bytes) -> None:
        assert self._request is not None
        engine, request = self._request
        now = time.monotonic()
        try:
            whole = gathering.feed(data)
        except HttpError:
            self._unread = True
            self._body = None
            self._wait_for_engine()
            engine.refuse_body(request, self)
            return
        if whole is None:
            self.server.runtime.deadlines.set(self, gathering.deadline(now))
            self.listen()
            return
        self.data, self._body = gathering.body.rest, None
        self._wait_for_engine()
        engine.handle(request, self, whole)

    def _wait_for_engine(self) -> None:
        self.state = _WAITING
        self.deadline = NEVER

    # --- called by the engine and the application ------------------------------------

    def is_there(self) -> bool:
        """:meth:`.Exchange.is_there`"""
        if self.sock is None:
            return False
        try:
            return bool(self.sock.recv(1, _PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def answer(self, response: bytes, close: bool = False) -> None:
        """:meth:`.Exchange.answer`"""
        if self._answered or self.state not in (_WAITING, _APPLICATION):
            return
        self._answered = True
        self._close = self._close or close
        self._add(response)
        self.flush()

    def upgrade(self, response: bytes, websocket: WebSocket) -> Connection:
        """:meth:`.Exchange.upgrade`"""
        self._answered = self._close = False
        self._request = None
        self.state = _WEBSOCKET
        self._websocket = websocket
        self.local = self.scheme = None  # type: ignore[assignment]
        self.deadline = NEVER
        self.send(response)
        if self.data:
            self.server.runtime.call_soon(self._guarded, self._early)
        self.listen()
        self._has_websocket()
        return self

    def note_upgrade(self) -> None:
        """The application has upgraded the connection to another protocol."""
        self.upgraded = True
        self._has_websocket()

    def _has_websocket(self) -> None:
        self.counted()
        if self.server.ending:  # the worker began to stop during the handshake
            self.server.runtime.call_soon(self.end_websocket)

    def _early(self) -> None:
        """Handle bytes received right behind the handshake of a websocket."""
        data, self.data = self.data, b""
        if data and self._websocket is not None:
            self._receive(self._websocket.receive, data)

    def application_ended(self, close: bool, unread: bool) -> None:
        """The application has finished the request."""
        if self.state is not _APPLICATION:
            return  # the connection has become a websocket, or has ended
        self._close = self._close or close
        self._unread = unread
        if self._out is None:
            self._request_over()
        else:
            self.state = _WAITING  # until the engine's response is written

    def leave_to_engine(self, unread: bool) -> None:
        """The application has passed the request to the engine, which has answered it or will."""
        if self.state is not _APPLICATION:
            return
        self._unread, self._close = unread, self._close or unread
        if self._answered:
            self.application_ended(False, unread)
        else:
            self.state = _WAITING
            self.listen()

    @property
    def is_answered(self) -> bool:
        """Whether the engine has answered this request."""
        return self._answered or self.state is _WEBSOCKET

    def counted(self) -> None:
        """Note that the worker's figures may have changed."""
        if self._on_session is not None:
            self.session_counted()
        self.server.changed()

    def _request_over(self) -> None:
        self._request = None
        self.counted()
        if self._close or self._unread:
            self._finish()
            return
        self.state = _HEAD
        self.due_in(self.server.keepalive_timeout)
        if self.data:
            # Handle one pipelined request per turn.
            self.server.runtime.call_soon(self._go_on)
        elif self.server.draining:
            self._move()
        else:
            self.listen()

    # --- handing back to the router -------------------------------------------------

    def release(self) -> None:
        """The worker drains: hand the connection back, if it waits for a request."""
        if self.state is _HEAD and self.sock is not None:
            self._move()

    def unsettle(self) -> None:
        """See :meth:`.Server.unsettle`."""
        self._settled = False

    def _move(self) -> None:
        self.state = _MOVING
        try:
            self.server.hand_back(self, self.data)
        except Exception as error:
            self.failed(error)

    def moved(self, gone: bool) -> None:
        """:meth:`.Mover.moved`"""
        if self.sock is None:
            return
        if gone:
            # No shutdown(): it would end the connection in its new process, too.
            self._closed().close()
        elif not self.data:
            self.end()
        else:
            self.server.runtime.call_soon(self._stay)

    def _stay(self) -> None:
        if self.state is _MOVING:
            self.state, self._settled, self._looked = _HEAD, True, 0
            self._guarded(self._look, True)

    # --- a websocket ----------------------------------------------------------------

    def pause(self) -> None:
        """:meth:`.Link.pause`"""
        self._held = True

    def resume(self) -> None:
        """:meth:`.Link.resume`"""
        self.server.runtime.call_soon(self._guarded, self._resumed)

    def _resumed(self) -> None:
        self._held = False
        self._read_on()

    def _read_on(self) -> None:
        websocket, backlog = self._websocket, self._backlog
        if websocket is None or self._held:
            return
        if backlog is not None and backlog.size > READING_STOPS:
            self.stop_reading()  # _writable() resumes
            return
        self.listen()
        self._receive(websocket.proceed)

    def close(self, read_on: bool) -> None:
        """:meth:`.Link.close`"""
        if not self._closing:
            self._closing = True
            self._close = not read_on
            if not self._collected:
                self._collected = True
                self.server.runtime.writes.add(self, False)

    def abort(self) -> None:
        """:meth:`.Link.abort`"""
        self.end()

    def end_websocket(self) -> None:
        """Close the websocket, because the worker stops."""
        if self._websocket is not None:
            self._websocket.end()
        elif self.tenant is not None:
            self.tenant.stop()
        elif self.upgraded and self.sock is not None:
            # Some clients of a websocket never close their end.
            self._shutdown(socket.SHUT_RD)

    # --- writing ----------------------------------------------------------------------

    def _flushed(self) -> None:
        if self._closing:
            if self._close:
                self.end()
            else:
                # Closing now could reset the connection before the client has read everything.
                self._shutdown(socket.SHUT_WR)
            return
        if self.session is not None:
            self.session.taken(self)  # also while the application still has the request
        if self.state is _WAITING:
            self._request_over()

    def _stalled(self, backlog: Backlog) -> None:
        if self._websocket is None:
            self.due_in(STALLED_SECONDS)
        elif backlog.size > SLOW_OUTPUT:
            self._is_behind(backlog)

    def _took_some(self) -> None:
        if self._reading is None:
            self._read_on()

    # --- the end ----------------------------------------------------------------------

    def on_deadline(self, now: float) -> None:
        """:meth:`.Item.on_deadline`"""
        if self.sock is not None:
            self._guarded(self._out_of_time)

    def _out_of_time(self) -> None:
        state, backlog = self.state, self._backlog
        if state is _WEBSOCKET:
            if backlog is not None:
                self._judge(backlog)
        elif state is _HEAD:
            if self.data:
                self._refuse(HttpError("no complete head in time", "408 Request Timeout"))
            else:
                self._shutdown(socket.SHUT_RDWR)
                self.end()
        elif state is _BODY:
            self.count(TOO_SLOW, "does not send the body")
            self.end()
        elif state is _LINGER:
            self.end()
        elif backlog is not None:
            self.count(TOO_SLOW, "does not read the response")
            self.end()

    def _finish(self) -> None:
        """Close after the last response, which has been sent."""
        if not self._unread and not self.data:
            self._shutdown(socket.SHUT_RDWR)
            self.end()
            return
        # Closing with unread input could reset the connection before the client has read the
        # response, RFC 9112, 9.6.
        self.state = _LINGER
        self.data = b""
        if self._shutdown(socket.SHUT_WR):
            self.due_in(LINGER_SECONDS)
            self.listen()

    def _shutdown(self, how: int) -> bool:
        """Shut the socket down; false if the client has closed the connection."""
        if self.sock is None:
            return False
        try:
            self.sock.shutdown(how)
        except OSError:
            self.end()
            return False
        return True

    def end(self, reason: str = "") -> None:
        """Close the connection in any state.

        :param reason: see :mod:`...common.reasons`; counted unless empty.
        """
        if self.sock is None:
            return
        websocket, session = self._websocket, self.session
        self._closed().close()
        if reason:
            self.count(reason)
        try:
            if websocket is not None:
                websocket.ended()
            elif session is not None:
                session.gone(self)
        except Exception as error:
            text = "error while closing a connection"
            self.server.runtime.log(logger, logging.ERROR, text, exc_info=error)

    def _closed(self) -> Any:
        """Release everything but the socket, which the caller closes."""
        self.stop_reading()
        self._stop_writing()
        if self.tenant is not None:
            self.tenant.lost()
        return self._forget()

    def _forget(self) -> Any:
        sock, self.sock = self.sock, None
        self.state = _CLOSED
        self._closing = True
        self._reading = self._backlog = self._out = None
        self._websocket = self._body = self._request = None
        self.data = b""
        self.server.runtime.deadlines.remove(self)
        self.server.ended(self)
        self.counted()
        return sock

    def abandon(self) -> None:
        """In a forked child: close the descriptor only, because the parent uses the connection."""
        if self.sock is not None:
            self._on_session = None
            close_socket(self._forget())
