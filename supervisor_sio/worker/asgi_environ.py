"""Builds a handshake's environment from an ASGI scope, as engineio's ``AsyncServer`` does."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any, Optional

from ..cluster.environs import NO_ASYNC_INPUT

#: Most names and values of header fields that are kept to be shared by sessions.
_SHARED = 512

#: Fields whose value differs for each client.
_OWN = (b"cookie", b"authorization", b"sec-websocket-key", b"x-forwarded-for", b"x-real-ip")


def make_environ(scope: dict[str, Any]) -> dict[str, Any]:
    """The environment, without ``asgi.receive`` and ``asgi.send``, which it would outlive.

    :param scope: of type ``http`` or ``websocket``; the environment refers to it.
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
        # The real addresses; python-engineio uses fixed values.
        "REMOTE_ADDR": address,
        "REMOTE_PORT": str(port),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1] or 0),
        "asgi.scope": scope,
    }
    for name, value in scope["headers"]:
        text = _text(value) if name not in _OWN else _decode(value)
        if text is None or b"_" in name:
            continue  # X_Y would become the same key as X-Y
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
    """The text; ``None`` if it is not UTF-8: python-engineio leaves such fields out, too."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


_text = lru_cache(_SHARED)(_decode)


@lru_cache(_SHARED)
def _uri(path: str, query: str) -> str:
    return f"{path}?{query}" if query else path


def _scheme(scope: dict[str, Any]) -> str:
    """The scheme of the handshake: ``http`` or ``https`` also for a websocket."""
    scheme: str = scope["scheme"]
    return {"ws": "http", "wss": "https"}.get(scheme, scheme)
