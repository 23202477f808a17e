"""A server's websocket (RFC 6455) without its connection: bytes in, messages out.

The states of the closing handshake (section 7.1), and what each event does in them:

====================  =====================  =======================  ==================
state                 we close               the client's close       the connection ends
====================  =====================  =======================  ==================
``OPEN``              ``CLOSING``            ``ANSWERED``             ``ENDED``
``CLOSING``           nothing                connection is aborted    ``ENDED``
``ANSWERED``          nothing                is ignored               ``ENDED``
``ENDED``             nothing                cannot come              cannot happen
====================  =====================  =======================  ==================

In ``CLOSING`` and ``ANSWERED`` a deadline runs, after which the connection is aborted. A frame
that breaks the protocol closes the websocket, and all later bytes are ignored.

The runtime owns the connection and its pending output: see :class:`Link`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from enum import Enum
from typing import Any, Optional, Protocol

from ..common.limits import CLOSE_SECONDS, END_SECONDS, MESSAGES_AT_ONCE
from ..common.reasons import FAILED, PROTOCOL
from .deadlines import NEVER, NOWHERE, Deadlines
from .frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    GOING_AWAY,
    INTERNAL_ERROR,
    NORMAL,
    PING,
    PONG,
    FrameReader,
    Payload,
    ProtocolError,
    close_frame,
    frame,
)
from .request import Request
from .saved import Saved

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3

#: 16 bytes in base64 (section 4.1).
_KEY = re.compile(r"[0-9A-Za-z+/]{22}==")

#: The header field with the protocol version that the server supports (section 4.4).
VERSION = ("Sec-WebSocket-Version", "13")


class HandshakeError(ValueError):
    """The request is not a valid websocket handshake; the text says why."""


class Link(Protocol):
    """The connection of a websocket; the runtime implements it.

    The runtime stops reading from a client while much output for it is pending, cuts off a client
    that does not read its output, and counts both. After any end of the connection it calls
    :meth:`WebSocket.ended`.
    """

    def send(self, data: bytes, fan_out: bool = False) -> None:
        """Send frames at the end of this turn of the loop; do nothing once the link is closed.

        :param fan_out: the frames are part of a broadcast, and may be sent in a later turn.
        """

    def send_pong(self, data: bytes) -> None:
        """Send a pong. While output is pending, only the last pong is kept (section 5.5.3)."""

    def pause(self) -> None:
        """Stop reading, and stop calling :meth:`WebSocket.receive`."""

    def resume(self) -> None:
        """In a later turn, call :meth:`WebSocket.proceed`, then read again."""

    def close(self, read_on: bool) -> None:
        """Send the pending output, then close the connection.

        :param read_on: only shut down the sending side, and go on reading.
        """

    def abort(self) -> None:
        """Close at once. :meth:`WebSocket.ended` is called in here, or later."""

    @property
    def waiting(self) -> int:
        """Bytes of pending output, plus an allowance for each piece of it."""

    def took_output_within(self, seconds: float) -> bool:
        """Whether output is pending and the client has read some within the last ``seconds``."""


class Handler(Protocol):
    """The owner of a websocket. None of these methods may block."""

    def on_message(self, payload: Payload) -> bool:
        """The client has sent a message.

        :return: whether to deliver the next one. If false, it waits for :meth:`WebSocket.go_on`.
        :raises ProtocolError: if the client may not send this message.
        """

    def on_close(self, websocket: WebSocket) -> None:
        """The websocket has ended for another reason than :meth:`WebSocket.close`.

        This is the last call that the handler gets.
        """

    def count(self, reason: str, detail: str) -> None:
        """Count a fault of the client, see :mod:`..common.reasons`."""


class State(Enum):
    """The states of the closing handshake; see the module's docstring."""

    OPEN = "open"
    CLOSING = "closing"
    ANSWERED = "answered"
    ENDED = "ended"


# Before Python 3.12, looking up an enum member takes longer than the rest of a comparison.
OPEN, CLOSING, ANSWERED, ENDED = State


def check(request: Request) -> None:
    """Check a handshake (section 4.2.1) that is known to be valid HTTP.

    :raises HandshakeError: if it is not valid; the text says why.
    """
    if request.head.method != "GET":
        raise HandshakeError("the method is not GET")
    if request.header(b"upgrade").lower() != "websocket":
        raise HandshakeError("no Upgrade: websocket")
    if not request.head.may_upgrade:
        raise HandshakeError("no Connection: Upgrade")
    if request.header(b"sec-websocket-version") != VERSION[1]:
        raise HandshakeError("Sec-WebSocket-Version is not 13")
    if _KEY.fullmatch(request.header(b"sec-websocket-key")) is None:
        raise HandshakeError("no valid Sec-WebSocket-Key")


def accept(request: Request) -> bytes:
    """The response to a handshake (section 4.2.2); it selects the first subprotocol offered."""
    key = request.header(b"sec-websocket-key").encode()
    digest = base64.b64encode(hashlib.sha1(key + _GUID).digest())
    protocol = request.header(b"sec-websocket-protocol").partition(",")[0].strip(" \t")
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n%b\r\n"
    ) % (digest, f"Sec-WebSocket-Protocol: {protocol}\r\n".encode("latin-1") if protocol else b"")


