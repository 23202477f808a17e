"""A client's connection as a transport of asyncio, for uvicorn's protocol classes.

It has the socket while the application has the request, and gives it back when the request is
over. What is written in one turn of the loop leaves together.
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

#: Bytes that wait for the client: from the first on the application waits, until the second.
_HIGH_WATER = 65536
_LOW_WATER = 16384


class User(Protocol):
    """What a transport tells of its client."""

    @property
    def wanted(self) -> int:
        """How many bytes to read next."""

    def received(self, data: bytes) -> None: ...

    def client_ended(self) -> None:
        """It sends no more; perhaps it is gone."""

    def upgraded(self) -> None:
        """From here on the protocol gets everything as it comes."""

    def written(self) -> None:
        """The client's system has taken all that there was."""


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
        #: Of the wheel: for the client to take something.
        self.deadline = NEVER
        self.slot = NOWHERE
        self._connection: Optional[Connection] = connection
        self._runtime = connection.server.runtime
        self._user = user
        self._protocol: Any = None
        self._writing: Optional[Watch] = None
        self._paused = False
        #: Whether the client sends no more.
        self._ended = False
        self._out: list[Piece] = []
        self._size = 0
        #: Whether it will be written at the end of this turn.
        self._collected = False
        #: Whether the protocol was asked to write no more.
        self._full = False
        self._closing = False

    # --- what a protocol sees ---------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What the connection knows: behind TLS, and a PROXY header, its socket does not."""
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
        """Write what waits, and end the connection."""
        if not self._closing:
            self._closing = True
            if not self._size:
                self._runtime.call_soon(self._written)

    def abort(self) -> None:
        if self._connection is not None:
            self._runtime.call_soon(self._connection.end)

    # --- reading ----------------------------------------------------------------------

    def listen(self) -> None:
        """Read when there is something, unless the protocol wants nothing."""
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
            self._stop_reading()  # what asks for answers that are not taken asks for no more
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
        """Write what is to be sent, as far as the client takes it."""
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
        self._runtime.watch()
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
        """The client takes nothing."""
        if self._connection is not None:
            self._connection.count(TOO_SLOW, "takes nothing")
            self._connection.end()

    # --- the end ----------------------------------------------------------------------

    def release(self) -> None:
        """Give the socket back."""
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        self._runtime.deadlines.remove(self)
        self._closing = True
        self._connection = None
        self._out, self._size = [], 0
