"""An Engine.IO session: received packets, pending output, pings and the upgrade to a websocket.

What requests, and messages of the session's websocket, do in each state:

=============  ==================  ==========  ================  ===========================
state          poll                POST        new websocket     websocket's messages
=============  ==================  ==========  ================  ===========================
``OPENING``    refused             refused     refused
``POLLING``    answered, or waits  handled     → ``PROBING``
``PROBING``    answered, or waits  handled     closed at once    ``2probe``: → ``UPGRADING``
``UPGRADING``  answered soon       handled     closed at once    ``5``: → ``WEBSOCKET``
``WEBSOCKET``  refused             refused     closed at once    handled
``CLOSING``    answered            ignored     closed at once
``LEFT``       answered            refused     refused
``CLOSED``     refused             refused     refused
=============  ==================  ==========  ================  ===========================

``OPENING``: the application has not accepted the client yet. ``PROBING`` and ``UPGRADING`` become
``POLLING`` again when the websocket ends, sends anything else, or takes longer than
``UPGRADE_SECONDS``. In ``UPGRADING`` a poll is answered soon, with a ``6`` if nothing is pending,
because the client waits for the response. ``CLOSING``: the application has closed the session, and
polls have yet to fetch the pending packets, of which the last is a ``1``. ``LEFT``: the client has
closed the session with a POST; a poll that it had sent before is answered with a ``6``, and any
other request makes the state ``CLOSED``. In ``CLOSING`` and ``LEFT`` the owner's ``on_close`` has
been called. Any other end of a session makes it ``CLOSED`` at once.

A packet sent to a polling client waits for the end of this turn, so that one poll takes all packets
of the turn. The server sends a ping ``ping_interval`` after the last pong, and the client has
``ping_timeout`` to answer. With polling the ping is sent before other pending packets, and a pong
counts only after a poll has fetched the ping: a client that does not poll is considered gone.

Packets are lost with no poll: if its connection ends before the response is completely written, the
next poll's response begins with the same packets. That also holds when the next poll arrives on
another connection while the response is being written: the client has abandoned the old connection,
whose end the server may learn much later. The session ends when no poll arrives within
``ABANDONED_POLL_SECONDS`` after such an end: browsers and proxies repeat a GET whose connection
broke (RFC 9110, 9.2.2).

The owner may be busy after a message. Then the rest of the POST and its response, or the reading
from the websocket, wait for :meth:`Session.proceed`.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol, Union

from ..common.limits import (
    ABANDONED_POLL_SECONDS,
    CROSSED_POLL_SECONDS,
    LAST_POLL_SECONDS,
    MESSAGES_AT_ONCE,
    SLOW_OUTPUT_PATIENCE,
    UPGRADE_POLL_SECONDS,
    UPGRADE_SECONDS,
)
from ..common.not_movable import NotMovable
from ..common.reasons import HANDLER_RUNNING, MID_REQUEST, PROTOCOL, TOO_SLOW
from . import packets, payload
from .answers import Fault
from .deadlines import NEVER, NOWHERE
from .frames import INVALID_DATA, ProtocolError, message_frame
from .outbox import Outbox
from .packets import CLOSE, MESSAGE, NOOP, OPEN, PING, PONG, UPGRADE
from .payload import Packet, PayloadError
from .post import OWNER, POLLS, TURN, Post
from .reasons import (
    CLIENT_DISCONNECT,
    PING_TIMEOUT,
    SERVER_DISCONNECT,
    TRANSPORT_CLOSE,
    TRANSPORT_ERROR,
)
from .request import Request
from .saved import Saved
from .websocket import Link, WebSocket, accept

if TYPE_CHECKING:
    from .engine import Engine

#: Valid packets that have no meaning when a client sends them.
_IGNORED = (OPEN, UPGRADE, NOOP)

_PROBE = PING + "probe"
_PROBE_FRAME = message_frame(PONG + "probe")
_PING_FRAME = message_frame(PING)
_CLOSE_FRAME = message_frame(CLOSE)

_NO_MESSAGE = "not a Socket.IO packet"

#: Seconds by which a deadline may be late although the process is not overloaded.
_LATE = 0.1

#: Stands for the end of a POST's packets.
_END: Any = object()


class Exchange(Protocol):
    """A request that waits for its response, with its connection."""

    #: The session of a poll. When the response is completely written, the runtime calls its
    #: :meth:`Session.taken`; if the connection ends before that, :meth:`Session.gone`.
    session: Optional[Session]

    def is_there(self) -> bool:
        """Whether the connection is open, as far as the kernel knows."""

    def answer(self, response: bytes, close: bool = False) -> None:
        """Write the response now; called once. Does nothing if the connection has ended.

        :param close: whether the response announces that the connection closes.
        """

    def upgrade(self, response: bytes, websocket: WebSocket) -> Link:
        """Write the response; bytes received behind the request are the websocket's.

        The runtime does not call the websocket before this has returned.
        """


class State(Enum):
    """The states of a session; the module's docstring explains them."""

    OPENING = "opening"
    POLLING = "polling"
    PROBING = "probing"
    UPGRADING = "upgrading"
    WEBSOCKET = "websocket"
    CLOSING = "closing"
    LEFT = "left"
    CLOSED = "closed"