class WebSocket:
    """One websocket, from the response to its handshake to its end.

    :param handler: ``None`` if the websocket is only to be closed.
    :param max_size: longest message of the client, in bytes.
    """

    __slots__ = ("link", "state", "deadline", "slot", "_handler", "_deadlines", "_reader", "_held")

    #: Set by the creator, right after the constructor.
    link: Link

    def __init__(self, handler: Optional[Handler], deadlines: Deadlines, max_size: int) -> None:
        self.state = OPEN
        self.deadline = NEVER
        self.slot = NOWHERE
        self._handler = handler
        self._deadlines = deadlines
        #: ``None`` once received bytes are ignored.
        self._reader: Optional[FrameReader] = FrameReader(max_size)
        #: Whether the handler is busy: the next message waits for :meth:`go_on`.
        self._held = False

    # --- what the runtime calls -----------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Handle bytes read from the connection.

        :raises Exception: an error of the handler, for the caller to log; the websocket is closed.
        """
        reader = self._reader
        if reader is not None:
            reader.feed(data)
            self._take_messages(reader)

    def proceed(self) -> None:
        """Handle bytes that were received before; called after :meth:`Link.resume`.

        :raises Exception: see :meth:`receive`.
        """
        if not self._held and self._reader is not None:
            self._take_messages(self._reader)

    def ended(self) -> None:
        """The connection has ended."""
        self.state = ENDED
        self._deadlines.remove(self)
        self._reader = None
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.on_close(self)

    def let_go(self) -> None:
        """Another process continues the connection. The handler is not called."""
        self._handler = None
        self.ended()

    def on_deadline(self, now: float) -> None:
        """The client has not answered our close frame in time."""
        self.link.abort()

    # --- what its handler calls ------------------------------------------------------

    def go_on(self) -> None:
        """Deliver the next message, after :meth:`Handler.on_message` has returned false."""
        if self._held:
            self._held = False
            self.link.resume()

    @property
    def is_open(self) -> bool:
        """Whether neither side has sent a close frame, and the connection has not ended."""
        return self.state is OPEN

    @property
    def held(self) -> bool:
        """Whether reading is paused until :meth:`go_on`."""
        return self._held

    def close(self, code: int = NORMAL) -> None:
        """Send a close frame (section 7.1.2); the client has ``CLOSE_SECONDS`` to answer.

        The handler is not called any more, even if the client has closed the websocket before.
        """
        self._handler = None
        if self.state is OPEN:
            self._send_last(close_frame(code), CLOSING)
            if self._held:
                self._held = False
                self.link.resume()

    def end(self) -> None:
        """Close the websocket because the worker stops; the client has ``END_SECONDS`` to answer.

        That also replaces the deadline of an earlier close frame. The connection is not closed at
        once because that would reset it while the client sends.
        """
        handler = None
        if self.state is OPEN:
            handler = self._handler
            self.close(GOING_AWAY)
        if self.state is not ENDED:
            self._deadlines.after(self, END_SECONDS)
        if handler is not None:
            handler.on_close(self)

    # --- messages ---------------------------------------------------------------------

    def _take_messages(self, reader: FrameReader) -> None:
        take = reader.next
        try:
            for _ in range(MESSAGES_AT_ONCE):
                message = take()
                if message is None:
                    return
                opcode, payload = message
                if opcode <= BINARY:
                    handler = self._handler
                    if handler is not None and opcode != CONTINUATION:
                        if not handler.on_message(payload) and self.state is OPEN:
                            self._held = True
                            self.link.pause()
                            return
                elif opcode == PING:
                    self.link.send_pong(frame(PONG, payload))  # type: ignore[arg-type]
                elif opcode == CLOSE:
                    self._answer_close(payload)  # type: ignore[arg-type]
                    return
                if self._reader is None or not reader.has_more:
                    return
        except ProtocolError as error:
            self._fail(error.code, PROTOCOL, str(error))
        except Exception as error:
            self._fail(INTERNAL_ERROR, FAILED, type(error).__name__)
            raise
        else:
            # Let the loop serve other clients before the next messages.
            self.link.pause()
            self.link.resume()

    def _answer_close(self, payload: bytes) -> None:
        self._reader = None
        if self.state is OPEN:
            self._send_last(frame(CLOSE, payload[:2]), ANSWERED)
        else:
            self.link.abort()

    def _send_last(self, data: bytes, state: State) -> None:
        self.state = state
        self._deadlines.after(self, CLOSE_SECONDS)
        self.link.send(data)
        self.link.close(read_on=state is CLOSING)

    def _fail(self, code: int, reason: str, detail: str) -> None:
        """Fail the websocket connection, section 7.1.7."""
        self._reader = None
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.count(reason, detail)
        self.close(code)
        if handler is not None:
            handler.on_close(self)

    # --- for another process ------------------------------------------------------

    def keep(self, data: bytes) -> None:
        """Store received bytes for another process to handle; none were received before."""
        assert self._reader is not None
        self._reader.feed(data)

    def state_as_dict(self) -> dict[str, Any]:
        """The state of an open websocket, with its unhandled bytes, as JSON-compatible values."""
        assert self._reader is not None
        return {"held": self._held, "received": self._reader.state_as_dict()}

    def restore(self, state: Saved) -> None:
        """Take over the state of another websocket; the handler sets :attr:`link` next.

        :raises ValueError: see :class:`.Saved`.
        """
        assert self._reader is not None
        self._held = state.flag("held")
        self._reader.restore(state.object("received"))

    def start(self) -> None:
        """Start reading after :meth:`restore`. The runtime calls it."""
        if not self._held:
            self.link.resume()
