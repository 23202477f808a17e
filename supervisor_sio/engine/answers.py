"""Responses to Engine.IO requests, with their headers, and the check of a request's origin.

Origins, cookies and compression follow the options of python-engineio; errors have the JSON
bodies of Node's server (``packages/engine.io/lib/server.ts``, ``ERROR_MESSAGES``).
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Sequence
from enum import Enum
from typing import Any, Callable, Optional

from ..common.cors import METHODS
from . import payload
from .options import Options
from .request import Request

Headers = Sequence[tuple[str, str]]

_TEXT = "text/plain; charset=UTF-8"
_SCRIPT = "text/javascript; charset=UTF-8"

#: Compression blocks the loop: for a megabyte 9 ms at the fastest level, 58 ms at the best, which
#: saves only 7 % more bytes.
_LEVEL = 1

_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda body: gzip.compress(body, _LEVEL),
    "deflate": lambda body: zlib.compress(body, _LEVEL),
}

#: A weight of 0, with which a client refuses a compression (RFC 9110, 12.4.2).
_NEVER = re.compile(r"\s*q=0(\.0*)?\s*", re.IGNORECASE)


class Fault(Enum):
    """Why a request is refused: the code and the message of Node's server."""

    TRANSPORT = 0, "Transport unknown"
    SESSION = 1, "Session ID unknown"
    METHOD = 2, "Bad handshake method"
    REQUEST = 3, "Bad request"
    VERSION = 5, "Unsupported protocol version"


class Answers:
    """Builds the responses of one Socket.IO server.

    :param date: returns the current value of the Date field (RFC 9110, 6.6.1).
    """

    def __init__(self, options: Options, date: Callable[[], str]) -> None:
        self._options = options
        self._date = date

    # --- origins ----------------------------------------------------------------

    def is_origin_allowed(self, request: Request) -> bool:
        """Whether the request's origin may use this server; true for a request without Origin.

        This may call a function of the application, once per request, which may block or raise.
        """
        if request.allowed is None:
            origin = request.header(b"origin")
            request.allowed = (
                self._options.cors_allowed_origins == []
                or not origin
                or self._allows(origin, request)
            )
        return request.allowed

    def _allows(self, origin: str, request: Request) -> bool:
        allowed = self._options.cors_allowed_origins
        if allowed is None:
            return origin in self._own_origins(request)
        if callable(allowed):
            environ = request.environ()
            try:
                return bool(allowed(origin, environ))
            except TypeError:  # the function takes only the origin
                return bool(allowed(origin))
        if isinstance(allowed, str):
            return allowed in ("*", origin)
        return "*" in allowed or origin in allowed

    def _own_origins(self, request: Request) -> list[str]:
        """The server's own origins, according to the fields Host and X-Forwarded-*."""
        host = request.head.host
        if not host:
            return []
        origins = [f"{request.scheme}://{host}"]
        scheme = request.header(b"x-forwarded-proto")
        forwarded = request.header(b"x-forwarded-host")
        if scheme or forwarded:
            origins.append(f"{_first(scheme or request.scheme)}://{_first(forwarded or host)}")
        return origins

    # --- answers ------------------------------------------------------------------

    def packets(
        self,
        request: Request,
        packets: Sequence[payload.Packet],
        more: Headers = (),
        close: bool = False,
    ) -> bytes:
        """The response to a poll.

        :param more: additional header fields.
        :param close: whether the connection closes after it.
        """
        text = payload.encode(packets)
        index = request.jsonp
        if index is None:
            return self._ok(request, _TEXT, text.encode(), more, close)
        script = payload.as_script(text, index)
        return self._ok(request, _SCRIPT, script.encode(), more, close)

    def taken(self, request: Request, close: bool = False) -> bytes:
        """The response to a POST whose packets were handled."""
        return self._build(request, "200 OK", "text/html", b"ok", (), close)

    def preflight(self, request: Request) -> bytes:
        """The response to OPTIONS, with which a browser asks whether it may send a request."""
        return self._build(request, "200 OK", _TEXT, b"OK", (), False)

    def refusal(
        self,
        request: Request,
        fault: Fault,
        message: Optional[str] = None,
        more: Headers = (),
        close: bool = False,
    ) -> bytes:
        """The response with status 400 to a refused request.

        :param message: replaces the fault's message.
        :param more: additional header fields.
        :param close: whether the connection closes after it.
        """
        code, text = fault.value
        body = json.dumps({"code": code, "message": message or text}, separators=(",", ":"))
        status = "400 Bad Request"
        return self._build(request, status, "application/json", body.encode(), more, close)

    def unauthorized(self, request: Request, message: Any) -> bytes:
        """The response with status 401 to a handshake that the application has refused.

        :param message: from the application; any JSON-compatible value.
        """
        body = json.dumps(message or "Unauthorized").encode()
        return self._build(request, "401 Unauthorized", "application/json", body, (), False)

    def cookies(self, sid: str) -> Headers:
        """The fields of a handshake's response that set the cookie of the option ``cookie``."""
        cookie = self._options.cookie
        if not cookie:
            return ()
        if isinstance(cookie, str):
            cookie = {"name": cookie, "path": "/", "SameSite": "Lax"}
        text = f"{cookie.get('name', 'io')}={sid}"
        for name, value in cookie.items():
            if name == "name":
                continue
            if callable(value):
                value = value()
            text += f"; {name}" if value is True else f"; {name}={value}"
        return (("Set-Cookie", text),)

    # --- encoding -----------------------------------------------------------------

    def _ok(self, request: Request, kind: str, body: bytes, more: Headers, close: bool) -> bytes:
        options = self._options
        if options.http_compression and len(body) >= options.compression_threshold:
            method = _compression(request.header(b"accept-encoding"))
            if method:
                body = _COMPRESSORS[method](body)
                more = (*more, ("Content-Encoding", method))
        return self._build(request, "200 OK", kind, body, more, close)

    def _build(
        self,
        request: Request,
        status: str,
        kind: str,
        body: bytes,
        more: Headers,
        close: bool,
    ) -> bytes:
        head = request.head
        lines = (
            f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
            f"Date: {self._date()}\r\n"
        )
        for name, value in more:
            lines += f"{name}: {value}\r\n"
        lines += self._cors(request)
        if close or not head.keep_alive:
            lines += "Connection: close\r\n"
        elif head.version == "HTTP/1.0":
            lines += "Connection: keep-alive\r\n"
        return f"{lines}\r\n".encode("latin-1") + (b"" if head.method == "HEAD" else body)

    def _cors(self, request: Request) -> str:
        """The fields that allow a page of another origin to read the response."""
        options = self._options
        if options.cors_allowed_origins == []:
            return ""
        lines = ""
        origin = request.header(b"origin")
        if origin and self.is_origin_allowed(request):
            lines = f"Access-Control-Allow-Origin: {origin}\r\n"
        if request.head.method == "OPTIONS":
            lines += f"Access-Control-Allow-Methods: {METHODS}\r\n"
        wanted = request.header(b"access-control-request-headers")
        if wanted:
            lines += f"Access-Control-Allow-Headers: {wanted}\r\n"
        if options.cors_credentials:
            lines += "Access-Control-Allow-Credentials: true\r\n"
        return lines


def _first(values: str) -> str:
    return values.partition(",")[0].strip()


def _compression(accepted: str) -> Optional[str]:
    """The first supported compression that the client accepts (RFC 9110, 12.5.3)."""
    for item in accepted.split(","):
        method, _, weight = item.partition(";")
        method = method.strip().lower()
        if method in _COMPRESSORS and not _NEVER.fullmatch(weight):
            return method
    return None
