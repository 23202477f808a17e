"""The state of a client's connection, and how it is saved and restored in another process.

The descriptor is passed beside the state, and the socket is not shut down here. The state includes
bytes that were read but not handled, and pending output; data in the kernel's buffers stays there.
A restored connection does nothing until :meth:`Movable.start`.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from enum import Enum
from typing import TYPE_CHECKING, Any, Optional, TypeVar

from ..common.not_movable import NotMovable
from ..common.reasons import MID_REQUEST
from ..engine.http import Body
from ..engine.request import Request
from ..engine.saved import Saved, as_text
from ..engine.websocket import WebSocket
from .output import Output
from .patience import patience

if TYPE_CHECKING:
    from ..engine.engine import Engine
    from ..engine.session import Session
    from .runtime import Watch
    from .server import Server

Made = TypeVar("Made", bound="Movable")

#: ``(host, port)`` or the like; a Unix peer has an empty name.
SocketAddress = Any


class State(Enum):
    """The states of a connection; the docstring of :mod:`.connection` explains them."""

    HEAD = "head"
    BODY = "body"
    WAITING = "waiting"
    APPLICATION = "application"
    MOVING = "moving"
    WEBSOCKET = "websocket"
    LINGER = "linger"
    CLOSED = "closed"


#: The states in which it belongs to a session, and another process can continue it.
_MOVABLE = (State.BODY, State.WAITING, State.WEBSOCKET)


class Gathering:
    """Collects the complete body of a request for the engine, with its deadline."""

    __slots__ = ("body", "_began", "_received")

    def __init__(self, length: Optional[int], most: int, now: float) -> None:
        self.body = Body(length, most)
        self._began = now
        self._received = 0

    def feed(self, data: bytes) -> Optional[bytes]:
        self._received += len(data)
        return self.body.feed(data)

    def deadline(self, now: float) -> float:
        """When the client counts as too slow, unless more bytes arrive."""
        return now + patience(self._received, now - self._began)

    def state_as_dict(self) -> dict[str, Any]:
        """The state, for a body with a length. Its deadline is not saved."""
        return {"left": self.body.left, "data": as_text(self.body.received)}

    @classmethod
    def restore(cls, state: Saved, most: int) -> Gathering:
        """The body whose state :meth:`state_as_dict` returned; call :meth:`renew` next.

        :raises ValueError: see :class:`.Saved`.
        """
        left, data = state.integer("left"), state.data("data")
        if not 0 < left <= most - len(data):
            raise state.wrong("left", f"above 0, or the body is over {most} bytes")
        gathering = cls(len(data) + left, most, 0.0)
        gathering.feed(data)
        return gathering

    def renew(self, now: float) -> None:
        """Restart the client's time."""
        self._began = now


