"""All Engine.IO sessions of one server.

The runtime passes requests to the engine, and reports when a connection ends. The engine refuses
invalid requests, and passes the others to the session that they name. The owner, which runs the
application's handlers, accepts new sessions and receives their messages. Nothing in here blocks.
The owner's methods are called from methods of the engine, or from tasks given to
:meth:`Owner.soon`.
"""

from __future__ import annotations

import json
from typing import Any, Callable, Optional, Protocol, Union

from ..common.limits import ENGINE_PATHS
from . import websocket
from .answers import Answers, Fault
from .deadlines import Deadlines
from .options import TRANSPORTS, WEBSOCKET, Options
from .packets import OPEN
from .payload import Packet
from .reasons import PING_TIMEOUT, TRANSPORT_CLOSE
from .request import NO_INDEX, Request
from .saved import Saved
from .session import CLOSED, LEFT, OPENING, Exchange, Session
from .session import WEBSOCKET as ON_WEBSOCKET
from .websocket import HandshakeError, Link, WebSocket

_encode = json.JSONEncoder(separators=(",", ":")).encode

#: The revision of the Engine.IO protocol.
_REVISION = "4"


class Owner(Protocol):
    """Runs the application's handlers. None of these methods may block."""

    def on_message(self, session: Session, data: Packet) -> bool:
        """The client has sent a message.

        :param data: its text or bytes, without the type of the Engine.IO packet.
        :return: whether to deliver this session's next message. If false, the session waits for
            :meth:`Session.proceed`, which must not be called in here.
        """

    def on_upgrade(self, session: Session) -> None:
        """A session has upgraded from polling to a websocket."""

    def on_behind(self, session: Session, behind: bool) -> None:
        """A client takes longer than ``ping_timeout`` to answer pings, or no longer does.

        While it does, even its last pong does not prove that it has received what was sent.
        """

    def on_close(self, session: Session, reason: str) -> None:
        """A session has ended. Called once; the owner later calls :meth:`Engine.forget`.

        :param reason: see :mod:`.reasons`.
        """

    def on_refusal(self, kind: str, message: str) -> None:
        """A request was refused.

        :param kind: python-engineio's name, which logs the first refusal of each kind as an error.
        :param message: for the log.
        """

    def count(self, reason: str, source: str, detail: str = "") -> None:
        """Count a fault of a client.

        :param reason: see :mod:`..common.reasons`.
        :param source: the client's address.
        """

    def soon(self, task: Callable[[], None]) -> None:
        """Call ``task`` in a later turn of the loop; tasks run in the order of these calls."""


