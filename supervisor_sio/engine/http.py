"""Strict reading of HTTP/1.1 requests (RFC 9112): heads and bodies.

A proxy and the server behind it must agree where a request ends; otherwise the server may
take for a request what the proxy took for a body (request smuggling). So an ambiguous head
is refused, and the connection closes.

llhttp, through httptools, parses the head. It tolerates some errors, and which ones depends
on its release; the errors that must not be tolerated are checked here as well.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache
from typing import NamedTuple, Optional

import httptools

from ..common.limits import CHUNK_LINE_BYTES, HEAD_BYTES, HEAD_FIELDS, TRAILER_BYTES

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_TEXT = rb"[\t\x20-\x7e\x80-\xff]*"

#: The lines between the request line and the body (RFC 9112, section 5). Folded lines do not
#: match: each line begins with a name, immediately followed by the colon.
_FIELDS = re.compile(rb"(?:%b:%b\r\n)*\r\n" % (_TOKEN, _TEXT))

#: The request line (section 3): its target is a path or a complete URL, without a fragment.
_REQUEST_LINE = re.compile(
    rb"(%b) (?:(?i:https?)://([^/?# \r\n]+))?(/[!-\"$->@-~]*)?(?:\?([!-\"$-~]*))?"
    rb" HTTP/(1\.[01])\r\n" % _TOKEN
)

#: A name or an address, optionally with a port (RFC 3986, section 3.2); may be empty.
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~!$&'()*+,;=%]*)(?::[0-9]{0,5})?")

#: A chunk's size, and extensions, which are ignored (RFC 9112, section 7.1.1).
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;%b)?\r\n" % _TEXT)
_TRAILER = re.compile(rb"%b:%b\r\n" % (_TOKEN, _TEXT))

_NONE: set[bytes] = set()

#: Most digits of a Content-Length; int() is slow for thousands of digits.
_MOST_DIGITS = 18

#: Bytes to read at once where a chunk may end. Bytes read beyond the last chunk belong to the
#: next request: they have to fit into a message to the router, if it is for another worker.
_LINE_READ = 8192
_DATA_READ = 65536

_BAD = "400 Bad Request"


class HttpError(ValueError):
    """The request is refused, and the connection closes.

    :ivar status: of the response, for example ``400 Bad Request``.
    """

    def __init__(self, reason: str, status: str = _BAD) -> None:
        super().__init__(reason)
        self.status = status


class Head(NamedTuple):
    """A request without its body."""

    method: str
    #: As sent, still percent-encoded.
    path: str
    query: str
    #: ``HTTP/1.0`` or ``HTTP/1.1``.
    version: str
    #: From the URL, otherwise from the field Host; empty if an HTTP/1.0 request has neither.
    host: str
    #: Names as sent, and values without surrounding whitespace.
    fields: list[tuple[bytes, bytes]]
    #: Bytes of the body; ``None`` for a chunked body.
    length: Optional[int]
    #: Whether the client may send another request on the connection.
    keep_alive: bool
    #: Whether the field Upgrade is honoured (RFC 9110, 7.8); it is not for requests with a body.
    may_upgrade: bool
    #: The values by lower-case name; those of a repeated name are joined with a comma
    #: (RFC 9110, section 5.3).
    named: dict[bytes, bytes]


class _Collector:
    """Collects what llhttp parses."""

    __slots__ = ("fields", "complete")

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


def find_end(data: bytes, start: int = 0) -> int:
    """The length of the head at the start of ``data``; 0 while it is incomplete.

    :param start: number of bytes that an earlier call has searched.
    :raises HttpError: if the head is too long, or has a line end that will be refused.
    """
    end = data.find(b"\r\n\r\n", max(0, start - 3)) + 4
    if end > HEAD_BYTES or (end < 4 and len(data) > HEAD_BYTES):
        raise HttpError("a head that is too long", "431 Request Header Fields Too Large")
    if end >= 4:
        return end
    # A head with these line ends never becomes complete: refuse it now, not after a timeout.
    begin = max(0, start - 3)
    if data.find(b"\n\n", begin) >= 0 or data.find(b"\n\r\n", begin) >= 0:
        raise HttpError("a line end other than CRLF")
    return 0


def read_head(data: bytes) -> Head:
    """Parse a head.

    :param data: the complete head, including the empty line at its end.
    :raises HttpError: see RFC 9112, sections 2.2, 3, 5.1, 6.1, 6.3 and 11.2.
    """
    line = _REQUEST_LINE.match(data)
    if line is None:
        raise HttpError("a malformed request line")
    method, authority, path, query, version = line.groups()
    if (authority is None and path is None) or method == b"CONNECT":
        raise HttpError("a target that is neither a path nor a URL")
    if _FIELDS.fullmatch(data, line.end()) is None:
        raise HttpError("a malformed header line")
    if data.count(b"\n") - 2 > HEAD_FIELDS:
        raise HttpError("too many header lines", "431 Request Header Fields Too Large")
    found = _Collector()
    try:
        httptools.HttpRequestParser(found).feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # the caller decides whether to upgrade
    except httptools.HttpParserError as error:
        raise HttpError(str(error)[:100]) from None
    if not found.complete:
        raise HttpError("a malformed request line")
    fields, is_old = found.fields, version == b"1.0"
    named, repeated = _by_name(fields)
    host = named.get(b"host")
    if b"host" in repeated or (host is None and not is_old):
        raise HttpError("no Host" if host is None else "more than one Host")
    length = _length(named, repeated, is_old)
    words = _words(named.get(b"connection", b""))
    return Head(
        method.decode(),
        path.decode() if path else "/",
        query.decode() if query else "",
        "HTTP/1.0" if is_old else "HTTP/1.1",
        _host(host or b"", authority),
        fields,
        length,
        b"close" not in words and (not is_old or b"keep-alive" in words),
        b"upgrade" in words and not is_old and length == 0,
        named,
    )


def _by_name(fields: list[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], set[bytes]]:
    """The values by lower-case name, and the names that occur more than once."""
    named = {name.lower(): value for name, value in fields}
    if len(named) == len(fields):
        return named, _NONE
    named.clear()
    repeated: set[bytes] = set()
    for name, value in fields:
        name = name.lower()
        if name in named:
            repeated.add(name)
            value = b"%b,%b" % (named[name], value)
        named[name] = value
    return named, repeated


@lru_cache(64)
def _words(options: bytes) -> frozenset[bytes]:
    """The options listed in a Connection field."""
    return frozenset(word.strip(b" \t").lower() for word in options.split(b","))


@lru_cache(64)
def _host(host: bytes, authority: Optional[bytes]) -> str:
    if _HOST.fullmatch(host) is None or (authority and _HOST.fullmatch(authority) is None):
        raise HttpError("a malformed Host")
    return (authority or host).decode()


def _length(named: dict[bytes, bytes], repeated: set[bytes], is_old: bool) -> Optional[int]:
    encoding = named.get(b"transfer-encoding")
    text = named.get(b"content-length")
    if encoding is not None:
        if is_old or text is not None or encoding.lower() != b"chunked":
            raise HttpError("a Transfer-Encoding that is not just chunked")
        return None
    if text is None:
        return 0
    if b"content-length" in repeated or not text.isdigit() or len(text) > _MOST_DIGITS:
        raise HttpError("a Content-Length that is not a number")
    return int(text)


class _Part(Enum):
    """The next part of a chunked body."""

    SIZE = "a chunk's size"
    DATA = "its data"
    DATA_END = "the line end behind it"
    TRAILER = "a trailer, or the empty line"
    NONE = "nothing"


class ChunkedBody:
    """Decodes a chunked body (RFC 9112, section 7.1).

    Keeps at most one incomplete line and the bytes that were fed last.
    """

    __slots__ = ("_data", "_left", "_next", "_trailers")

    def __init__(self) -> None:
        self._data = b""
        #: Bytes of the current chunk that have not arrived.
        self._left = 0
        self._next = _Part.SIZE
        self._trailers = 0

    @property
    def ended(self) -> bool:
        """Whether the whole body has been fed."""
        return self._next is _Part.NONE

    @property
    def wanted(self) -> int:
        """How many bytes to read next, so that few belong to the next request."""
        return min(_DATA_READ, max(_LINE_READ, self._left + 2))

    @property
    def rest(self) -> bytes:
        """The bytes received behind the body's end."""
        return self._data

    def feed(self, data: bytes) -> bytes:
        """Decode received bytes, and return the body's bytes in them.

        :raises HttpError: if they are not valid chunks.
        """
        data = self._data + data
        size, position = len(data), 0
        pieces: list[bytes] = []
        while self._next is not _Part.NONE:
            if self._next is _Part.SIZE:
                position = self._take_whole_chunks(data, position, pieces)
            if self._next is _Part.DATA:
                piece = data[position : position + self._left]
                if not piece:
                    break
                pieces.append(piece)
                position += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._next = _Part.DATA_END
            elif self._next is _Part.DATA_END:
                if size < position + 2:
                    break
                if not data.startswith(b"\r\n", position):
                    raise HttpError("a chunk that is longer than its size")
                position += 2
                self._next = _Part.SIZE
            else:
                end = data.find(b"\n", position, position + CHUNK_LINE_BYTES) + 1
                if not end:
                    if size - position >= CHUNK_LINE_BYTES:
                        raise HttpError("too long a line between chunks")
                    break
                self._take_line(data, position, end)
                position = end
        self._data = data[position:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _take_whole_chunks(self, data: bytes, position: int, pieces: list[bytes]) -> int:
        """The fast path for complete chunks, which nearly all are.

        :return: the position behind them.
        """
        while True:
            match = _CHUNK_LINE.match(data, position, position + CHUNK_LINE_BYTES)
            if match is None:
                return position
            begin = match.end()
            end = begin + int(match[1], 16)
            if end == begin or data[end : end + 2] != b"\r\n":
                return position
            pieces.append(data[begin:end])
            position = end + 2

    def _take_line(self, data: bytes, start: int, end: int) -> None:
        if self._next is _Part.SIZE:
            match = _CHUNK_LINE.fullmatch(data, start, end)
            if match is None:
                raise HttpError("a malformed chunk size")
            self._left = int(match[1], 16)
            self._next = _Part.DATA if self._left else _Part.TRAILER
            return
        self._trailers += end - start
        if self._trailers > TRAILER_BYTES:
            raise HttpError("too many trailers")
        if data.startswith(b"\r\n", start):
            self._next = _Part.NONE
        elif _TRAILER.fullmatch(data, start, end) is None:
            raise HttpError("a malformed trailer")


class Body:
    """Collects the complete body of a request.

    :param length: as in :class:`Head`.
    :param most: the most bytes that the body may have.
    :raises HttpError: if the body is longer.
    """

    __slots__ = ("rest", "_chunks", "_left", "_most", "_data")

    def __init__(self, length: Optional[int], most: int) -> None:
        #: The bytes received behind the body's end.
        self.rest = b""
        self._chunks = ChunkedBody() if length is None else None
        #: With a Content-Length: the bytes that have not arrived.
        self._left = length or 0
        #: Chunked: the bytes that may still arrive.
        self._most = most
        #: One buffer, because a list of two-byte pieces takes thirty times the memory.
        self._data = bytearray()
        if self._left > most:
            raise _too_long()

    @property
    def wanted(self) -> int:
        """How many bytes to read next, so that few belong to the next request."""
        return min(_DATA_READ, self._left) if self._chunks is None else self._chunks.wanted

    @property
    def left(self) -> Optional[int]:
        """How many bytes have not arrived; ``None`` for a chunked body."""
        return self._left if self._chunks is None else None

    @property
    def received(self) -> bytes:
        """The bytes of the body received so far."""
        return bytes(self._data)

    def feed(self, data: bytes) -> Optional[bytes]:
        """Take received bytes; return the complete body, or ``None`` while it is incomplete.

        :raises HttpError: if the chunks are not valid, or the body is too long.
        """
        if self._chunks is None:
            if len(data) < self._left:
                self._left -= len(data)
                self._data += data
                return None
            self.rest = data[self._left :]
            self._data += data[: self._left]
        else:
            piece = self._chunks.feed(data)
            self._most -= len(piece)
            if self._most < 0:
                raise _too_long()
            self._data += piece
            if not self._chunks.ended:
                return None
            self.rest = self._chunks.rest
        return bytes(self._data)


def _too_long() -> HttpError:
    return HttpError("a body that is too long", "413 Content Too Large")
