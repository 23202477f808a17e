"""Read from the first line of an HTTP request which worker it is for. Pure.

The router uses it before it hands a connection to a worker; a worker uses it for each request on a
kept connection. A request line ends at the first LF (RFC 9112, section 2.2). Its query has the
Engine.IO session id, ``<tag>.<random>``, whose tag names the worker.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple, Optional
from urllib.parse import unquote_to_bytes

from . import reasons

#: Longest request line with its line end, in bytes; eventlet's wsgi takes no less.
MAX_REQUEST_LINE = 8190

#: The request line of nearly all clients: method, path, query, line end.
_USUAL = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) (/[!->@-~]*)(?:\?([!-~]*))? HTTP/1\.[0-9]\r?\n"
)
_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([^\s]+) HTTP/1\.[0-9]")
_ABSOLUTE = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)


class Kind(Enum):
    """Which worker a request is for."""

    HANDSHAKE = "handshake"  # opens an Engine.IO session: the router chooses a worker
    SESSION = "session"  # belongs to a session: the worker of the session
    PLAIN = "plain"  # any other request to the application: any worker


# Before Python 3.12, looking up an enum member takes longer than the comparison itself.
HANDSHAKE, SESSION, PLAIN = Kind


class Request(NamedTuple):
    kind: Kind
    #: The tag in the session id of a ``SESSION`` request; empty if the id has none.
    tag: str = ""


_PLAIN, _HANDSHAKE = Request(PLAIN), Request(HANDSHAKE)


class BadRequest(Exception):
    """A request that is refused before a worker receives it.

    :param reason: one of :mod:`.reasons`, whose row has the status of the answer.
    """

    def __init__(self, reason: str) -> None:
        self.status = reasons.TABLE[reason].answer
        super().__init__(self.status)
        self.reason = reason


def tag_of(sid: str) -> str:
    """The worker's tag in a session id; empty if it has none."""
    tag, dot, _ = sid.partition(".")
    return tag if dot else ""


def parse_head(data: bytes, paths: tuple[bytes, ...]) -> Optional[Request]:
    """Parse the start of a request; ``None`` while its first line is incomplete.

    :param paths: the Engine.IO paths, each with ``/`` at both ends.
    :raises BadRequest: when it is not, or cannot become, a request line.
    """
    end = data.find(b"\n")
    if 0 < end < MAX_REQUEST_LINE:
        match = _USUAL.fullmatch(data, 0, end + 1)
        if match is not None:
            method, path, query = match.groups(b"")
            return _judge(method, path, query, paths)
    parts = _parse_line(data)
    return None if parts is None else _judge(*parts, paths)


def _parse_line(data: bytes) -> Optional[tuple[bytes, bytes, bytes]]:
    """Parse any request line: its method, and the path and query of its target.

    :raises BadRequest: as :func:`parse_head`.
    """
    start = 0
    # A server should skip an empty line before the request line (RFC 9112, 2.2).
    while data.startswith((b"\r\n", b"\n"), start):
        start += 2 if data[start] == 13 else 1
        if start > 8:
            raise BadRequest(reasons.GARBAGE)
    if data[start : start + 1] == b"\x16":  # a TLS record that opens a handshake
        raise BadRequest(reasons.TLS_ON_PLAIN)
    end = data.find(b"\n", start)
    if end < 0:
        if len(data) - start >= MAX_REQUEST_LINE:
            raise BadRequest(reasons.LINE_TOO_LONG)
        # Refuse at once what cannot be HTTP, without waiting for a line end.
        if data[start : start + 1] and not 0x20 < data[start] < 0x7F and data[start] != 13:
            raise BadRequest(reasons.GARBAGE)
        return None
    if end - start >= MAX_REQUEST_LINE:
        raise BadRequest(reasons.LINE_TOO_LONG)
    match = _LINE.fullmatch(data, start, end - 1 if data[end - 1 : end] == b"\r" else end)
    if match is None:
        if data.startswith(b"PRI * HTTP/2.0", start):
            raise BadRequest(reasons.HTTP2)
        raise BadRequest(reasons.GARBAGE)
    target = match[2]
    if not target.startswith(b"/"):
        target = _ABSOLUTE.sub(b"", target, count=1)
    path, _, query = target.partition(b"?")
    return match[1], path, query


def _judge(method: bytes, path: bytes, query: bytes, paths: tuple[bytes, ...]) -> Request:
    if not path.startswith(paths):
        return _PLAIN
    sid = _sid(query)
    if sid is None:
        # A CORS preflight opens no session, any worker can answer it.
        return _PLAIN if method == b"OPTIONS" else _HANDSHAKE
    return Request(SESSION, tag_of(sid))


def _sid(query: bytes) -> Optional[str]:
    _, found, rest = (b"&" + query).partition(b"&sid=")
    if not found:
        return None
    sid = rest.partition(b"&")[0]
    return (unquote_to_bytes(sid) if b"%" in sid else sid).decode("latin-1")
