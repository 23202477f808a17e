"""A client's connection as an asyncio transport, for uvicorn's protocol classes.

It uses the socket while the application has the request, and releases it when the request has
ended. Data written in one turn of the loop is sent together.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Optional, Protocol, Union

from ...common.limits import READING_STOPS, STALLED_SECONDS
from ...common.reasons import TOO_SLOW
from ...engine.deadlines import NEVER, NOWHERE
from ..output import Piece, join
from ..runtime import Watch
from .scope import address

if TYPE_CHECKING:
    from ..connection import Connection

#: Pending bytes from which on the application has to wait, and down to which it waits.
_HIGH_WATER = 65536
_LOW_WATER = 16384


class User(Protocol):
    """The user of a transport, which reports events of its client."""

    @property
    def wanted(self) -> int:
        """How many bytes to read next."""

    def received(self, data: bytes) -> None: ...

    def client_ended(self) -> None:
        """The client has closed its sending side, or the connection."""

    def upgraded(self) -> None:
        """The protocol has changed to a websocket, which gets all further bytes."""

    def written(self) -> None:
        """All data has been written to the socket."""


class ClientTransport(asyncio.Transport):
    """The transport of one request, or of a websocket of the application."""

    __slots__ = (
        "deadline",
        "slot",
        "_connection",
        "_runtime",
        "_user",
        "_protocol",
        "_writing",
        "_paused",
        "_ended",
        "_out",
        "_size",
        "_collected",
        "_full",
        "_closing",
    )

    def __init__(self, connection: Connection, user: User) -> None:
        super().__init__()
        #: Until when the client has to read something; used by the timing wheel.
        self.deadline = NEVER
        self.slot = NOWHERE
        self._connection: Optional[Connection] = connection
        self._runtime = connection.server.runtime
        self._user = user
        self._protocol: Any = None
        self._writing: Optional[Watch] = None
        self._paused = False
        #: Whether the client has closed its sending side.
        self._ended = False
        self._out: list[Piece] = []
        self._size = 0
        #: Whether :meth:`flush` is scheduled for the end of this turn.
        self._collected = False
        #: Whether the protocol was asked to pause writing.
        self._full = False
        self._closing = False

    # --- called by the protocol -------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Addresses from the connection: behind TLS or a PROXY header the socket has others."""
        connection = self._connection
        if connection is None:
            return default
        if name == "peername":
            return address(connection.peer) or default
        if name == "sockname":
            return address(connection.local) or default
        if name == "sslcontext" and connection.scheme == "https":
            return True
        return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        first, self._protocol = self._protocol is None, protocol
        if not first:
            self._user.upgraded()

    def get_protocol(self) -> Any:
        return self._protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        self._paused = True
        self._stop_reading()

    def resume_reading(self) -> None:
        self._paused = False
        self.listen()

    def get_write_buffer_size(self) -> int:
        return self._size

    def can_write_eof(self) -> bool:
        return False

    def write(self, data: Union[bytes, bytearray, memoryview]) -> None:
        if self._closing or not data:
            return
        self._out.append(bytes(data))
        self._size += len(data)
        if self._writing is not None:
            self._check_size()
        elif self._size > _HIGH_WATER:
            self.flush()
        elif not self._collected:
            self._collected = True
            self._runtime.writes.add(self, False)

    def close(self) -> None:
        """End the request after writing the pending data."""
        if not self._closing:
            self._closing = True
            if not self._size:
                self._runtime.call_soon(self._written)

    def abort(self) -> None:
        if self._connection is not None:
            self._runtime.call_soon(self._connection.end)

    # --- reading ----------------------------------------------------------------------

    def listen(self) -> None:
        """Start reading, unless the protocol has paused it."""
        if not self._paused and not self._ended and self._connection is not None:
            self._connection.listen()

    def _stop_reading(self) -> None:
        if self._connection is not None:
            self._connection.stop_reading()

    def readable(self) -> None:
        """:meth:`..connection.Tenant.readable`"""
        connection = self._connection
        if connection is None or connection.sock is None:
            return
        wanted = self._user.wanted
        if self._size > READING_STOPS or not wanted:
            self._stop_reading()  # take no more input while the client does not read the output
            return
        try:
            data = connection.sock.recv(wanted)
        except BlockingIOError:
            return
        except OSError:
            connection.end()
            return
        try:
            if data:
                self._user.received(data)
            else:
                self._stop_reading()
                self._ended = True
                self._user.client_ended()
        except Exception as error:
            connection.failed(error)

    # --- writing ----------------------------------------------------------------------

    def flush(self) -> None:
        """Write as much as the kernel takes."""
        self._collected = False
        connection = self._connection
        if connection is None or connection.sock is None or self._writing is not None:
            return
        while self._out:
            data, rest = join(self._out)
            try:
                sent = connection.sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.abort()
                return
            self._size -= sent
            self._out = rest or []
            if sent < len(data):
                self._out.insert(0, memoryview(data)[sent:])
                self._write_later(connection)
                return
        self._check_size()
        self._written()

    def failed(self, error: Exception) -> None:
        """:meth:`..output.Writer.failed`"""
        if self._connection is not None:
            self._connection.failed(error)

    def _write_later(self, connection: Connection) -> None:
        self._writing = self._runtime.add_writer(connection.fileno(), self._writable)
        self._runtime.deadlines.after(self, STALLED_SECONDS)
        self._check_size()

    def _writable(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
            self.deadline = NEVER
            try:
                self.flush()
            except Exception as error:
                self.failed(error)
            if self._size <= READING_STOPS:
                self.listen()

    def _check_size(self) -> None:
        if not self._full and self._size > _HIGH_WATER:
            self._full = True
            self._protocol.pause_writing()
        elif self._full and self._size <= _LOW_WATER:
            self._full = False
            self._protocol.resume_writing()

    def _written(self) -> None:
        if self._connection is not None and not self._size:
            self._user.written()

    def on_deadline(self, now: float) -> None:
        """The client does not read the response."""
        if self._connection is not None:
            self._connection.count(TOO_SLOW, "does not read the response")
            self._connection.end()

    # --- the end ----------------------------------------------------------------------

    def release(self) -> None:
        """Stop using the socket."""
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        self._runtime.deadlines.remove(self)
        self._closing = True
        self._connection = None
        self._out, self._size = [], 0
