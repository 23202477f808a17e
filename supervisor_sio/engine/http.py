"""HTTP/1.1 requests, read strictly (RFC 9112): heads, and the bodies behind them.

A proxy in front and a server behind it must agree where a request ends: else what one
takes for a body is a request to the other. So a head that could be read in two ways is
refused, and the connection closes.

llhttp, by way of httptools, reads the head. It forgives some things, others in other
releases; what must not be forgiven is checked here in addition.
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

#: The lines between the request line and the body (RFC 9112, section 5). None is folded:
#: each begins with a name, and the colon is right behind it.
_FIELDS = re.compile(rb"(?:%b:%b\r\n)*\r\n" % (_TOKEN, _TEXT))

#: The request line (section 3): a path, or all of a URL, without a fragment.
_REQUEST_LINE = re.compile(
    rb"(%b) (?:(?i:https?)://([^/?# \r\n]+))?(/[!-\"$->@-~]*)?(?:\?([!-\"$-~]*))?"
    rb" HTTP/(1\.[01])\r\n" % _TOKEN
)

#: A name or an address, and perhaps a port (RFC 3986, section 3.2); empty where a URL has none.
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~!$&'()*+,;=%]*)(?::[0-9]{0,5})?")

#: A chunk's size, and extensions that mean nothing to us (RFC 9112, section 7.1.1).
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;%b)?\r\n" % _TEXT)
_TRAILER = re.compile(rb"%b:%b\r\n" % (_TOKEN, _TEXT))

#: No names.
_NONE: set[bytes] = set()

#: A length has fewer digits than this; int() would take its time for thousands of them.
_MOST_DIGITS = 18

#: Bytes to ask the connection for where a chunk may end. What comes behind the last one has to
#: fit into a message to the router, which may have to find another worker for it.
_LINE_READ = 8192
_DATA_READ = 65536

_BAD = "400 Bad Request"


class HttpError(ValueError):
    """A request that is refused; the connection closes.

    :ivar status: of the answer, as in ``400 Bad Request``.
    """

    def __init__(self, reason: str, status: str = _BAD) -> None:
        super().__init__(reason)
        self.status = status


class Head(NamedTuple):
    """A request without its body."""

    method: str
    #: As it was sent, with its percent signs.
    path: str
    query: str
    #: ``HTTP/1.0`` or ``HTTP/1.1``.
    version: str
    #: Of the URL, or else of the field Host; empty where HTTP/1.0 has neither.
    host: str
    #: Names as they were sent, and values without the space around them.
    fields: list[tuple[bytes, bytes]]
    #: Bytes of the body; ``None`` for one in chunks.
    length: Optional[int]
    #: Whether the client may send another request on the connection.
    keep_alive: bool
    #: Whether the field Upgrade counts (RFC 9110, 7.8); nobody upgrades a request with a body.
    may_upgrade: bool
    #: The values by names in lower case; of a name that is there more than once with a comma
    #: between (RFC 9110, section 5.3).
    named: dict[bytes, bytes]


class _Collector:
    """What llhttp has found."""

    __slots__ = ("fields", "complete")

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


def find_end(data: bytes, start: int = 0) -> int:
    """Where the head at the start of ``data`` ends; 0 while it is incomplete.

    :param start: how many bytes have been looked through before.
    :raises HttpError: when it is too long, or cannot become a head.
    """
    end = data.find(b"\r\n\r\n", max(0, start - 3)) + 4
    if end > HEAD_BYTES or (end < 4 and len(data) > HEAD_BYTES):
        raise HttpError("a head that is too long", "431 Request Header Fields Too Large")
    if end >= 4:
        return end
    # It will be refused for its line ends: say so before its client gives up.
    begin = max(0, start - 3)
    if data.find(b"\n\n", begin) >= 0 or data.find(b"\n\r\n", begin) >= 0:
        raise HttpError("a line end other than CRLF")
    return 0


def read_head(data: bytes) -> Head:
    """Read a head.

    :param data: all of it, with the empty line at its end and none before it.
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
        pass  # whether there is one is up to the application
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
    """The values by names in lower case, and which of these are there more than once."""
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
    """The options of a field Connection."""
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
    """What of a body in chunks is next."""

    SIZE = "a chunk's size"
    DATA = "its data"
    DATA_END = "the line end behind it"
    TRAILER = "a trailer, or the empty line"
    NONE = "nothing"


class ChunkedBody:
    """Takes the body out of its chunks (RFC 9112, section 7.1).

    Never holds more than a line, and what was fed to it last.
    """

    __slots__ = ("_data", "_left", "_next", "_trailers")

    def __init__(self) -> None:
        self._data = b""
        #: Bytes of this chunk that are to come.
        self._left = 0
        self._next = _Part.SIZE
        self._trailers = 0

    @property
    def ended(self) -> bool:
        """Whether all of the body has been fed."""
        return self._next is _Part.NONE

    @property
    def wanted(self) -> int:
        """How many bytes to read next: few of them can be those of the next request."""
        return min(_DATA_READ, max(_LINE_READ, self._left + 2))

    @property
    def rest(self) -> bytes:
        """What came behind the end."""
        return self._data

    def feed(self, data: bytes) -> bytes:
        """The bytes of the body that these add.

        :raises HttpError: for anything else than chunks.
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
        """Nearly all chunks come whole: the short way for them. Where the rest begins."""
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
    """A body that is wanted whole, as bytes come in.

    :param length: as in :class:`Head`.
    :param most: bytes that it may have.
    :raises HttpError: when it is longer.
    """

    __slots__ = ("rest", "_chunks", "_left", "_most", "_data")

    def __init__(self, length: Optional[int], most: int) -> None:
        #: What came behind the end.
        self.rest = b""
        self._chunks = ChunkedBody() if length is None else None
        #: Bytes that are to come of one with a length.
        self._left = length or 0
        #: Bytes that may yet come of one in chunks.
        self._most = most
        #: One buffer: a list of pieces of two bytes takes thirty times as much.
        self._data = bytearray()
        if self._left > most:
            raise _too_long()

    @property
    def wanted(self) -> int:
        """How many bytes to read next: few of them can be those of the next request."""
        return min(_DATA_READ, self._left) if self._chunks is None else self._chunks.wanted

    @property
    def left(self) -> Optional[int]:
        """How many bytes are to come; ``None`` of one in chunks."""
        return self._left if self._chunks is None else None

    @property
    def received(self) -> bytes:
        """What has come of it."""
        return bytes(self._data)

    def feed(self, data: bytes) -> Optional[bytes]:
        """All of the body, or ``None`` while there is more to come.

        :raises HttpError: for anything else than chunks, or for more than is allowed.
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
