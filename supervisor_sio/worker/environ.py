"""The WSGI environment of a request (PEP 3333)."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from ..cluster.environs import NO_INPUT
from ..engine.http import Head

if TYPE_CHECKING:
    from .connection import Connection

#: The environment's keys for common header fields; sessions share these strings.
_KEYS = {
    spelled.encode(): "HTTP_" + name.upper().replace("-", "_")
    for name in (
        "Accept Accept-Encoding Accept-Language Cache-Control Connection Cookie Origin Pragma "
        "Referer Sec-Fetch-Dest Sec-Fetch-Mode Sec-Fetch-Site Sec-WebSocket-Extensions "
        "Sec-WebSocket-Key Sec-WebSocket-Version Upgrade User-Agent X-Forwarded-For "
        "X-Forwarded-Host X-Forwarded-Proto X-Real-IP"
    ).split()
    for spelled in (name, name.lower())
}

#: The keys whose values are the same for many clients; sessions share these values, too.
_SHARED = frozenset(_KEYS.values()) - {
    "HTTP_COOKIE",
    "HTTP_SEC_WEBSOCKET_KEY",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_REAL_IP",
}

#: Fields that do not become ``HTTP_`` variables, or whose variables are set elsewhere.
_APART = (b"host", b"content-type", b"content-length")


class EnvironOf:
    """Builds the environment of a request that the engine handles without the application."""

    __slots__ = ("_connection", "_head")

    def __init__(self, connection: Connection, head: Head) -> None:
        self._connection = connection
        self._head = head

    def __call__(self) -> dict[str, Any]:
        environ = make_environ(self._connection, self._head)
        environ["wsgi.input"] = NO_INPUT
        return environ


def make_environ(connection: Connection, head: Head) -> dict[str, Any]:
    peer, peer_port = _host_and_port(connection.peer)
    # Behind TLS, or a PROXY header, the socket's own address is not the client's view.
    local, local_port = _host_and_port(connection.local)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": head.method,
        "SCRIPT_NAME": "",
        "RAW_PATH_INFO": head.path,
        "PATH_INFO": unquote(head.path, "latin-1") if "%" in head.path else head.path,
        "QUERY_STRING": head.query,
        "SERVER_NAME": local,
        "SERVER_PORT": str(local_port),
        "SERVER_PROTOCOL": head.version,
        "REMOTE_ADDR": peer,
        "REMOTE_PORT": str(peer_port),
        "GATEWAY_INTERFACE": "CGI/1.1",
        "wsgi.errors": sys.stderr,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": connection.scheme,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if head.host:
        environ["HTTP_HOST"] = head.host
    if connection.scheme == "https":
        environ["HTTPS"] = "on"
    _add_fields(environ, head)
    if not head.may_upgrade:
        environ.pop("HTTP_UPGRADE", None)
    return environ


def _host_and_port(address: Any) -> tuple[str, Any]:
    return address if isinstance(address, tuple) else ("unix", "")


@lru_cache(256)
def _text(value: bytes) -> str:
    return value.decode("latin-1")


def _add_fields(environ: dict[str, Any], head: Head) -> None:
    for name, raw in head.fields:
        key = _KEYS.get(name)
        value = _text(raw) if key in _SHARED else raw.decode("latin-1")
        if key is None:
            lower = name.lower()
            if lower in _APART:
                if lower == b"content-type":
                    environ.setdefault("CONTENT_TYPE", value)
                elif lower == b"content-length":
                    environ["CONTENT_LENGTH"] = value
                continue
            if b"_" in name:
                continue  # X_Y would become the same variable as X-Y
            key = "HTTP_" + name.decode().upper().replace("-", "_")
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    environ.setdefault("CONTENT_TYPE", "text/plain")  # as eventlet.wsgi does
