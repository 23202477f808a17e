"""All Engine.IO sessions of one server.

The runtime calls it with requests, and when a connection has ended. It refuses what may not be,
and passes the rest to the session that a request names. The owner, who has the handlers of the
application, accepts new sessions and gets their messages. Nothing in here waits. The owner's
methods are called while a method of the engine runs, or in what was given to :meth:`Owner.soon`.
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

#: The revision of the protocol.
_REVISION = "4"


class Owner(Protocol):
    """The one who has the handlers of the application. None of these methods may wait."""

    def on_message(self, session: Session, data: Packet) -> bool:
        """A message: its text or its bytes, without the type of the Engine.IO packet.

        :return: whether the next message of this session may come. If not, it comes after
            :meth:`Session.proceed`, which must not be called in here.
        """

    def on_upgrade(self, session: Session) -> None:
        """A session has changed from polling to its websocket."""

    def on_behind(self, session: Session, behind: bool) -> None:
        """A client takes longer to answer a ping than ``ping_timeout``, or does so no more.

        It may lack what was sent long before its last answer.
        """

    def on_close(self, session: Session, reason: str) -> None:
        """A session has ended; called once for each. The owner calls :meth:`Engine.forget` later.

        :param reason: see :mod:`.reasons`.
        """

    def on_refusal(self, kind: str, message: str) -> None:
        """A request was refused.

        :param kind: as engineio names it; it logs the first of each kind as an error.
        :param message: for the log.
        """

    def count(self, reason: str, source: str, detail: str = "") -> None:
        """A client did something that is counted.

        :param reason: see :mod:`..common.reasons`.
        :param source: the client's address.
        """

    def soon(self, task: Callable[[], None]) -> None:
        """Call it in a later turn of the loop, in the order of these calls."""


class Engine:
    """The sessions of one server.

    :param deadlines: may be those of others as well.
    :param generate_id: makes the id of a new session.
    :param date: the value of the field Date for an answer that is made now (RFC 9110, 6.6.1).
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
        #: By id, until their owner forgets them.
        self.sessions: dict[str, Session] = {}
        #: Where requests with an id are the engine's, as they were sent, in the order of use.
        self.paths: dict[str, None] = {}
        self._generate_id = generate_id
        #: Those who are asked whether they are there, and who wants to know.
        self._asked: dict[Session, list[Callable[[bool], None]]] = {}

    def configure(self, options: Options) -> None:
        """Use these options from now on."""
        self.options = options
        self.answers = Answers(options, self._date)
        #: By transport, what all clients are told behind their sid.
        self._told = {transport: _told(options, transport) for transport in TRANSPORTS}

    @property
    def may_have_to_wait(self) -> bool:
        """Whether :meth:`check` calls a function of the application for requests with an Origin."""
        return callable(self.options.cors_allowed_origins)

    def add_path(self, path: str) -> None:
        """The application has passed on a request for this path: it is the engine's."""
        self.paths.pop(path, None)
        self.paths[path] = None
        if len(self.paths) > ENGINE_PATHS:
            del self.paths[next(iter(self.paths))]

    # --- whether a client is there ----------------------------------------------------

    def ask(self, sid: str, answered: Callable[[bool], None]) -> None:
        """Ping a client now, unless an answer is awaited; one whose poll broke is taken for gone.

        :param answered: is called with true when it answers, with false when its session has
            ended; not at all before.
        """
        session = self.sessions.get(sid)
        if session is None or session.closed:
            answered(False)
            return
        self._asked.setdefault(session, []).append(answered)
        if session.absent:
            # Who asks need not wait for a poll that may never come.
            session.close(TRANSPORT_CLOSE, abort=True)
        else:
            session.ask()

    def note_there(self, session: Session, there: bool) -> None:
        """A client has answered a ping, or its session has ended."""
        if self._asked:
            for answered in self._asked.pop(session, ()):
                answered(there)

    # --- requests -------------------------------------------------------------------

    def check(self, request: Request) -> Optional[bytes]:
        """Whether a request may be handled.

        :return: ``None`` if so. Otherwise its answer: a refusal, or that to OPTIONS.
        """
        if not self.answers.is_origin_allowed(request):
            origin = request.header(b"origin")
            self.owner.on_refusal("bad-origin", f"{origin} is not an accepted origin.")
            return self.answers.refusal(request, Fault.REQUEST, "Not an accepted origin.")
        if request.transport not in self.options.transports:
            return self._refuse(request, Fault.TRANSPORT, "bad-transport", "Invalid transport")
        if request.jsonp == NO_INDEX:
            message = "Invalid JSONP index number"
            return self._refuse(request, Fault.REQUEST, "bad-jsonp-index", message)
        if request.sid:
            return self._check_session(request)
        method = request.head.method
        if method not in ("GET", "OPTIONS"):
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
        if method == "OPTIONS":
            return self.answers.preflight(request)
        if request.transport == WEBSOCKET:
            return self._check_handshake(request)
        return None

    def _check_session(self, request: Request) -> Optional[bytes]:
        method = request.head.method
        if method == "OPTIONS":
            return self.answers.preflight(request)
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
        """Make the session for a handshake that may be handled; see :meth:`check`.

        The owner then calls :meth:`accept` or :meth:`refuse`.
        """
        sid = self._generate_id()
        session = self.sessions[sid] = Session(self, sid, request.address)
        return session

    def accept(self, session: Session, request: Request, exchange: Exchange) -> None:
        """Answer the handshake: the application has accepted the client."""
        if session.state is CLOSED:
            exchange.answer(self.answers.refusal(request, Fault.SESSION))
            return
        packet = f'{OPEN}{{"sid":{_encode(session.sid)},{self._told[request.transport]}'
        if request.transport == WEBSOCKET:
            session.accept_websocket(request, exchange, packet)
        else:
            session.accept_polling(request, exchange, packet)

    def refuse(self, session: Session, request: Request, exchange: Exchange, message: Any) -> None:
        """Answer the handshake: the application has refused the client.

        :param message: for the client; anything that JSON takes.
        """
        session.end()
        self.sessions.pop(session.sid, None)
        exchange.answer(self.answers.unauthorized(request, message))

    # --- requests of sessions ---------------------------------------------------------

    def body_limit(self, request: Request) -> Union[int, bytes]:
        """Bytes that the body of a POST may have; or the answer, when it is refused."""
        answer = self.check(request)
        return self.options.max_http_buffer_size if answer is None else answer

    def refuse_body(self, request: Request, exchange: Exchange) -> None:
        """Answer a POST that is longer than :meth:`body_limit`; its session and connection end."""
        answer = self.check(request)
        if answer is None:
            self.sessions[request.sid].refuse_body(request, exchange)
        else:
            exchange.answer(answer)

    def handle(self, request: Request, exchange: Exchange, body: Optional[bytes]) -> None:
        """Handle a request of a session; it is answered in here, or later.

        :param body: of a POST, no longer than :meth:`body_limit`; ``None`` for a GET.
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
        """The connection of a request has ended before its answer."""
        if exchange.session is not None:
            exchange.session.gone(exchange)

    def forget(self, sid: str) -> None:
        """Remove a session, once polls cannot need it either: the owner has handled its end."""
        session = self.sessions.get(sid)
        if session is None:
            return
        session.forgotten = True
        if session.state is CLOSED:
            del self.sessions[sid]

    # --- to another process, and from one -----------------------------------------------

    def take_out(self, sid: str) -> dict[str, Any]:
        """Stop a session with which another process goes on; its owner is not told.

        What of it is left here does nothing any more, whoever calls it. Its connections, see
        :meth:`Session.connections`, are the caller's.

        :return: what :meth:`restore` takes.
        :raises NotMovable: as :meth:`Session.check_movable`; nothing has been changed then.
        """
        session = self.sessions[sid]
        session.check_movable()
        state = session.state_as_dict()
        self.drop(sid)
        return state

    def drop(self, sid: str) -> None:
        """The same, where nobody wants its state."""
        self.sessions[sid].let_go()

    def restore(
        self,
        state: Any,
        connect: Callable[[WebSocket], Link],
        poll: Optional[Exchange] = None,
        post: Optional[Exchange] = None,
        elapsed: float = 0.0,
    ) -> Session:
        """Have a session of another process, which goes on with :meth:`Session.start`.

        Nothing is due or called before that. What is sent to it is passed on to its connections.

        :param state: what :meth:`take_out` has returned there.
        :param connect: gives its websocket the connection, which does not read before
            :meth:`.WebSocket.start`; called once at most, when all else is right.
        :param poll: the poll that waits, where there is one.
        :param post: the POST that has yet to be answered, where there is one.
        :param elapsed: seconds since it was taken out: the next ping is due as if it had been
            here meanwhile.
        :raises ValueError: names the argument, or the field of the state, that is wrong.
        """
        saved = Saved(state, "session")
        if saved.text("sid") in self.sessions:
            raise ValueError(f"session: sid {saved.text('sid')!r} is here already")
        session = Session.restore(self, saved, connect, poll, post, elapsed)
        self.sessions[session.sid] = session
        return session


def _told(options: Options, transport: str) -> str:
    """The packet that opens a session, from behind its sid on."""
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
