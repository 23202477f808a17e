"""A request's connection as a socket, for an application that upgrades it to a websocket.

There is no standard for this; simple-websocket, which flask-sock uses, takes the socket that
gunicorn puts into the environment.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Optional

from ..body import ClientGone
from ..runtime import Threads

if TYPE_CHECKING:
    from ..connection import Connection

#: The key of the socket in the environment.
SOCKET = "gunicorn.socket"


class UpgradedSocket:
    """A blocking socket. From its first use on it has its own descriptor, because threads of the
    application may still read from it when the request has ended.
    """

    def __init__(self, connection: Connection, threads: Threads) -> None:
        self._connection: Optional[Connection] = connection
        self._threads = threads
        self._sock: Optional[socket.socket] = None

    @property
    def is_used(self) -> bool:
        """Whether the application has upgraded the connection."""
        return self._sock is not None

    def recv(self, size: int, flags: int = 0) -> bytes:
        sock, connection = self._get(), self._connection
        if connection is not None and connection.data:
            data: bytes = connection.data[:size]
            connection.data = connection.data[size:]
            return data
        return sock.recv(size, flags)

    def send(self, data: bytes) -> int:
        """Send all data: simple-websocket ignores the number of bytes sent."""
        self._get().sendall(data)
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._get(), name)

    def _get(self) -> socket.socket:
        if self._sock is None:
            connection = self._connection
            if connection is None:
                raise ClientGone()
            old = connection.sock
            assert old is not None
            self._sock = socket.fromfd(old.fileno(), old.family, old.type)
            self._sock.settimeout(None)
            self._threads.run(0, connection.note_upgrade)
        return self._sock

    def release(self) -> None:
        """The request has ended: shut the socket down, so that readers see its end."""
        self._connection = None
        if self._sock is not None:
            try:
                self._sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the client has closed the connection
