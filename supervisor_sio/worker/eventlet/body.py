"""The body of a request, as the application reads it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Iterator, Optional

import eventlet
from eventlet import wsgi

from ...common.limits import (
    BODY_GRACE_SECONDS,
    BODY_RATE,
    READS_PER_TURN,
    STALLED_SECONDS,
    UNREAD_BODY_BYTES,
)
from ...common.reasons import PROTOCOL
from ...engine.http import ChunkedBody, HttpError
from .green import BadBody, ClientGone, ClientSocket, Writer, as_frameworks_expect, receive

if TYPE_CHECKING:
    from .connection import Connection

#: Bytes of a body that are read at a time.
_BLOCK = 65536


class Body(wsgi.Input):  # type: ignore[misc]
    """The body of a request, as ``wsgi.input``. It ends where the body ends.

    Reading raises :class:`ClientGone` when the connection ends before, or the client is too
    slow, and :class:`BadBody` for chunks that are not valid.
    """

    # eventlet's attributes; its own constructor takes long
    rfile = None
    wfile_line = b"HTTP/1.1 100 Continue\r\n"
    hundred_continue_headers = None
    headers_sent = None
    chunk_length = -1

    def __init__(
        self, connection: Connection, length: Optional[int], wfile: Optional[Writer]
    ) -> None:
        self.content_length = length or 0
        self.chunked_input = length is None
        self.position = 0
        self.wfile = wfile
        self.is_hundred_continue_response_sent = False
        self._connection: Optional[Connection] = connection
        self._socket: Optional[ClientSocket] = None
        self._chunks = ChunkedBody() if length is None else None
        #: What has come and was not read yet: from this position on.
        self._data = b""
        self._at = 0
        #: Bytes of the body that have come, and with everything around them.
        self._received = 0
        self._transferred = 0
        #: Seconds for which the client let us wait.
        self._waited = 0.0
        self._reads = 0

    @property
    def ended(self) -> bool:
        """Whether all of it has come."""
        if self._chunks is not None:
            return self._chunks.ended
        return self.position >= self.content_length

    @property
    def socket(self) -> Optional[ClientSocket]:
        """What the application was given, if it wanted it."""
        return self._socket

    def get_socket(self) -> Optional[ClientSocket]:
        """What eventlet's own websocket takes."""
        if self._socket is None and self._connection is not None:
            self._socket = ClientSocket(self._connection)
        return self._socket

    def read(self, length: Optional[int] = None) -> bytes:
        left = sys.maxsize if length is None or length < 0 else length
        pieces = []
        while left and self._more():
            piece = self._take(min(left, len(self._data) - self._at))
            left -= len(piece)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readline(self, size: Optional[int] = None) -> bytes:
        left = sys.maxsize if size is None or size < 0 else size
        pieces = []
        while left and self._more():
            end = self._data.find(b"\n", self._at, self._at + left) + 1
            piece = self._take((end or min(len(self._data), self._at + left)) - self._at)
            left -= len(piece)
            pieces.append(piece)
            if end:
                break
        return b"".join(pieces)

    def readlines(self, hint: Optional[int] = None) -> list[bytes]:
        lines: list[bytes] = []
        size = 0
        for line in iter(self.readline, b""):
            lines.append(line)
            size += len(line)
            if hint is not None and 0 < hint <= size:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def discard(self, buffer_size: int = 0) -> None:
        """Read what the application did not, so that the next request can be found.

        :raises BadBody: when that is too much.
        """
        most = self._transferred + UNREAD_BODY_BYTES
        if self.content_length - self.position > UNREAD_BODY_BYTES:
            raise BadBody("too much of a body is left unread")
        self._data = b""
        while self._more():
            self._data = b""
            if self._transferred > most:
                raise BadBody("too much of a body is left unread")

    def release(self) -> None:
        """The request is over; a copy of its environment may have this for much longer."""
        self._connection = self._socket = self.wfile = None
        self._data = b""
        self._chunks, self.content_length = None, 0

    def _take(self, size: int) -> bytes:
        begin, self._at = self._at, self._at + size
        return self._data[begin : self._at]

    def _more(self) -> bool:
        """Whether there is something to take, after waiting for it."""
        if self._at < len(self._data):
            return True
        self._data, self._at = b"", 0
        while not self._data and not self.ended:
            if self.should_send_hundred_continue:
                self.send_hundred_continue_response()
                self.is_hundred_continue_response_sent = True
            self._data = self._receive()
        return bool(self._data)

    def _receive(self) -> bytes:
        """Some of the body; or nothing, of one in chunks."""
        connection = self._connection
        assert connection is not None
        if self._chunks is None:
            data = self._receive_raw(connection, min(_BLOCK, self.content_length - self.position))
            self.position += len(data)
        else:
            try:
                data = self._chunks.feed(self._receive_raw(connection, self._chunks.wanted))
            except HttpError as error:
                connection.count(PROTOCOL, error)
                raise as_frameworks_expect(BadBody)(str(error)) from None
            if self._chunks.ended:
                connection.data = self._chunks.rest + connection.data
        self._received += len(data)
        return data

    def _receive_raw(self, connection: Connection, size: int) -> bytes:
        self._reads += 1
        if not self._reads % READS_PER_TURN:
            eventlet.sleep(0)
        patience = BODY_GRACE_SECONDS + self._received / BODY_RATE - self._waited
        began = time.monotonic()
        try:
            data = receive(connection, size, max(0.001, min(patience, STALLED_SECONDS)))
        finally:
            self._waited += time.monotonic() - began
        if not data:
            raise as_frameworks_expect(ClientGone)()
        self._transferred += len(data)
        return data
