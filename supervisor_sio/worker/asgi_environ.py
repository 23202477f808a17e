"""The environment of a handshake, as engineio makes it of an ASGI scope for an ``AsyncServer``."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any, Optional

from ..cluster.environs import NO_ASYNC_INPUT

#: Names and values of fields that sessions share, at most.
_SHARED = 512

#: Fields of which each client has its own value.
_OWN = (b"cookie", b"authorization", b"sec-websocket-key", b"x-forwarded-for", b"x-real-ip")


def make_environ(scope: dict[str, Any]) -> dict[str, Any]:
    """Without ``asgi.receive`` and ``asgi.send``: they end with the handshake, this does not.

    :param scope: of type ``http`` or ``websocket``; the environment keeps it.
    """
    query = _text(scope.get("query_string", b"")) or ""
    path = scope["path"]
    address, port = scope.get("client") or ("", 0)
    server = scope.get("server") or ("asgi", 0)
    environ: dict[str, Any] = {
        "wsgi.input": NO_ASYNC_INPUT,
        "wsgi.errors": sys.stderr,
        "wsgi.version": (1, 0),
        "wsgi.async": True,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "SERVER_SOFTWARE": "asgi",
        "REQUEST_METHOD": scope.get("method", "GET"),
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "RAW_URI": _uri(path, query),
        "SCRIPT_NAME": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        # Those of the client and of the server; engineio has made-up ones.
        "REMOTE_ADDR": address,
        "REMOTE_PORT": str(port),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1] or 0),
        "asgi.scope": scope,
    }
    for name, value in scope["headers"]:
        text = _text(value) if name not in _OWN else _decode(value)
        if text is None or b"_" in name:
            continue  # nobody could tell it from one with a hyphen
        key = _key(name)
        known = environ.get(key)
        environ[key] = text if known is None else f"{known},{text}"
    environ["wsgi.url_scheme"] = environ.get("HTTP_X_FORWARDED_PROTO") or _scheme(scope)
    return environ


@lru_cache(_SHARED)
def _key(name: bytes) -> str:
    key = sys.intern(name.decode("latin-1").upper().replace("-", "_"))
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


def _decode(value: bytes) -> Optional[str]:
    """``None`` for what is not UTF-8: engineio leaves it out as well."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


_text = lru_cache(_SHARED)(_decode)


@lru_cache(_SHARED)
def _uri(path: str, query: str) -> str:
    return f"{path}?{query}" if query else path


def _scheme(scope: dict[str, Any]) -> str:
    """That of the handshake, which is HTTP also where a websocket begins."""
    scheme: str = scope["scheme"]
    return {"ws": "http", "wss": "https"}.get(scheme, scheme)