# Before Python 3.12, looking up an enum member takes longer than the rest of a comparison.
OPENING, POLLING, PROBING, UPGRADING, WEBSOCKET, CLOSING, LEFT, CLOSED = State

#: The owner knows that the session has ended, but a poll is still answered.
_LAST = (CLOSING, LEFT)


#: The states that can be restored, each with its required and its optional fields.
_FIELDS: dict[State, tuple[tuple[str, ...], tuple[str, ...]]] = {
    POLLING: ((), ("next_ping", "queue", "poll", "post")),
    PROBING: (("candidate",), ("next_ping", "queue", "poll", "post")),
    UPGRADING: (("candidate",), ("next_ping", "queue", "poll", "post")),
    WEBSOCKET: (("next_ping", "websocket"), ("post",)),
    CLOSING: (("queue",), ()),
    LEFT: (("queue",), ()),
}


class Ping(Enum):
    """The state of the next ping, which decides what the session's deadline means."""

    #: The ping is sent at the deadline.
    LATER = "later"
    #: The ping waits for the next poll. The client has to answer it before the deadline.
    WAITS = "waits"
    #: The ping was sent. The client has to answer it before the deadline.
    SENT = "sent"


LATER, WAITS, SENT = Ping


class Candidate:
    """The websocket of an upgrade in progress."""

    __slots__ = ("websocket", "until", "deadline", "slot", "_session")

    def __init__(self, session: Session, websocket: WebSocket, until: float) -> None:
        self.websocket = websocket
        #: When the upgrade expires.
        self.until = until
        self.deadline = NEVER
        self.slot = NOWHERE
        self._session = session

    def on_deadline(self, now: float) -> None:
        # The deadline of a poll may end the upgrade up to UPGRADE_POLL_SECONDS early: that is
        # simpler than a second deadline.
        self._session.upgrade_due(self, now > self.until - UPGRADE_POLL_SECONDS)


class Absence:
    """The deadline for the next poll, after the connection of a poll has ended."""

    __slots__ = ("_session", "deadline", "slot")

    def __init__(self, session: Session) -> None:
        self.deadline = NEVER
        self.slot = NOWHERE
        self._session = session

    def on_deadline(self, now: float) -> None:
        self._session.close(TRANSPORT_CLOSE, abort=True)


