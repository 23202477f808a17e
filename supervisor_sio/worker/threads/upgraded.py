"""The connection of a request as a socket, for an application that makes a websocket of it.

There is no standard for this; simple-websocket, and with it flask-sock, looks for what gunicorn
puts into the environment.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Optional

from ..body import ClientGone
from ..runtime import Threads

if TYPE_CHECKING:
    from ..connection import Connection

#: Where it is in the environment.
SOCKET = "gunicorn.socket"


class UpgradedSocket:
    """It blocks, and has a descriptor of its own, from its first use on: threads of the
    application may be reading from it when the request is over.
    """

    def __init__(self, connection: Connection, threads: Threads) -> None:
        self._connection: Optional[Connection] = connection
        self._threads = threads
        self._sock: Optional[socket.socket] = None

    @property
    def is_used(self) -> bool:
        """Whether the connection has become something else than HTTP."""
        return self._sock is not None

    def recv(self, size: int, flags: int = 0) -> bytes:
        sock, connection = self._get(), self._connection
        if connection is not None and connection.data:
            data: bytes = connection.data[:size]
            connection.data = connection.data[size:]
            return data
        return sock.recv(size, flags)

    def send(self, data: bytes) -> int:
        """All of it: simple-websocket does not look at how much was sent."""
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
        """The request is over; what reads here sees the end."""
        self._connection = None
        if self._sock is not None:
            try:
                self._sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the client was faster