class Engine:
    """The sessions of one server.

    :param deadlines: may be shared with other parts of the process.
    :param generate_id: returns the id for a new session.
    :param date: returns the current value of the Date field (RFC 9110, 6.6.1).
    """

    def __init__(
        self,
        options: Options,
        owner: Owner,
        deadlines: Deadlines,
        generate_id: Callable[[], str],
        date: Callable[[], str],
    ) -> None:
        self.owner = owner
        self.deadlines = deadlines
        self._date = date
        self.configure(options)
        #: By id, until the owner calls :meth:`forget`.
        self.sessions: dict[str, Session] = {}
        #: Paths, as clients send them, at which requests with a sid are the engine's; the most
        #: recently used last.
        self.paths: dict[str, None] = {}
        self._generate_id = generate_id
        #: The sessions that were pinged for :meth:`ask`, with the callbacks for the result.
        self._asked: dict[Session, list[Callable[[bool], None]]] = {}

    def configure(self, options: Options) -> None:
        """Use these options from now on."""
        self.options = options
        self.answers = Answers(options, self._date)
        #: By transport: the open packet behind the sid, which is the same for all clients.
        self._open_data = {transport: _open_data(options, transport) for transport in TRANSPORTS}

    @property
    def may_have_to_wait(self) -> bool:
        """Whether :meth:`check` calls a function of the application for requests with an Origin."""
        return callable(self.options.cors_allowed_origins)

    def add_path(self, path: str) -> None:
        """Remember that requests for this path are the engine's: the application passed one on."""
        self.paths.pop(path, None)
        self.paths[path] = None
        if len(self.paths) > ENGINE_PATHS:
            del self.paths[next(iter(self.paths))]

    # --- whether a client still answers -----------------------------------------------

    def ask(self, sid: str, answered: Callable[[bool], None]) -> None:
        """Ping a client now, unless a pong is pending, and report whether it answers.

        A session whose poll has lost its connection is closed at once.

        :param answered: called with true when the client answers, with false when its session
            has ended.
        """
        session = self.sessions.get(sid)
        if session is None or session.closed:
            answered(False)
            return
        self._asked.setdefault(session, []).append(answered)
        if session.absent:
            # Its next poll may never come: do not let the caller wait for it.
            session.close(TRANSPORT_CLOSE, abort=True)
        else:
            session.ask()

    def note_there(self, session: Session, there: bool) -> None:
        """Call the callbacks of :meth:`ask`: the client has answered, or its session has ended."""
        if self._asked:
            for answered in self._asked.pop(session, ()):
                answered(there)

    # --- requests -------------------------------------------------------------------

    def check(self, request: Request) -> Optional[bytes]:
        """Check whether a request may be handled.

        :return: ``None`` if it may; otherwise the response: a refusal, or the one to OPTIONS.
        """
        if not self.answers.is_origin_allowed(request):
            origin = request.header(b"origin")
            self.owner.on_refusal("bad-origin", f"{origin} is not an accepted origin.")
            return self.answers.refusal(request, Fault.REQUEST, "Not an accepted origin.")
        method = request.head.method
        if method == "OPTIONS":
            # Before all other checks: a browser shows why a request is refused only if the
            # preflight before it is accepted.
            return self.answers.preflight(request)
        if request.transport not in self.options.transports:
            return self._refuse(request, Fault.TRANSPORT, "bad-transport", "Invalid transport")
        if request.jsonp == NO_INDEX:
            message = "Invalid JSONP index number"
            return self._refuse(request, Fault.REQUEST, "bad-jsonp-index", message)
        if request.sid:
            return self._check_session(request)
        if method != "GET":
            message = f"Method {method} not supported"
            return self._refuse(request, Fault.METHOD, "bad-method", message)
        if request.version != _REVISION:
            return self._refuse(
                request,
                Fault.VERSION,
                "bad-version",
                "The client is using an unsupported version of the Socket.IO or Engine.IO "
                "protocols",
            )
        if request.transport == WEBSOCKET:
            return self._check_handshake(request)
        return None

    def _check_session(self, request: Request) -> Optional[bytes]:
        method = request.head.method
        if method not in ("GET", "POST"):
            message = f"Method {method} not supported"
            return self._refuse(request, Fault.REQUEST, "bad-method", message)
        session = self.sessions.get(request.sid)
        if session is not None and session.overdue and session.live is None:
            session.close(PING_TIMEOUT)
        if session is not None and session.state is LEFT:
            if method == "POST" or request.transport == WEBSOCKET:
                session.end()
        if session is None or session.state is OPENING or session.state is CLOSED:
            message = f"Invalid session {request.sid}"
            return self._refuse(request, Fault.SESSION, "bad-sid", message)
        if request.transport == WEBSOCKET:
            return self._check_handshake(request)
        if session.state is ON_WEBSOCKET:
            message = f"Unexpected HTTP request for session {request.sid}"
            return self._refuse(request, Fault.REQUEST, "unexpected-http", message)
        return None

    def _check_handshake(self, request: Request) -> Optional[bytes]:
        try:
            websocket.check(request)
        except HandshakeError as error:
            self.owner.on_refusal("bad-upgrade", f"Invalid websocket upgrade: {error}")
            message = f"Invalid websocket handshake: {error}"
            return self.answers.refusal(request, Fault.REQUEST, message, [websocket.VERSION])
        return None

    def _refuse(self, request: Request, fault: Fault, kind: str, message: str) -> bytes:
        self.owner.on_refusal(kind, message)
        return self.answers.refusal(request, fault)

    # --- handshakes -------------------------------------------------------------------

    def open(self, request: Request) -> Session:
        """Create the session for a handshake that has passed :meth:`check`.

        The owner then calls :meth:`accept` or :meth:`refuse`.
        """
        sid = self._generate_id()
        session = self.sessions[sid] = Session(self, sid, request.address)
        return session

    def accept(self, session: Session, request: Request, exchange: Exchange) -> None:
        """Answer the handshake of a client that the application has accepted."""
        if session.state is CLOSED:
            exchange.answer(self.answers.refusal(request, Fault.SESSION))
            return
        packet = f'{OPEN}{{"sid":{_encode(session.sid)},{self._open_data[request.transport]}'
        if request.transport == WEBSOCKET:
            session.accept_websocket(request, exchange, packet)
        else:
            session.accept_polling(request, exchange, packet)

    def refuse(self, session: Session, request: Request, exchange: Exchange, message: Any) -> None:
        """Answer the handshake of a client that the application has refused.

        :param message: for the client; any JSON-compatible value.
        """
        session.end()
        self.sessions.pop(session.sid, None)
        exchange.answer(self.answers.unauthorized(request, message))

    # --- requests of sessions ---------------------------------------------------------

    def body_limit(self, request: Request) -> Union[int, bytes]:
        """The most bytes that the body of a POST may have; or the response that refuses it."""
        answer = self.check(request)
        return self.options.max_http_buffer_size if answer is None else answer

    def refuse_body(self, request: Request, exchange: Exchange) -> None:
        """Refuse a POST longer than :meth:`body_limit`, and close its session and connection."""
        answer = self.check(request)
        if answer is None:
            self.sessions[request.sid].refuse_body(request, exchange)
        else:
            exchange.answer(answer)

    def handle(self, request: Request, exchange: Exchange, body: Optional[bytes]) -> None:
        """Handle a request of a session, and answer it now or later.

        :param body: the body of a POST, at most :meth:`body_limit` bytes; ``None`` for a GET.
        """
        answer = self.check(request)
        if answer is not None:
            exchange.answer(answer)
            return
        session = self.sessions[request.sid]
        if body is not None:
            session.post(request, exchange, body)
        elif request.transport == WEBSOCKET:
            session.upgrade(request, exchange)
        else:
            session.poll(request, exchange)

    def gone(self, exchange: Exchange) -> None:
        """The connection of a request has ended before its response was written."""
        if exchange.session is not None:
            exchange.session.gone(exchange)

    def forget(self, sid: str) -> None:
        """The owner has handled the session's end: remove it, once no poll can need it."""
        session = self.sessions.get(sid)
        if session is None:
            return
        session.forgotten = True
        if session.state is CLOSED:
            del self.sessions[sid]

    # --- to another process, and from one -----------------------------------------------

    def take_out(self, sid: str) -> dict[str, Any]:
        """Remove a session that another process will continue, without calling the owner.

        Later calls to the session's objects here have no effect. Its connections, see
        :meth:`Session.connections`, belong to the caller.

        :return: the state for :meth:`restore`.
        :raises NotMovable: see :meth:`Session.check_movable`; the session is unchanged then.
        """
        session = self.sessions[sid]
        session.check_movable()
        state = session.state_as_dict()
        self.drop(sid)
        return state

    def drop(self, sid: str) -> None:
        """As :meth:`take_out`, without saving the state."""
        self.sessions[sid].let_go()

    def restore(
        self,
        state: Any,
        connect: Callable[[WebSocket], Link],
        poll: Optional[Exchange] = None,
        post: Optional[Exchange] = None,
        elapsed: float = 0.0,
    ) -> Session:
        """Add a session of another process; :meth:`Session.start` continues it.

        Before that it has no deadlines and calls nobody; packets sent to it reach its connections.

        :param state: what :meth:`take_out` returned in the other process.
        :param connect: returns the websocket's connection, which does not read before
            :meth:`.WebSocket.start`. Called at most once, after everything else was checked.
        :param poll: the pending poll, if there is one.
        :param post: the POST without a response, if there is one.
        :param elapsed: seconds since the session was taken out; they count towards the next ping.
        :raises ValueError: if an argument or a field of the state, which it names, is wrong.
        """
        saved = Saved(state, "session")
        if saved.text("sid") in self.sessions:
            raise ValueError(f"session: sid {saved.text('sid')!r} exists already")
        session = Session.restore(self, saved, connect, poll, post, elapsed)
        self.sessions[session.sid] = session
        return session


def _open_data(options: Options, transport: str) -> str:
    """The end of the packet that opens a session, from behind its sid."""
    interval = options.ping_interval + options.ping_interval_grace_period
    text = _encode(
        {
            "upgrades": options.upgrades(transport),
            "pingTimeout": round(options.ping_timeout * 1000),
            "pingInterval": round(interval * 1000),
            "maxPayload": options.max_http_buffer_size,
        }
    )
    return text[1:]