class Session:
    """The session of one client.

    :param address: the client's, for the log.
    """

    __slots__ = (
        "sid",
        "state",
        "address",
        "data",
        "running",
        "connected",
        "live",
        "deadline",
        "slot",
        "forgotten",
        "proven",
        "_engine",
        "_ping",
        "_pong_due",
        "_doubts",
        "_websocket",
        "_candidate",
        "_poll",
        "_poll_request",
        "_unread",
        "_absence",
        "_outbox",
        "_post",
        "_flushing",
    )

    def __init__(self, engine: Engine, sid: str, address: str) -> None:
        self.sid = sid
        self.state = OPENING
        self.address = address
        #: Used by the owner: the application's session data; one item for each event being
        #: handled; whether the client has connected to a namespace.
        self.data: Any = None
        self.running: Optional[list[None]] = None
        self.connected = False
        #: The websocket's connection while all packets go through it; a sender that has a
        #: complete frame may send it here directly.
        self.live: Optional[Link] = None
        self.deadline = NEVER
        self.slot = NOWHERE
        #: Whether the engine removes the session as soon as it is closed.
        self.forgotten = False
        #: When the last answered ping was sent, by the engine's clock: the client has received
        #: all packets sent before. 0 until a ping is answered.
        self.proven = 0.0
        self._engine = engine
        self._ping = LATER
        #: When the next ping, or its pong, is due.
        self._pong_due = NEVER
        #: Pongs to wait for until a pong proves again what the client has received: 2 after a
        #: doubtful ping, of which the first proves nothing.
        self._doubts = 0
        self._websocket: Optional[WebSocket] = None
        self._candidate: Optional[Candidate] = None
        #: The pending poll.
        self._poll: Optional[Exchange] = None
        self._poll_request: Optional[Request] = None
        #: The poll whose response is being written, and the packets in it. Meanwhile no poll with
        #: an open connection is pending.
        self._unread: Optional[tuple[Exchange, list[Packet]]] = None
        #: Set while the client has to poll again because a poll's connection has ended.
        self._absence: Optional[Absence] = None
        self._outbox: Optional[Outbox] = None
        self._post: Optional[Post] = None
        #: Whether :meth:`_flush` is scheduled for the end of this turn.
        self._flushing = False

    # --- called by the owner ------------------------------------------------------

    @property
    def transport(self) -> str:
        """The current transport, in python-engineio's words."""
        return "polling" if self._websocket is None else "websocket"

    @property
    def upgraded(self) -> bool:
        """Whether the session has a websocket; python-socketio's Admin UI reads it."""
        return self._websocket is not None

    @property
    def closed(self) -> bool:
        """Whether the session has ended for its owner: packets sent to it are ignored."""
        return self.state is CLOSED or self.state in _LAST

    @property
    def waiting(self) -> int:
        """Bytes of pending output, plus an allowance for each piece of it."""
        if self.live is not None:
            return self.live.waiting
        return 0 if self._outbox is None else self._outbox.size

    @property
    def at_rest(self) -> bool:
        """Whether nothing of it is under way: no change of transport, no message of the client, no
        handler of an event, and no output that the client has yet to take."""
        return (
            self.state in (POLLING, WEBSOCKET)
            and self._post is None
            and self._unread is None
            and not (self.running or self.waiting)
        )

    def send(self, packet: Packet) -> None:
        """Send an Engine.IO packet: a text that begins with its type, or a binary message."""
        if self.live is not None:
            self.live.send(message_frame(packet))
        elif not self.closed:
            self._put(packet)

    def proceed(self) -> None:
        """The owner, which was busy, is ready for the next message."""
        post = self._post
        if post is None:
            if self._websocket is not None:
                self._websocket.go_on()
        elif post.step is OWNER:
            post.step = TURN
            self._take(post)

    def refuse(self) -> None:
        """End the session because a message is not valid Socket.IO, as Node's server does."""
        if self.closed:
            return
        if self._post is not None:
            self._refuse_post(self._post, _NO_MESSAGE)
        else:
            self.count(PROTOCOL, _NO_MESSAGE)
            self.close(TRANSPORT_ERROR)

    def close(self, reason: str = SERVER_DISCONNECT, abort: bool = False) -> None:
        """End the session, and call the owner's ``on_close``.

        :param reason: for the owner, see :mod:`.reasons`.
        :param abort: send no close packet: the client knows already, or is gone.
        """
        if self.closed:
            return
        if self.state is WEBSOCKET:
            assert self.live is not None and self._websocket is not None
            if not abort:
                self.live.send(_CLOSE_FRAME)
            self._websocket.close()
            self._become_closed()
        else:
            self._close_polling(reason, abort)
        if self._post is not None:
            self._end_post(self._post)
        self._engine.owner.on_close(self, reason)

    # --- called by the engine -----------------------------------------------------

    def accept_polling(self, request: Request, exchange: Exchange, packet: str) -> None:
        """Answer the handshake that the application has accepted.

        :param packet: the packet that opens the session.
        """
        engine = self._engine
        if self.state is OPENING:
            self.state = POLLING
            self._await_ping()
        fields = engine.answers.cookies(self.sid)
        exchange.answer(engine.answers.packets(request, self._next_packets(packet), fields))
        self._after_poll()

    def accept_websocket(self, request: Request, exchange: Exchange, packet: str) -> None:
        """As :meth:`accept_polling`, for a handshake by websocket."""
        closing = self.state is not OPENING
        websocket = self._upgrade(request, exchange, None if closing else self)
        websocket.link.send(message_frame(packet))
        if closing:
            self._send_outbox(websocket.link)
            websocket.close()
            self._become_closed()
        else:
            self._go_live(websocket)
            self._await_ping()

    def end(self) -> None:
        """Make the session ``CLOSED`` at once, without calling the owner."""
        self._become_closed()

    def poll(self, request: Request, exchange: Exchange) -> None:
        """Handle a GET: answer it, or keep it pending."""
        other = self._poll
        if other is not None:
            if not exchange.is_there():
                return  # the runtime is about to report the end of its connection
            if other.is_there():
                exchange.answer(self._engine.answers.refusal(request, Fault.REQUEST))
                self.close(TRANSPORT_ERROR)
                return
            self.gone(other)
        if self._unread is not None and exchange.is_there():
            # The client polls again before it has the complete response to its last poll: it has
            # abandoned that connection.
            self.gone(self._unread[0])
        self._end_absence()
        if self._has_packets() and exchange.is_there():
            self._answer(request, exchange, self._next_packets())
            self._after_poll()
            return
        self._poll, self._poll_request = exchange, request
        exchange.session = self
        request.shrink()
        if self._candidate is not None and self.state is UPGRADING:
            self._engine.deadlines.after(self._candidate, UPGRADE_POLL_SECONDS)

    def post(self, request: Request, exchange: Exchange, body: bytes) -> None:
        """Handle a POST, whose body is complete."""
        answers = self._engine.answers
        if self.state is CLOSING:
            exchange.answer(answers.taken(request))
        elif self._post is not None:
            exchange.answer(answers.refusal(request, Fault.REQUEST))
            self.close(TRANSPORT_ERROR)
        else:
            self._post = Post(self, request, exchange, payload.decode(body))
            self._take(self._post)

    def refuse_body(self, request: Request, exchange: Exchange) -> None:
        """Refuse a POST that is longer than ``max_http_buffer_size``, and end the session."""
        exchange.answer(self._engine.answers.refusal(request, Fault.REQUEST, close=True), True)
        self.count(PROTOCOL, "a POST that is too long")
        self.close(TRANSPORT_ERROR)

    def upgrade(self, request: Request, exchange: Exchange) -> None:
        """Handle a websocket request: the client wants to upgrade from polling."""
        if self.state is not POLLING:
            self._upgrade(request, exchange, None).close()
            return
        websocket = self._upgrade(request, exchange, self)
        deadlines = self._engine.deadlines
        self.state = PROBING
        until = deadlines.clock() + UPGRADE_SECONDS
        self._candidate = Candidate(self, websocket, until)
        deadlines.set(self._candidate, until)

    def taken(self, exchange: Exchange) -> None:
        """The response to a poll has been written completely."""
        if self._unread is not None and self._unread[0] is exchange:
            self._unread = exchange.session = None

    def gone(self, exchange: Exchange) -> None:
        """The connection of a poll has ended before its response was completely written."""
        unread = self._unread
        if exchange is self._poll:
            self._poll = self._poll_request = exchange.session = None
        elif unread is not None and unread[0] is exchange:
            self._unread = exchange.session = None
            self._put_back(unread[1])
        else:
            return
        if not self.closed and self._absence is None and self._unread is None:
            self._absence = Absence(self)
            self._engine.deadlines.after(self._absence, ABANDONED_POLL_SECONDS)

    def _end_absence(self) -> None:
        absence, self._absence = self._absence, None
        if absence is not None:
            self._engine.deadlines.remove(absence)

    @property
    def absent(self) -> bool:
        """Whether the connection of a poll has ended, and the next poll has not arrived."""
        return self._absence is not None

    @property
    def overdue(self) -> bool:
        """Whether a pong is late, but :meth:`on_deadline` has not been called yet."""
        return (
            self._ping is not LATER
            and self.state not in _LAST
            and not self.held
            and self._engine.deadlines.clock() >= self._pong_due
        )

    @property
    def held(self) -> bool:
        """Whether reading from the client is paused because the owner is busy."""
        if self._post is not None:
            return self._post.step is OWNER
        return self._websocket is not None and self._websocket.held

    def on_deadline(self, now: float) -> None:
        """A ping or its pong is due, or the time for a closed session's last poll is over."""
        options = self._engine.options
        if self.state in _LAST:
            self._become_closed()
        elif self._ping is LATER:
            # The client's time runs from when the ping was due, unless this process is late.
            self._pong_due = max(self._pong_due, now - _LATE) + options.ping_timeout
            self._engine.deadlines.set(self, self._pong_due)
            if self.live is not None:
                self._ping = SENT
                self.live.send(_PING_FRAME)
            else:
                self._ping = WAITS
                self._flush()
        elif self.held or (
            self.live is not None and self.live.took_output_within(options.ping_timeout)
        ):
            # The pong may be behind unread input, or the ping behind output that the client is
            # still reading.
            self._pong_due = now + options.ping_timeout
            self._engine.deadlines.set(self, self._pong_due)
            self._doubt()
        else:
            self.close(PING_TIMEOUT)

    def ping_early(self) -> None:
        """Send the next ping now, because the client will receive nothing for a while.

        A client closes the connection when no ping arrives for some time: the JavaScript client
        after ``ping_interval`` + ``ping_timeout``, python-engineio 5 seconds after the longer of
        the two. Polling clients get no early ping: all of them would poll again at the same time.
        """
        if self.live is not None:
            self.ask()

    def ask(self) -> None:
        """Send the next ping now, unless a pong is pending, to find out if the client answers."""
        if self._ping is LATER and self.state is not OPENING and not self.closed:
            now = self._pong_due = self._engine.deadlines.clock()
            self.on_deadline(now)

    # --- called by the websocket --------------------------------------------------------

    def on_message(self, packet: Packet) -> bool:
        """:meth:`.websocket.Handler.on_message`"""
        if self.live is None:
            return self._probe(packet)
        return self._receive(packet)

    def on_close(self, websocket: WebSocket) -> None:
        """:meth:`.websocket.Handler.on_close`"""
        if websocket is self._websocket:
            self.close(TRANSPORT_CLOSE, abort=True)
        else:
            assert self._candidate is not None
            self._give_up_upgrade(self._candidate)

    def count(self, reason: str, detail: str) -> None:
        """:meth:`.websocket.Handler.count`"""
        self._engine.owner.count(reason, self.address, detail)

    # --- packets from the client --------------------------------------------------------

    def _receive(self, packet: Packet) -> bool:
        """Handle a packet.

        :return: whether the next packet may be handled now.
        :raises ProtocolError: if it is not a valid packet.
        """
        if packet.__class__ is bytes:
            return self._engine.owner.on_message(self, packet)
        kind = packet[:1]
        if kind == MESSAGE:
            return self._engine.owner.on_message(self, packet[1:])
        if kind == PONG:
            if self._ping is SENT:
                self._note_answer()
                self._await_ping()
                self._engine.note_there(self, True)
        elif kind == CLOSE:
            self.close(CLIENT_DISCONNECT, abort=True)
        elif kind not in _IGNORED:
            raise ProtocolError(INVALID_DATA, "a message that is not a packet")
        return True

    def _take(self, post: Post) -> None:
        """Handle the next packets of a POST, at most ``MESSAGES_AT_ONCE`` in this turn."""
        left = MESSAGES_AT_ONCE
        try:
            while left:
                packet = post.ahead
                if packet is None:
                    packet = next(post.packets, _END)
                    if packet is _END:
                        self._end_post(post)
                        return
                    if packet is None:
                        break
                post.ahead = packet
                # A client that leaves causes no more output.
                if self._outbox is not None and self._outbox.is_long() and packet != CLOSE:
                    self._await_polls(post)
                    return
                post.ahead = None
                if not self._receive(packet):
                    post.step = OWNER
                    return
                if self._post is not post:
                    return  # handling the packet has ended the POST
                left -= 1
        except (PayloadError, ProtocolError) as error:
            self._refuse_post(post, str(error))
        except Exception:
            self._refuse_post(post, "")
            raise
        else:
            # Let the loop serve other clients before the next packets.
            self._engine.owner.soon(self._take_turn)

    def _take_turn(self) -> None:
        post = self._post
        if post is not None and post.step is TURN:
            self._take(post)

    def _await_polls(self, post: Post) -> None:
        post.step = POLLS
        self._engine.deadlines.after(post, SLOW_OUTPUT_PATIENCE)

    def _end_post(self, post: Post) -> None:
        self._post = None
        self._engine.deadlines.remove(post)
        post.exchange.answer(self._engine.answers.taken(post.request))
        if self._websocket is not None:
            self._websocket.go_on()

    def _refuse_post(self, post: Post, why: str) -> None:
        if self._post is post:
            self._post = None
            self._engine.deadlines.remove(post)
            post.exchange.answer(self._engine.answers.refusal(post.request, Fault.REQUEST))
            self.count(PROTOCOL, why)
        self.close(TRANSPORT_ERROR)

    # --- packets to the client ----------------------------------------------------------

    def _put(self, packet: Packet) -> None:
        """Add a packet to the pending ones; cut the client off if they are too many."""
        now = self._engine.deadlines.clock()
        box = self._outbox
        if box is None:
            box = self._outbox = Outbox(now)
        box.add(packet)
        if box.is_too_long(now):
            self.cut_off()
        elif self._poll is not None and not self._flushing:
            self._flushing = True
            self._engine.owner.soon(self._flush)

    def cut_off(self) -> None:
        """End the session: the client does not fetch its pending packets."""
        self.count(TOO_SLOW, "")
        self.close(TRANSPORT_ERROR, abort=True)

    def _flush(self) -> None:
        """Answer the pending poll, if there is one, with the pending packets."""
        self._flushing = False
        poll = self._poll
        if poll is None or not self._has_packets():
            return
        if poll.is_there():
            self._answer_waiting(self._next_packets())
            self._after_poll()
        else:
            self.gone(poll)

    def _has_packets(self) -> bool:
        """Whether packets are pending, with which a poll can be answered."""
        return self._outbox is not None or self._ping is WAITS

    def _put_back(self, found: list[Packet]) -> None:
        """Make packets pending again that the client has not received."""
        if found[0] == PING:
            del found[0]
            if self._ping is SENT:
                self._ping = WAITS
        if found:
            if self._outbox is None:
                self._outbox = Outbox(self._engine.deadlines.clock())
            self._outbox.put_back(found)

    def _next_packets(self, first: Optional[Packet] = None) -> list[Packet]:
        """Take the pending packets for a response to a poll.

        :param first: a packet to put before them.
        """
        found: list[Packet] = [] if first is None else [first]
        pings = self._ping is WAITS
        if pings:
            self._ping = SENT
            found.append(PING)
        if self._outbox is not None:
            if self._outbox.take(found, self._engine.deadlines.clock()):
                self._outbox = None
            elif pings:
                self._doubt()  # the pong will not prove that the client has the remaining packets
        return found

    def _answer_waiting(self, found: list[Packet]) -> None:
        exchange, request = self._poll, self._poll_request
        assert exchange is not None and request is not None
        self._poll = self._poll_request = exchange.session = None
        self._answer(request, exchange, found)

    def _answer(self, request: Request, exchange: Exchange, found: list[Packet]) -> None:
        # This is the last poll before the websocket is used: its connection can close.
        close = self.state is UPGRADING
        response = self._engine.answers.packets(request, found, (), close)
        if self._unread is None and found[0] != NOOP:
            self._unread = exchange, found
            exchange.session = self
        exchange.answer(response, close)

    def _after_poll(self) -> None:
        """A poll has taken packets: continue a POST that waited for it, or finish closing."""
        post = self._post
        if self.state in _LAST:
            if self._outbox is None:
                self._become_closed()
        elif (
            post is not None
            and post.step is POLLS
            and not (self._outbox is not None and self._outbox.is_long())
        ):
            post.step = TURN
            self._engine.deadlines.remove(post)
            self._engine.owner.soon(self._take_turn)

    def _note_answer(self) -> None:
        """The client has sent the pong."""
        if self._doubts < 2:
            self.proven = self._pong_due - self._engine.options.ping_timeout
        if self._doubts:
            self._doubts -= 1
            if not self._doubts:
                self._engine.owner.on_behind(self, False)

    def _doubt(self) -> None:
        """Note that the next pong is late, or does not prove what the client has received."""
        is_new, self._doubts = not self._doubts, 2
        if is_new:
            self._engine.owner.on_behind(self, True)

    @property
    def behind(self) -> bool:
        """The last value passed to :meth:`.Owner.on_behind`."""
        return self._doubts > 0

    def _await_ping(self) -> None:
        self._ping = LATER
        deadlines = self._engine.deadlines
        self._pong_due = deadlines.clock() + self._engine.options.ping_interval
        deadlines.set(self, self._pong_due)

    # --- the end ------------------------------------------------------------------------

    def _close_polling(self, reason: str, abort: bool) -> None:
        self._engine.note_there(self, False)
        if self._candidate is not None:
            self._give_up_upgrade(self._candidate)
        self._ping = LATER
        if abort:
            self._end_polls()
        else:
            self._end_absence()
        if self._outbox is None or abort:
            self._outbox = Outbox(self._engine.deadlines.clock())
        self._outbox.add(NOOP if abort else CLOSE)
        if self._poll is not None:
            self._answer_waiting(self._next_packets())
        if self._outbox is not None and reason == SERVER_DISCONNECT and not abort:
            self.state = CLOSING
            self._engine.deadlines.after(self, LAST_POLL_SECONDS)
        elif self._outbox is not None and reason == CLIENT_DISCONNECT:
            self.state = LEFT
            self._engine.deadlines.after(self, CROSSED_POLL_SECONDS)
        else:
            self._become_closed()

    def _end_polls(self) -> None:
        """Stop waiting for the next poll, and for the response that is being written."""
        if self._unread is not None:
            self._unread[0].session = None
            self._unread = None
        self._end_absence()

    def _become_closed(self) -> None:
        self.state = CLOSED
        self._end_polls()
        self.live = self._websocket = self._outbox = None
        self._engine.deadlines.remove(self)
        self._engine.note_there(self, False)
        if self.forgotten:
            self._engine.sessions.pop(self.sid, None)

    # --- the upgrade from polling ---------------------------------------------------------

    def _upgrade(
        self, request: Request, exchange: Exchange, handler: Optional[Session]
    ) -> WebSocket:
        websocket = self._make_websocket(handler)
        websocket.link = exchange.upgrade(accept(request), websocket)
        return websocket

    def _make_websocket(self, handler: Optional[Session]) -> WebSocket:
        engine = self._engine
        return WebSocket(handler, engine.deadlines, engine.options.max_http_buffer_size)

    def _probe(self, packet: Packet) -> bool:
        """Handle a step of Engine.IO's upgrade: ``2probe``, ``3probe``, ``5``."""
        candidate = self._candidate
        assert candidate is not None
        if self.state is PROBING and packet == _PROBE:
            self.state = UPGRADING
            candidate.websocket.link.send(_PROBE_FRAME)
            if self._poll is not None:
                self._engine.deadlines.after(candidate, UPGRADE_POLL_SECONDS)
        elif self.state is UPGRADING and packet == UPGRADE:
            return self._finish_upgrade(candidate)
        else:
            self._give_up_upgrade(candidate)
        return True

    def _finish_upgrade(self, candidate: Candidate) -> bool:
        """Switch to the websocket.

        :return: whether its next message may be handled now: not before an unfinished POST.
        """
        self._candidate = None
        self._engine.deadlines.remove(candidate)
        self._end_polls()
        if self._poll is not None:
            self._answer_waiting([NOOP])
        if self._ping is WAITS:
            self._ping = SENT
            candidate.websocket.link.send(_PING_FRAME)
            if self._outbox is not None:
                self._doubt()
        self._go_live(candidate.websocket)
        self._after_poll()
        self._engine.owner.on_upgrade(self)
        return self._post is None

    def _go_live(self, websocket: WebSocket) -> None:
        """Send all packets through the websocket from now on, the pending ones first."""
        self.state = WEBSOCKET
        self._websocket = websocket
        self.live = websocket.link
        self._send_outbox(websocket.link)

    def _send_outbox(self, link: Link) -> None:
        box, self._outbox = self._outbox, None
        if box is not None:
            for packet in box.packets:
                link.send(message_frame(packet))

    def _give_up_upgrade(self, candidate: Candidate) -> None:
        """Close the candidate, and continue with polling."""
        self._candidate = None
        self._engine.deadlines.remove(candidate)
        self.state = POLLING
        candidate.websocket.close()

    def upgrade_due(self, candidate: Candidate, expired: bool) -> None:
        """The deadline of an upgrade, or of a poll that is pending during one, has expired."""
        if expired:
            self._give_up_upgrade(candidate)
            return
        self._engine.deadlines.set(candidate, candidate.until)
        if self._poll is not None:
            self._answer_waiting([NOOP])

    # --- to another process, and from one -----------------------------------------------

    def check_movable(self) -> None:
        """Check that another process can continue the session.

        :raises NotMovable: if it cannot, or cannot now.
        """
        if self.state is OPENING or (self.closed and not self.forgotten):
            raise NotMovable(HANDLER_RUNNING)
        if not all(websocket.is_open for websocket in self._websockets):
            raise NotMovable(MID_REQUEST, "its websocket is closing")

    @property
    def _websockets(self) -> list[WebSocket]:
        """The websocket in use, or that of an upgrade in progress."""
        candidate = self._candidate
        both = (self._websocket, None if candidate is None else candidate.websocket)
        return [websocket for websocket in both if websocket is not None]

    def connections(self) -> dict[str, Union[Exchange, Link]]:
        """The session's connections, by the field of its state that each belongs to."""
        found: dict[str, Union[Exchange, Link]] = {}
        if self._poll is not None:
            found["poll"] = self._poll
        if self._post is not None:
            found["post"] = self._post.exchange
        if self._candidate is not None:
            found["candidate"] = self._candidate.websocket.link
        if self.live is not None:
            found["websocket"] = self.live
        return found

    def state_as_dict(self) -> dict[str, Any]:
        """The state, without :attr:`data`, as JSON-compatible values; the session ends here.

        Packets are texts, as in a payload. Of the deadlines only that of the next ping is saved, as
        seconds from now, unless the ping waits for a poll; all others start anew.
        """
        box, post = self._outbox, self._post
        candidate, websocket = self._candidate, self._websocket
        waits = self._ping is WAITS or self.closed
        return {
            "sid": self.sid,
            "state": self.state.value,
            "address": self.address,
            "next_ping": None if waits else self._next_ping() - self._engine.deadlines.clock(),
            "queue": None if box is None else packets.save(box.packets),
            "poll": None if self._poll_request is None else self._poll_request.state_as_dict(),
            "post": None if post is None else post.state_as_dict(),
            "candidate": None if candidate is None else candidate.websocket.state_as_dict(),
            "websocket": None if websocket is None else websocket.state_as_dict(),
        }

    def _next_ping(self) -> float:
        """When the next ping is due; this may be in the past.

        A client's timeout runs from the last ping it received, also while its session moves to
        another process. A pending pong is ignored: the next ping tests the client again.
        """
        if self._ping is LATER:
            return self._pong_due
        options = self._engine.options
        return self._pong_due - options.ping_timeout + options.ping_interval

    def let_go(self) -> None:
        """Detach the session from its connections and deadlines, without calling anybody."""
        for item in (self._candidate, self._post):
            if item is not None:
                self._engine.deadlines.remove(item)
        for websocket in self._websockets:
            websocket.let_go()
        if self._poll is not None:
            self._poll.session = None
        self._poll = self._poll_request = self._post = self._candidate = None
        self.forgotten = True
        self._become_closed()

    @classmethod
    def restore(
        cls,
        engine: Engine,
        state: Saved,
        connect: Callable[[WebSocket], Link],
        poll: Optional[Exchange],
        post: Optional[Exchange],
        elapsed: float,
    ) -> Session:
        """See :meth:`.Engine.restore`."""
        session = cls(engine, state.text("sid"), state.text("address"))
        session.state = state.choice("state", State)
        session.forgotten = session.closed
        session._check_fields(state)
        session._doubts = 2  # the next pong may answer a ping of the other process
        now = engine.deadlines.clock()
        if state.is_none("next_ping"):
            session._ping = LATER if session.closed else WAITS
            # A poll may arrive before start() and take the ping.
            session._pong_due = now + engine.options.ping_timeout
        else:
            left = min(state.seconds("next_ping"), engine.options.ping_interval) - elapsed
            session._pong_due = now + left
        if not state.is_none("queue"):
            queue = packets.restore(state.list("queue"))
            if not queue:
                raise state.wrong("queue", "a list with packets")
            box = session._outbox = Outbox(now)
            for packet in queue:
                box.add(packet)
        if not state.is_none("websocket"):
            session._websocket = session._make_websocket(session)
            session._websocket.restore(state.object("websocket"))
        if not state.is_none("candidate"):
            websocket = session._make_websocket(session)
            websocket.restore(state.object("candidate"))
            session._candidate = Candidate(session, websocket, NEVER)
        if not state.is_none("poll"):
            if poll is None:
                raise ValueError("poll: the session has a pending poll, but no connection for it")
            session._poll, session._poll_request = poll, Request.restore(state.object("poll"))
        if not state.is_none("post"):
            if post is None:
                raise ValueError("post: the session has a pending POST, but no connection for it")
            session._post = Post.restore(session, state.object("post"), post)
        session._connect(connect)
        return session

    def _check_fields(self, state: Saved) -> None:
        """Check that exactly the nullable fields that belong to the state are set."""
        if self.state not in _FIELDS:
            names = ", ".join(restorable.value for restorable in _FIELDS)
            raise state.wrong("state", f"one of {names}")
        needed, possible = _FIELDS[self.state]
        for name in ("next_ping", "queue", "poll", "post", "candidate", "websocket"):
            if state.is_none(name):
                if name in needed:
                    raise state.wrong(name, f"set, in state {self.state.value}")
            elif name not in needed and name not in possible:
                raise state.wrong(name, f"null, in state {self.state.value}")

    def _connect(self, connect: Callable[[WebSocket], Link]) -> None:
        """Attach the connections, after all fields were checked."""
        if self._candidate is not None:
            self._candidate.websocket.link = connect(self._candidate.websocket)
        if self._websocket is not None:
            self.live = self._websocket.link = connect(self._websocket)
        if self._poll is not None:
            self._poll.session = self
            self._flushing = True  # start() schedules the flush

    def start(self) -> None:
        """Continue after :meth:`.Engine.restore`: set the deadlines, and handle pending packets.

        The runtime then starts the websocket, see :meth:`.WebSocket.start`.
        """
        owner = self._engine.owner
        self.renew()
        if self._flushing:
            owner.soon(self._flush)
        if self._post is not None and self._post.step is TURN:
            owner.soon(self._take_turn)

    def renew(self) -> None:
        """Restart all deadlines, because nothing was read from the client for a while."""
        deadlines, candidate, post = self._engine.deadlines, self._candidate, self._post
        self._end_absence()
        if self.state is CLOSING:
            deadlines.after(self, LAST_POLL_SECONDS)
        elif self.state is LEFT:
            deadlines.after(self, CROSSED_POLL_SECONDS)
        elif self.state is not CLOSED:
            now = deadlines.clock()
            if self._ping is WAITS:
                self._pong_due = now + self._engine.options.ping_timeout
            else:
                self._pong_due, self._ping = max(now, self._next_ping()), LATER
            deadlines.set(self, self._pong_due)
        if self._outbox is not None:
            self._outbox.taken_at = deadlines.clock()
        if candidate is not None:
            candidate.until = deadlines.clock() + UPGRADE_SECONDS
            deadlines.set(candidate, candidate.until)
            if self._poll is not None and self.state is UPGRADING:
                deadlines.after(candidate, UPGRADE_POLL_SECONDS)
        if post is not None and post.step is POLLS:
            deadlines.after(post, SLOW_OUTPUT_PATIENCE)
