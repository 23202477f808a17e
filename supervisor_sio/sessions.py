"""The Socket.IO servers of this process, and the ids of their sessions."""

from __future__ import annotations

import weakref
from typing import Any

from . import identity

_servers: weakref.WeakSet[Any] = weakref.WeakSet()


def attach(server: Any) -> None:
    """Let the session ids of a ``socketio.Server`` name this worker.

    An id becomes ``<tag>.<random>``: whoever sees it knows where it belongs,
    without a table of sessions.
    """
    generate_id = server.eio.generate_id
    prefix = identity.tag() + "."
    server.eio.generate_id = lambda: prefix + generate_id()
    _servers.add(server)


def servers() -> list[Any]:
    return list(_servers)


def count() -> int:
    """Open sessions; python-socketio keeps the WSGI environment of each."""
    return sum(len(server.environ) for server in _servers)
