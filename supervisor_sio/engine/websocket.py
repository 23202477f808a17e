"""A websocket as a server has it (RFC 6455), without the connection: bytes in, messages out.

How far the closing handshake is (section 7.1), and what comes next:

====================  =====================  =======================  ==================
state                 we close               the client's close       the connection ends
====================  =====================  =======================  ==================
``OPEN``              ``CLOSING``            ``ANSWERED``             ``ENDED``
``CLOSING``           nothing                connection is aborted    ``ENDED``
``ANSWERED``          nothing                is not looked at         ``ENDED``
``ENDED``             nothing                cannot come              cannot happen
====================  =====================  =======================  ==================

In ``CLOSING`` and ``ANSWERED`` there is a deadline after which the connection is aborted. A frame
that breaks the protocol closes the websocket; what comes behind it is not looked at.

What waits to be sent is the runtime's, which has the connection: see :class:`Link`.
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

#: The field that says which version of the protocol is spoken here (section 4.4).
VERSION = ("Sec-WebSocket-Version", "13")


class HandshakeError(ValueError):
    """A request that is not a websocket's handshake; the text says why."""


class Link(Protocol):
    """The connection of a websocket, which the runtime has.

    The runtime cuts off a client that does not take its output, stops reading from it while
    much waits, and counts both. Whatever ends the connection, :meth:`WebSocket.ended` follows.
    """

    def send(self, data: bytes, fan_out: bool = False) -> None:
        """Send frames at the end of this turn; nothing once it is closed.

        :param fan_out: with those of many others: when its turn comes.
        """

    def send_pong(self, data: bytes) -> None:
        """The same. While output waits, only the last one is kept (section 5.5.3)."""

    def pause(self) -> None:
        """Read no more, and call :meth:`WebSocket.receive` no more."""

    def resume(self) -> None:
        """Read again, in a later turn. First comes a call of :meth:`WebSocket.proceed`."""

    def close(self, read_on: bool) -> None:
        """Send nothing more than what waits. Then shut our side down and read on, or close."""

    def abort(self) -> None:
        """Close at once. :meth:`WebSocket.ended` is called in here, or later."""

    @property
    def waiting(self) -> int:
        """Bytes of output that the client has yet to take, and some for each piece of it."""

    def took_output_within(self, seconds: float) -> bool:
        """Whether output waits for the client, and it has taken some of it so lately."""


class Handler(Protocol):
    """The one to whom a websocket belongs. None of these methods may wait."""

    def on_message(self, payload: Payload) -> bool:
        """A message.

        :return: whether the next one may come. If not, it comes after :meth:`WebSocket.go_on`.
        :raises ProtocolError: when the client may not send this one.
        """

    def on_close(self, websocket: WebSocket) -> None:
        """The websocket has ended, and not because the handler has closed it.

        Called once; nothing else is called afterwards.
        """

    def count(self, reason: str, detail: str) -> None:
        """The client did something that is counted, see :mod:`..common.reasons`."""


class State(Enum):
    """How far the closing handshake is; see the module's head."""

    OPEN = "open"
    CLOSING = "closing"
    ANSWERED = "answered"
    ENDED = "ended"


# Before Python 3.12, to look a member up takes longer than the rest of a comparison.
OPEN, CLOSING, ANSWERED, ENDED = State


def check(request: Request) -> None:
    """Check a handshake, section 4.2.1. That it is valid HTTP has been checked before.

    :raises HandshakeError: when it is not valid; the text says why.
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
    """The answer to a handshake, section 4.2.2. Of the sub-protocols the first is chosen."""
    key = request.header(b"sec-websocket-key").encode()
    digest = base64.b64encode(hashlib.sha1(key + _GUID).digest())
    protocol = request.header(b"sec-websocket-protocol").partition(",")[0].strip(" \t")
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n%b\r\n"
    ) % (digest, f"Sec-WebSocket-Protocol: {protocol}\r\n".encode("latin-1") if protocol else b"")


class WebSocket:
    """One websocket, from the handshake's answer to its end.

    :param handler: without one it only closes.
    :param max_size: longest message of the client, in bytes.
    """

    __slots__ = ("link", "state", "deadline", "slot", "_handler", "_deadlines", "_reader", "_held")

    #: Set right after the websocket was made.
    link: Link

    def __init__(self, handler: Optional[Handler], deadlines: Deadlines, max_size: int) -> None:
        self.state = OPEN
        self.deadline = NEVER
        self.slot = NOWHERE
        self._handler = handler
        self._deadlines = deadlines
        #: ``None`` when nothing that comes is looked at any more.
        self._reader: Optional[FrameReader] = FrameReader(max_size)
        #: Whether the handler wants no more until it says so.
        self._held = False

    # --- what the runtime calls -----------------------------------------------------

    def receive(self, data: bytes) -> None:
        """What has been read.

        :raises Exception: of the handler's; the websocket is closed, and the error to be logged.
        """
        reader = self._reader
        if reader is not None:
            reader.feed(data)
            self._take_messages(reader)

    def proceed(self) -> None:
        """What has been received, but not been handled. After :meth:`Link.resume`.

        :raises Exception: as :meth:`receive`.
        """
        if not self._held and self._reader is not None:
            self._take_messages(self._reader)

    def ended(self) -> None:
        """The connection is gone."""
        self.state = ENDED
        self._deadlines.remove(self)
        self._reader = None
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.on_close(self)

    def let_go(self) -> None:
        """The connection is another process's, which goes on with it; the handler is not told."""
        self._handler = None
        self.ended()

    def on_deadline(self, now: float) -> None:
        """The client has not answered our close."""
        self.link.abort()

    # --- what its handler calls ------------------------------------------------------

    def go_on(self) -> None:
        """The next message may come, after :meth:`Handler.on_message` has returned false."""
        if self._held:
            self._held = False
            self.link.resume()

    @property
    def is_open(self) -> bool:
        """Whether nobody has closed it."""
        return self.state is OPEN

    @property
    def held(self) -> bool:
        """Whether the next message has to wait for :meth:`go_on`: it is not read before."""
        return self._held

    def close(self, code: int = NORMAL) -> None:
        """Send a close frame; the client has some seconds to answer. Section 7.1.2.

        The handler is not told any more, also where the client has closed it before.
        """
        self._handler = None
        if self.state is OPEN:
            self._send_last(close_frame(code), CLOSING)
            if self._held:
                self._held = False
                self.link.resume()

    def end(self) -> None:
        """Close it because the worker stops: the client has ``END_SECONDS`` for its answer.

        That holds also where a close frame has been sent before. To end the connection at once
        would reset it, if the client is sending something.
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
            # Others have a turn.
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
        """Section 7.1.7."""
        self._reader = None
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.count(reason, detail)
        self.close(code)
        if handler is not None:
            handler.on_close(self)

    # --- for another process ------------------------------------------------------

    def keep(self, data: bytes) -> None:
        """Received, and for another process to handle. Nothing was received before."""
        assert self._reader is not None
        self._reader.feed(data)

    def state_as_dict(self) -> dict[str, Any]:
        """What an open one has received and not handled, as JSON takes it."""
        assert self._reader is not None
        return {"held": self._held, "received": self._reader.state_as_dict()}

    def restore(self, state: Saved) -> None:
        """Be as another one has been; the handler sets :attr:`link` next.

        :raises ValueError: see :class:`.Saved`.
        """
        assert self._reader is not None
        self._held = state.flag("held")
        self._reader.restore(state.object("received"))

    def start(self) -> None:
        """Go on where the other one has been: read from here on. The runtime calls it."""
        if not self._held:
            self.link.resume()
