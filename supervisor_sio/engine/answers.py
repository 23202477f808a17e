"""Answers to Engine.IO requests: who may ask, and with which headers the answer goes out.

Origins, cookies and compression follow the options of python-engineio, errors have the JSON
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

from . import payload
from .options import Options
from .request import Request

Headers = Sequence[tuple[str, str]]

_TEXT = "text/plain; charset=UTF-8"
_SCRIPT = "text/javascript; charset=UTF-8"

#: Nobody else has a turn meanwhile: of a megabyte that is 9 ms by the fastest level, and 58 by
#: the best, which saves but 7 % of the bytes.
_LEVEL = 1

_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda body: gzip.compress(body, _LEVEL),
    "deflate": lambda body: zlib.compress(body, _LEVEL),
}

#: The weight of a compression that a client does not accept (RFC 9110, 12.4.2).
_NEVER = re.compile(r"\s*q=0(\.0*)?\s*", re.IGNORECASE)


class Fault(Enum):
    """Why a request is refused: the code and the message of Node's server."""

    TRANSPORT = 0, "Transport unknown"
    SESSION = 1, "Session ID unknown"
    METHOD = 2, "Bad handshake method"
    REQUEST = 3, "Bad request"
    VERSION = 5, "Unsupported protocol version"


class Answers:
    """Makes the answers of one Socket.IO server.

    :param date: the value of the field Date for an answer that is made now (RFC 9110, 6.6.1).
    """

    def __init__(self, options: Options, date: Callable[[], str]) -> None:
        self._options = options
        self._date = date

    # --- who may ask ------------------------------------------------------------

    def is_origin_allowed(self, request: Request) -> bool:
        """Whether the request's origin may use this server; true for a request without one.

        This may call a function of the application, which may wait, or fail: once for a request.
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
            except TypeError:  # it takes the origin alone
                return bool(allowed(origin))
        if isinstance(allowed, str):
            return allowed in ("*", origin)
        return "*" in allowed or origin in allowed

    def _own_origins(self, request: Request) -> list[str]:
        """The origins that are the server itself, by the fields Host and X-Forwarded-*."""
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
        """The answer to a poll.

        :param more: fields of the head.
        :param close: the connection ends after it.
        """
        text = payload.encode(packets)
        index = request.jsonp
        if index is None:
            return self._ok(request, _TEXT, text.encode(), more, close)
        script = payload.as_script(text, index)
        return self._ok(request, _SCRIPT, script.encode(), more, close)

    def taken(self, request: Request, close: bool = False) -> bytes:
        """The answer to a POST."""
        return self._build(request, "200 OK", "text/html", b"ok", (), close)

    def preflight(self, request: Request) -> bytes:
        """The answer to OPTIONS, by which a browser asks whether it may send a request."""
        return self._build(request, "200 OK", _TEXT, b"OK", (), False)

    def refusal(
        self,
        request: Request,
        fault: Fault,
        message: Optional[str] = None,
        more: Headers = (),
        close: bool = False,
    ) -> bytes:
        """The answer, with status 400, to a request that is refused.

        :param message: instead of the fault's.
        :param more: fields of the head.
        :param close: the connection ends after it.
        """
        code, text = fault.value
        body = json.dumps({"code": code, "message": message or text}, separators=(",", ":"))
        status = "400 Bad Request"
        return self._build(request, status, "application/json", body.encode(), more, close)

    def unauthorized(self, request: Request, message: Any) -> bytes:
        """The answer, with status 401, to a handshake that the application has refused.

        :param message: what the application says; anything that JSON takes.
        """
        body = json.dumps(message or "Unauthorized").encode()
        return self._build(request, "401 Unauthorized", "application/json", body, (), False)

    def cookies(self, sid: str) -> Headers:
        """The fields of a handshake's answer that set the cookie of the option ``cookie``."""
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

    # --- their bytes --------------------------------------------------------------

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
        """The fields by which a browser lets a page of another origin see the answer."""
        options = self._options
        if options.cors_allowed_origins == []:
            return ""
        lines = ""
        origin = request.header(b"origin")
        if origin and self.is_origin_allowed(request):
            lines = f"Access-Control-Allow-Origin: {origin}\r\n"
        if request.head.method == "OPTIONS":
            lines += "Access-Control-Allow-Methods: OPTIONS, GET, POST\r\n"
        wanted = request.header(b"access-control-request-headers")
        if wanted:
            lines += f"Access-Control-Allow-Headers: {wanted}\r\n"
        if options.cors_credentials:
            lines += "Access-Control-Allow-Credentials: true\r\n"
        return lines


def _first(values: str) -> str:
    return values.partition(",")[0].strip()


def _compression(accepted: str) -> Optional[str]:
    """The first of the methods that the client accepts and we have (RFC 9110, 12.5.3)."""
    for item in accepted.split(","):
        method, _, weight = item.partition(";")
        method = method.strip().lower()
        if method in _COMPRESSORS and not _NEVER.fullmatch(weight):
            return method
    return None
