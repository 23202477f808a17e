"""Passes requests to the ASGI application, with uvicorn's protocol classes.

A protocol object gets exactly one request: the worker has parsed its head strictly, and parses the
next request on the connection itself, too. An Engine.IO handshake does not need uvicorn, see
:mod:`.handshake`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Optional

from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from ...common.limits import (
    APPLICATION_MESSAGE,
    APPLICATION_READ,
    HALF_CLOSED_SECONDS,
    HEAD_BYTES,
    UNREAD_BODY_BYTES,
)
from ...common.reasons import PROTOCOL, TOO_SLOW
from ...engine.deadlines import NEVER, NOWHERE
from ...engine.http import ChunkedBody, Head, HttpError
from ...engine.request import Request
from ..application import ApplicationError
from ..asgi_environ import make_environ
from ..logs import adopt
from ..patience import patience
from ..taker import EXCHANGE, Taker
from .handshake import Handshake
from .scope import is_about_client, is_websocket, release
from .transport import ClientTransport

if TYPE_CHECKING:
    from ..connection import Connection
    from .runtime import AsyncioRuntime

logger = logging.getLogger("supervisor_sio.worker")

App = Callable[[Any, Any, Any], Awaitable[Any]]

#: The key of the :class:`Call` in a scope's state, until the application gets the scope.
_CALL = "supervisor_sio.call"

#: Most bytes of a body to read at once.
_BLOCK = 65536

_BAD_REQUEST = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 16\r\n\r\n400 Bad Request\n"
)


class Application:
    """The ASGI application of a worker.

    :param app: an ASGI 3 application.
    """

    def __init__(self, app: App, runtime: AsyncioRuntime) -> None:
        self.app = app
        self.runtime = runtime
        self._config = Config(
            self._call,
            interface="asgi3",
            http="httptools",
            ws="wsproto" if find_spec("wsproto") else "none",
            ws_max_size=APPLICATION_MESSAGE,
            ws_per_message_deflate=False,  # would take 256 KB of memory per client
            lifespan="auto",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # the router handles trusted proxies
            server_header=False,
            date_header=False,  # make_protocol() sets the Date field
        )
        self._config.load()
        self._server_state = ServerState()
        self._lifespan: Any = None
        self._lifespan_task: Optional[asyncio.Task[None]] = None
        self._startup_message = ""
        # Hide uvicorn's INFO lines about its own start and every websocket.
        log = logging.getLogger("uvicorn.error")
        if log.level == logging.NOTSET:
            log.setLevel(logging.WARNING)
        adopt(log)

    # --- lifespan ---------------------------------------------------------------------

    async def start_up(self) -> None:
        """Run the application's lifespan startup.

        :raises ApplicationError: if it fails.
        """
        self._lifespan = self._config.lifespan_class(self._config)
        await self._lifespan.startup()
        if self._lifespan.should_exit:
            lines = self._startup_message.strip().splitlines() or ["it gave no reason"]
            raise ApplicationError(
                f"the application's startup failed: {lines[-1]}", "\n".join(lines[:-1])
            )

    async def shut_down(self) -> None:
        """Run the application's lifespan shutdown; errors are logged.

        If the startup is unfinished, it is cancelled instead: uvicorn runs it in a task of its own,
        which goes on when :meth:`start_up` is cancelled.
        """
        if self._lifespan is not None and self._lifespan.startup_event.is_set():
            await self._lifespan.shutdown()
        elif self._lifespan_task is not None:
            self._lifespan_task.cancel()

    @property
    def state(self) -> dict[str, Any]:
        """The state of the lifespan, of which each scope gets a copy."""
        return self._lifespan.state if self._lifespan is not None else {}

    @property
    def busy(self) -> bool:
        """Whether a request, or the application's work after its response, is unfinished."""
        return bool(self._server_state.tasks)

    async def _run_lifespan(self, scope: Any, receive: Any, send: Any) -> None:
        self._lifespan_task = asyncio.current_task()

        async def note(message: Any) -> None:
            if message["type"] == "lifespan.startup.failed":
                self._startup_message = message.get("message", "")
                message = {"type": message["type"]}  # start_up() reports it instead of uvicorn
            await send(message)

        await self.app(scope, receive, note)

    # --- requests ---------------------------------------------------------------------

    def serve(self, connection: Connection, head: Head) -> None:
        """Answer a request, see :meth:`..runtime.Runtime.serve`."""
        if "EIO=" in head.query and head.length == 0:
            self.runtime.run(Handshake(self, connection, head).run)
        else:
            self.pass_on(connection, head, self.app)

    def pass_on(
        self,
        connection: Connection,
        head: Head,
        app: App,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        """Let uvicorn call ``app``, and write what it sends.

        :param ended: called when the application no longer has the connection.
        """
        Call(self, connection, head, app, ended).begin()

    def make_protocol(self, head: Head, call: Call) -> Any:
        """Create uvicorn's protocol object for one request."""
        # uvicorn's protocol on httptools sends chunks even to HTTP/1.0 clients.
        kind: Any = self._config.http_protocol_class if head.version != "HTTP/1.0" else H11Protocol
        self._server_state.default_headers = [(b"date", self.runtime.date().encode())]
        state = {**self.state, _CALL: call}
        return kind(
            config=self._config,
            server_state=self._server_state,
            app_state=state,
            _loop=self.runtime.loop,
        )

    async def _call(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._run_lifespan(scope, receive, send)
            return
        call: Call = scope["state"].pop(_CALL)
        await call.run(scope, receive, send)


class Call:
    """One request that uvicorn serves, from its head to the end of its response."""

    __slots__ = (
        "deadline",
        "slot",
        "_application",
        "_connection",
        "_client",
        "_head",
        "_app",
        "_ended",
        "_transport",
        "_protocol",
        "_chunks",
        "_left",
        "_received",
        "_discarded",
        "_waiting_since",
        "_waited",
        "_taker",
        "_taken",
        "_environ",
        "_upgraded",
        "_accepted",
        "_started",
        "_answered",
        "_closes",
        "_failed",
    )

    def __init__(
        self,
        application: Application,
        connection: Connection,
        head: Head,
        app: App,
        ended: Callable[[], None],
    ) -> None:
        #: Until when the client has to send more of the body; used by the timing wheel.
        self.deadline = NEVER
        self.slot = NOWHERE
        self._application = application
        #: The connection while the application has it, and until the application has returned.
        self._connection: Optional[Connection] = connection
        self._client: Optional[Connection] = connection
        self._head = head
        self._app = app
        self._ended = ended
        self._transport = ClientTransport(connection, self)
        self._protocol: Any = application.make_protocol(head, self)
        self._chunks = ChunkedBody() if head.length is None else None
        #: With a Content-Length: the bytes that have not arrived.
        self._left = head.length or 0
        self._received = self._discarded = 0
        #: Since when the application waits for the client, and its total earlier waiting time.
        self._waiting_since: Optional[float] = None
        self._waited = 0.0
        self._taker = Taker(self)
        self._environ: Callable[[], dict[str, Any]] = dict
        #: Whether the engine answers instead of the application; whether the protocol is that of a
        #: websocket; and whether the application has accepted it.
        self._taken = self._upgraded = self._accepted = False
        #: Whether the response has begun, has ended, and whether the connection closes after it.
        self._started = self._answered = self._closes = False
        #: Whether the body is malformed or incomplete.
        self._failed = False

    def begin(self) -> None:
        """Pass the head, and the bytes received behind it, to the protocol."""
        connection = self._connection
        assert connection is not None
        connection.tenant = self
        self._transport.set_protocol(self._protocol)
        self._protocol.connection_made(self._transport)
        self._protocol.data_received(_as_bytes(self._head))
        if not self._upgraded:
            self._take_early(connection)
        self._transport.listen()

    def _take_early(self, connection: Connection) -> None:
        """Handle bytes received right behind the head, or behind a websocket's handshake."""
        data, connection.data = connection.data, b""
        if data and self._connection is not None:
            self.received(data)

    # --- the application --------------------------------------------------------------

    async def run(self, scope: Any, receive: Any, send: Any) -> None:
        """Call the application."""
        if scope["type"] == "http":
            receive, send = self._receiving(receive), self._sending(send)
        else:
            send = self._sending_frames(send)
        self._environ = partial(make_environ, scope)
        scope[EXCHANGE] = self._taker
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            gone = self._connection is None or self._failed
            if not gone or not is_about_client(error):
                raise
            logger.debug("a request to the application failed", exc_info=True)
        finally:
            self._client = None
            self._taker.release()
            release(scope)
            if self._taken and not self._failed:
                self._leave_to_engine()

    def take(self) -> tuple[Request, Connection]:
        """:meth:`.Taker.take`"""
        connection = self._client  # may be closed already
        if connection is None or self._started:
            raise RuntimeError("the request has ended")
        self._taken = True
        if self._body_ended:
            self._transport.pause_reading()
        environ = self._environ
        return Request(self._head, connection.scheme, connection.address, environ), connection

    def _receiving(self, receive: Any) -> Any:
        async def wait() -> Any:
            if self._body_ended:
                return await receive()
            self._wait(time.monotonic())
            try:
                return await receive()
            finally:
                if not self._answered:
                    self._wait_no_more(time.monotonic())

        return wait

    def _sending(self, send: Any) -> Any:
        async def pass_on(message: Any) -> None:
            if self._taken:
                return
            self._started = True
            await send(message)
            if self._connection is None:
                # uvicorn no longer waits in send(): an endless sender would block the loop.
                await asyncio.sleep(0)
                return
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self._answer_ended()

        return pass_on

    def _sending_frames(self, send: Any) -> Any:
        async def pass_on(message: Any) -> None:
            if self._taken:
                return
            self._started = True
            await send(message)
            connection = self._connection
            if message["type"] == "websocket.accept" and connection is not None:
                self._accepted = True
                self._take_early(connection)

        return pass_on

    def _wait(self, now: float) -> None:
        """The application waits for the body: set the client's deadline."""
        self._waiting_since = now
        until = now + max(0.0, patience(self._received, self._waited))
        self._application.runtime.deadlines.set(self, until)

    def _wait_no_more(self, now: float) -> None:
        if self._waiting_since is not None:
            self._waited += now - self._waiting_since
            self._waiting_since = None
            self.deadline = NEVER

    def on_deadline(self, now: float) -> None:
        """The client does not send the body, or has stopped sending before the response."""
        if self._connection is not None:
            if not self._body_ended:
                self._connection.count(TOO_SLOW, "does not send the body")
            self._connection.end()

    # --- the client -------------------------------------------------------------------

    @property
    def wanted(self) -> int:
        """:meth:`.transport.User.wanted`"""
        if self._accepted:
            return APPLICATION_READ
        if not self._body_ended:
            return min(_BLOCK, self._left) if self._chunks is None else self._chunks.wanted
        connection = self._connection
        return 0 if connection is None else max(0, HEAD_BYTES - len(connection.data))

    @property
    def _body_ended(self) -> bool:
        return not self._left if self._chunks is None else self._chunks.ended

    def received(self, data: bytes) -> None:
        """:meth:`.transport.User.received`"""
        if self._connection is None:
            return
        if self._accepted:
            self._protocol.data_received(data)
        elif self._body_ended:
            self._connection.data += data
        else:
            self._take_body(self._connection, data)

    def client_ended(self) -> None:
        """:meth:`.transport.User.client_ended`: the client may still read the response."""
        connection = self._connection
        if connection is None:
            return
        if self._upgraded:
            connection.end()
        elif not self._body_ended:
            self._end_by_ourselves()
        else:
            self._application.runtime.deadlines.after(self, HALF_CLOSED_SECONDS)

    def _take_body(self, connection: Connection, data: bytes) -> None:
        now = time.monotonic()
        waits = self._waiting_since is not None
        self._wait_no_more(now)
        if self._chunks is None:
            piece, rest = data[: self._left], data[self._left :]
            self._left -= len(piece)
            framed = piece
        else:
            try:
                piece = self._chunks.feed(data)
            except HttpError as error:
                self._refuse_body(connection, error)
                return
            framed = b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
            rest = b""
            if self._chunks.ended:
                framed, rest = framed + b"0\r\n\r\n", self._chunks.rest
        connection.data += rest
        self._received += len(piece)
        if self._answered:
            self._discarded += len(data)
            self._see_rest()
        elif framed:
            if waits and not self._body_ended:
                self._wait(now)
            self._protocol.data_received(framed)

    def _refuse_body(self, connection: Connection, error: HttpError) -> None:
        connection.count(PROTOCOL, error)
        self._end_by_ourselves()

    def _end_by_ourselves(self) -> None:
        """The body is incomplete: answer 400, and tell the application that the client has gone."""
        self._failed = True
        self._transport.pause_reading()
        if not self._started:
            self._transport.write(_BAD_REQUEST)
        self._transport.close()
        self._protocol.connection_lost(None)

    def upgraded(self) -> None:
        """:meth:`.transport.User.upgraded`"""
        connection = self._connection
        if connection is not None:
            self._upgraded = True
            self._protocol = self._transport.get_protocol()
            connection.note_upgrade()

    # --- the end ----------------------------------------------------------------------

    def _answer_ended(self) -> None:
        self._answered = True
        self._closes = self._transport.is_closing()
        if not self._closes:
            self._see_rest()

    def _see_rest(self) -> None:
        """After the response: read the rest of the body, or close the connection if it is long."""
        if self._is_rest_short():
            self._wait(time.monotonic())
            self._transport.resume_reading()
        else:
            self._transport.close()

    def _is_rest_short(self) -> bool:
        if self._body_ended or self._head.named.get(b"expect"):
            return False
        return self._left <= UNREAD_BODY_BYTES and self._discarded <= UNREAD_BODY_BYTES

    def written(self) -> None:
        """:meth:`.transport.User.written`"""
        connection = self._connection
        if connection is not None and self._transport.is_closing():
            self._let_go()
            close = self._closes or not self._answered
            connection.application_ended(close, self._upgraded or not self._body_ended)

    def _leave_to_engine(self) -> None:
        connection = self._connection
        if connection is not None:
            self._let_go()
            connection.leave_to_engine(not self._body_ended)

    def readable(self) -> None:
        """:meth:`..connection.Tenant.readable`"""
        self._transport.readable()

    def stop(self) -> None:
        """:meth:`..connection.Tenant.stop`: close a websocket with 1012; let a request finish."""
        if self._upgraded:
            self._protocol.shutdown()

    def lost(self) -> None:
        """:meth:`..connection.Tenant.lost`"""
        if self._connection is not None:
            try:
                self._let_go()
            except Exception:
                logger.exception("error while ending a request to the application")

    def _let_go(self) -> None:
        assert self._connection is not None
        self._connection.tenant = None
        self._connection = None
        self._transport.release()
        self._application.runtime.deadlines.remove(self)
        if not self._failed:
            self._protocol.connection_lost(None)
        self._ended()


def _as_bytes(head: Head) -> bytes:
    """The head as bytes for uvicorn, without an Upgrade to anything but a websocket."""
    upgrades = is_websocket(head)
    query = f"?{head.query}" if head.query else ""
    lines = [f"{head.method} {head.path}{query} {head.version}".encode()]
    for name, value in head.fields:
        lower = name.lower()
        if lower == b"host":
            value = head.host.encode()
        elif lower == b"upgrade" and not upgrades:
            continue
        lines.append(b"%b: %b" % (name, value))
    return b"\r\n".join(lines) + b"\r\n\r\n"