class Movable(Output):
    """The part of a client's connection that is saved and restored.

    :param sock: a plain non-blocking socket, which the connection owns from now on.
    """

    __slots__ = (
        "peer",
        "local",
        "scheme",
        "state",
        "data",
        "session",
        "_sid",
        "_reading",
        "_kept",
        "_settled",
        "_request",
        "_close",
        "_unread",
        "_body",
        "_websocket",
        "_held",
    )

    def __init__(
        self, server: Server, sock: Any, peer: SocketAddress, local: SocketAddress, scheme: str
    ) -> None:
        super().__init__(server, sock)
        self.peer = peer
        self.local = local
        self.scheme = scheme
        self.state = State.HEAD
        #: Bytes that were read but not parsed.
        self.data = b""
        #: The session whose poll waits here for its response.
        self.session: Optional[Session] = None
        #: The id of the request's session, if :attr:`_request` is not set.
        self._sid = ""
        self._reading: Optional[Watch] = None
        #: Whether the next request is not the connection's first; and whether it is certain that
        #: this worker serves it.
        self._kept = self._settled = False
        #: The engine and the request, if the engine handles it.
        self._request: Optional[tuple[Engine, Request]] = None
        #: Whether the connection closes after this request; and whether some of its body is unread.
        self._close = self._unread = False
        self._body: Optional[Gathering] = None
        self._websocket: Optional[WebSocket] = None
        #: Whether the websocket has paused reading.
        self._held = False

    @abstractmethod
    def listen(self) -> None:
        """Start reading."""

    @abstractmethod
    def stop_reading(self) -> None:
        """Stop reading."""

    @abstractmethod
    def _forget(self) -> Any:
        """Release everything, and return the socket."""

    @property
    def requested(self) -> str:
        """The id of its request's session; empty without one."""
        return self._sid if self._request is None else self._request[1].sid

    @property
    def is_answering(self) -> bool:
        """Whether a response of the engine is being written."""
        return self._answered and self.state is State.WAITING

    # --- to another process ---------------------------------------------------------

    def check_movable(self) -> None:
        """Check that another process can continue the connection.

        :raises NotMovable: if it cannot, or cannot now.
        """
        if self._closing or self.state not in _MOVABLE:
            raise NotMovable(MID_REQUEST, f"a connection in state {self.state.value}")
        if self._body is not None and self._body.body.left is None:
            raise NotMovable(MID_REQUEST, "a chunked body")

    def save(self) -> dict[str, Any]:
        """The state without the engine's part, as JSON-compatible values; see :meth:`give_away`."""
        websocket, body = self._websocket, self._body
        if websocket is not None and self.data:  # received right behind the handshake
            websocket.keep(self.data)
            self.data = b""
        state: dict[str, Any] = {
            "state": self.state.value,
            "peer": _saved_address(self.peer),
            "local": _saved_address(self.local),
            "scheme": self.scheme,
            "data": as_text(self.data),
            "close": self._close,
            "unread": self._unread,
            "answered": self._answered,
            "requested": self.requested,
            "body": None,
            **self.saved_output(),
        }
        if body is not None:
            assert self._request is not None
            request = self._request[1]
            request.shrink()
            state["body"] = {**body.state_as_dict(), "request": request.state_as_dict()}
        return state

    def give_away(self) -> int:
        """Release the descriptor to the caller, without calling the engine."""
        self.stop_reading()
        self._stop_writing()
        self.session = None
        return int(self._forget().detach())

    # --- from another process -------------------------------------------------------

    @classmethod
    def restore(cls: type[Made], server: Server, engine: Engine, sock: Any, state: Saved) -> Made:
        """The connection whose state :meth:`save` returned; it does nothing until :meth:`start`.

        :param engine: the engine of its request or session.
        :raises ValueError: see :class:`.Saved`; the caller keeps the socket then.
        """
        chosen = state.choice("state", State)
        if chosen not in _MOVABLE:
            names = ", ".join(one.value for one in _MOVABLE)
            raise state.wrong("state", f"one of {names}")
        made = cls(server, sock, _address(state, "peer"), None, "")
        if chosen is not State.WEBSOCKET:
            made.local, made.scheme = _address(state, "local"), state.text("scheme")
            made._sid = state.text("requested")
        made.data = state.data("data")
        made._close = state.flag("close")
        made._unread = state.flag("unread")
        made._answered = state.flag("answered") and chosen is State.WAITING
        made.restore_output(state)
        if chosen is State.BODY:
            body = state.object("body")
            most = engine.options.max_http_buffer_size
            made._body = Gathering.restore(body, most)
            made._request = engine, Request.restore(body.object("request"))
        made.state = chosen
        made._kept, made._settled = True, False
        return made

    def attach(self, websocket: WebSocket) -> None:
        """Become the link of a restored websocket, without reading yet."""
        self._websocket, self._held = websocket, True

    def start(self) -> None:
        """Start reading and writing."""
        try:
            self.go_on_writing()
            if self._body is not None:
                now = time.monotonic()
                self._body.renew(now)
                self.server.runtime.deadlines.set(self, self._body.deadline(now))
            if self._websocket is None:
                self.listen()
            else:
                self._websocket.start()
        except Exception as error:
            self.failed(error)


def _saved_address(address: SocketAddress) -> Any:
    return list(address[:2]) if isinstance(address, tuple) else address or ""


def _address(state: Saved, key: str) -> SocketAddress:
    try:
        return state.text(key)
    except ValueError:
        parts = state.list(key)
        return parts.text(0), parts.integer(1)
