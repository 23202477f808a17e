"""The ASGI scope of a handshake.

A session keeps the scope of its handshake for its whole life. So sessions share values that are the
same for many clients, and the scope does not refer to the connection.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from ...engine.http import Head
from ..taker import EXCHANGE

if TYPE_CHECKING:
    from ..connection import Connection

#: Fields whose value differs for each client.
_OWN = frozenset(
    (b"cookie", b"authorization", b"sec-websocket-key", b"x-forwarded-for", b"x-real-ip")
)

#: Most fields that are kept to be shared, and most bytes of each.
_SHARED = 512
_SHORT = 256

#: The same values as uvicorn's; shared by all scopes, and never changed.
_HTTP = {"version": "3.0", "spec_version": "2.3"}
_WEBSOCKET = {"version": "3.0", "spec_version": "2.4"}
_EXTENSIONS: dict[str, Any] = {"websocket.http.response": {}}


def make_scope(connection: Connection, head: Head, state: dict[str, Any]) -> dict[str, Any]:
    """The scope of a request without a body: of type ``websocket`` if it is a valid handshake.

    :param state: the state of the lifespan.
    """
    secure = connection.scheme == "https"
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": _HTTP,
        "http_version": head.version[5:],
        "server": address(connection.local),
        "client": address(connection.peer),
        "scheme": "https" if secure else "http",
        "root_path": "",
        "headers": make_headers(head),
        "path": unquote(head.path) if "%" in head.path else head.path,
        "raw_path": head.path.encode(),
        "query_string": head.query.encode(),
        "state": state.copy(),
    }
    if is_websocket(head):
        scope["type"] = "websocket"
        scope["asgi"] = _WEBSOCKET
        scope["scheme"] = "wss" if secure else "ws"
        protocols = head.named.get(b"sec-websocket-protocol", b"").decode("latin-1")
        scope["subprotocols"] = [name.strip() for name in protocols.split(",") if name.strip()]
        scope["extensions"] = _EXTENSIONS
    else:
        scope["method"] = head.method
    return scope


def release(scope: dict[str, Any]) -> None:
    """After the request, remove large objects that are no longer needed.

    FastAPI leaves its closed exit stacks in the scope.
    """
    scope.pop(EXCHANGE, None)
    for name in [name for name, value in scope.items() if value.__class__ is AsyncExitStack]:
        del scope[name]


def is_about_client(error: BaseException) -> bool:
    """Whether the error reports that the client has gone; Starlette has its own class for that."""
    return isinstance(error, OSError) or type(error).__name__ == "ClientDisconnect"


def is_websocket(head: Head) -> bool:
    return head.may_upgrade and head.named.get(b"upgrade", b"").lower() == b"websocket"


def address(address: Any) -> Any:
    """Host and port; ``None`` for a Unix socket."""
    return address[:2] if isinstance(address, tuple) else None


def make_headers(head: Head) -> list[tuple[bytes, bytes]]:
    """The fields of a head in ASGI's form."""
    fields = []
    for name, value in head.fields:
        if len(name) + len(value) <= _SHORT:
            fields.append(_field(name, value))
        else:
            fields.append((name.lower(), value))
    return fields


@lru_cache(_SHARED)
def _lower(name: bytes) -> bytes:
    return name.lower()


@lru_cache(_SHARED)
def _shared(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    return name, value


def _field(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    name = _lower(name)
    return (name, value) if name in _OWN else _shared(name, value)
