"""Reading and writing a client's connection in a greenlet, which waits in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventlet import hubs, patcher
from eventlet.greenio import GreenSocket

from ...common.limits import STALLED_SECONDS
from ...common.reasons import TOO_SLOW
from ..body import ClientGone, as_frameworks_expect

if TYPE_CHECKING:
    from ..connection import Connection

_socket: Any = patcher.original("socket")

#: Most bytes of a response that are joined for one write.
_BLOCK = 65536


class _Stalled(Exception):
    """The client has not sent or read anything in time."""


def _wait(connection: Connection, what: str, timeout: float, read: bool) -> None:
    """Wait until the socket is readable or writable.

    :raises ClientGone: if that does not happen within ``timeout`` seconds.
    """
    sock = connection.sock
    if sock is None:
        raise as_frameworks_expect(ClientGone)()
    if read:
        connection.stop_reading()
    try:
        hubs.trampoline(
            sock.fileno(), read=read, write=not read, timeout=timeout, timeout_exc=_Stalled
        )
    except _Stalled:
        connection.count(TOO_SLOW, what)
        raise as_frameworks_expect(ClientGone)() from None
    except hubs.IOClosed:
        raise as_frameworks_expect(ClientGone)() from None


def receive(connection: Connection, size: int, timeout: float) -> bytes:
    """Receive bytes from the client; empty at the end of the connection.

    :raises ClientGone: if no bytes arrive within ``timeout`` seconds.
    """
    if connection.data:
        data, connection.data = connection.data[:size], connection.data[size:]
        return data
    while True:
        sock = connection.sock
        if sock is None:
            return b""
        try:
            return bytes(sock.recv(size))
        except BlockingIOError:
            _wait(connection, "does not send the body", timeout, read=True)


def send_all(connection: Connection, data: Any) -> None:
    """Send all data.

    :raises OSError: if the connection ends, or the client does not read in time.
    """
    while data:
        sock = connection.sock
        if sock is None:
            raise ClientGone()
        try:
            sent = sock.send(data)
        except BlockingIOError:
            _wait(connection, "does not read the response", STALLED_SECONDS, read=False)
            continue
        if sent == len(data):
            return
        data = memoryview(data)[sent:]


class ClientSocket(GreenSocket):  # type: ignore[misc]
    """The connection as a green socket, for an application that upgrades it."""

    def __init__(self, connection: Connection) -> None:
        old = connection.sock
        if old is None:
            raise ClientGone()
        sock = connection.sock = _socket.socket(old.family, old.type, old.proto, old.detach())
        sock.setblocking(False)
        connection.stop_reading()
        super().__init__(sock, set_nonblocking=False)
        self.settimeout(STALLED_SECONDS)
        self._connection = connection

    def __del__(self) -> None:
        pass  # the connection closes the socket

    def recv(self, size: int, flags: int = 0) -> bytes:
        connection = self._connection
        if connection.data:
            data, connection.data = connection.data[:size], connection.data[size:]
            return data
        return bytes(super().recv(size, flags))

    def recv_into(self, buffer: Any, size: int = 0, flags: int = 0) -> int:
        if self._connection.data:
            view = memoryview(buffer)
            data = self.recv(size or len(view))
            view[: len(data)] = data
            return len(data)
        return int(super().recv_into(buffer, size or len(buffer), flags))


class Writer:
    """The file object to which eventlet writes responses; unbuffered."""

    closed = False

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def writelines(self, pieces: list[bytes]) -> None:
        if sum(map(len, pieces)) <= _BLOCK:
            send_all(self._connection, b"".join(pieces))
        else:
            for piece in pieces:
                send_all(self._connection, piece)

    def flush(self) -> None:
        pass
