"""The body of a request as a WSGI application reads it; each runtime adds how to wait for it."""

from __future__ import annotations

import errno
import sys
import time
from functools import cache
from typing import Any, Iterator, Optional, Protocol

from ..common.limits import UNREAD_BODY_BYTES
from ..common.reasons import PROTOCOL
from ..engine.http import ChunkedBody, HttpError
from .patience import patience

#: Most bytes of a body to read at once.
_BLOCK = 65536


class ClientGone(ConnectionResetError):
    """The connection ended in the middle of a request, or the client was too slow."""

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "the client is gone")


class BadBody(OSError):
    """The rest of the body cannot be read; the connection closes."""


@cache
def as_frameworks_expect(error: type[OSError]) -> type[OSError]:
    """A subclass of the error for which Flask answers 400 instead of logging a traceback.

    Werkzeug does that itself for a body with a length, but not for a chunked one.
    """
    werkzeug: Any = sys.modules.get("werkzeug.exceptions")
    if werkzeug is None:
        return error

    def __init__(self: Any, *args: object) -> None:
        werkzeug.HTTPException.__init__(self)
        error.__init__(self, *args)

    names = {"__init__": __init__, "__module__": error.__module__}
    return type(error.__name__, (error, werkzeug.ClientDisconnected), names)


class Source(Protocol):
    """What the body needs of the client's connection."""

    #: Bytes that were read from the socket but not parsed.
    data: bytes

    def count(self, reason: str, detail: object = "") -> None:
        """Count a fault of the client."""


class RequestBody:
    """The body of a request, for ``wsgi.input``; reading stops at the end of the body.

    Reading raises :class:`ClientGone` if the connection ends before that, or the client is too
    slow, and :class:`BadBody` for invalid chunks.

    :param length: as in :class:`.Head`.
    """

    def __init__(self, source: Source, length: Optional[int]) -> None:
        self.content_length = length or 0
        self.position = 0
        self._source: Optional[Source] = source
        self._chunks = ChunkedBody() if length is None else None
        #: Received bytes; those from this position on are unread.
        self._data = b""
        self._at = 0
        #: Bytes of the body received, and the same including the framing of chunks.
        self._received = 0
        self._transferred = 0
        #: Seconds spent waiting for the client.
        self._waited = 0.0

    def wait_for_client(self, source: Any, size: int, timeout: float) -> bytes:
        """Wait for bytes from the client, and return them; empty at the end of the connection.

        :raises ClientGone: if no bytes arrive in time.
        """
        raise NotImplementedError

    def proceed(self) -> None:
        """Called before reading from the client, which may be waiting for ``100 Continue``."""

    @property
    def ended(self) -> bool:
        """Whether the whole body was received."""
        if self._chunks is not None:
            return self._chunks.ended
        return self.position >= self.content_length

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
        """Read and drop the unread rest of the body, which precedes the next request.

        :raises BadBody: if it is longer than ``UNREAD_BODY_BYTES``.
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
        """Free the resources: a copy of the environment may refer to this object for long."""
        self._source = None
        self._data = b""
        self._chunks, self.content_length = None, 0

    def _take(self, size: int) -> bytes:
        begin, self._at = self._at, self._at + size
        return self._data[begin : self._at]

    def _more(self) -> bool:
        """Wait until unread bytes are available; false at the end of the body."""
        if self._at < len(self._data):
            return True
        self._data, self._at = b"", 0
        while not self._data and not self.ended:
            self.proceed()
            self._data = self._receive()
        return bool(self._data)

    def _receive(self) -> bytes:
        """Receive some of the body; of a chunked body this may be nothing."""
        source = self._source
        assert source is not None
        if self._chunks is None:
            data = self._receive_raw(source, min(_BLOCK, self.content_length - self.position))
            self.position += len(data)
        else:
            try:
                data = self._chunks.feed(self._receive_raw(source, self._chunks.wanted))
            except HttpError as error:
                source.count(PROTOCOL, error)
                raise as_frameworks_expect(BadBody)(str(error)) from None
            if self._chunks.ended:
                source.data = self._chunks.rest + source.data
        self._received += len(data)
        return data

    def _receive_raw(self, source: Any, size: int) -> bytes:
        timeout = max(0.001, patience(self._received, self._waited))
        began = time.monotonic()
        try:
            data = self.wait_for_client(source, size, timeout)
        finally:
            self._waited += time.monotonic() - began
        if not data:
            raise as_frameworks_expect(ClientGone)()
        self._transferred += len(data)
        return data
