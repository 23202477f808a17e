"""Blocking reading and writing of a client's connection, in the thread that has its request."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any, Optional, Union

from ...common.limits import SLOW_CLIENT_SECONDS, STALLED_SECONDS
from ...common.reasons import TOO_SLOW
from ...engine.http import Head
from ..body import ClientGone, RequestBody, as_frameworks_expect
from ..runtime import Threads
from .pool import Pool

if TYPE_CHECKING:
    from ..connection import Connection

Piece = Union[bytes, memoryview]

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def is_to_be_asked_for(head: Head) -> bool:
    """Whether the client waits for ``100 Continue`` before it sends the body."""
    expect = head.named.get(b"expect", b"")
    return head.length != 0 and head.version == "HTTP/1.1" and expect.lower() == b"100-continue"


class Client:
    """A connection in a thread. Meanwhile nothing else reads or writes its socket.

    The loop does not close the socket before the thread reports that it has finished.
    """

    __slots__ = ("_connection", "_threads", "_pool", "_sock")

    def __init__(self, connection: Connection, threads: Threads, pool: Pool) -> None:
        self._threads = threads
        self._pool = pool
        self._connection = connection
        self._sock: Any = connection.sock

    @property
    def data(self) -> bytes:
        """Bytes that were read from the socket but not parsed."""
        data: bytes = self._connection.data
        return data

    @data.setter
    def data(self, data: bytes) -> None:
        self._connection.data = data

    def count(self, reason: str, detail: object = "") -> None:
        """Count a fault of the client."""
        self._threads.run(0, self._connection.count, reason, detail)

    def receive(self, size: int, timeout: float) -> bytes:
        """Receive bytes from the client; empty at the end of the connection.

        :param timeout: most seconds to wait.
        :raises ClientGone: if no bytes arrive in time.
        """
        if self.data:
            data, self.data = self.data[:size], self.data[size:]
            return data
        while True:
            try:
                return bytes(self._sock.recv(size))
            except BlockingIOError:
                if not self._wait(select.POLLIN, "does not send the body", timeout):
                    raise as_frameworks_expect(ClientGone)() from None
            except OSError:
                return b""

    def send(self, data: Piece) -> None:
        """Send all data.

        :raises ClientGone: if the connection ends, or the client does not read in time.
        """
        while True:
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                raise ClientGone() from None
            if sent == len(data):
                return
            data = memoryview(data)[sent:]
            if not self._wait(select.POLLOUT, "does not read the response", STALLED_SECONDS):
                raise ClientGone()

    def _wait(self, event: int, what: str, timeout: float) -> bool:
        """Wait until the socket is ready; false if it is not in time, or others need the thread."""
        poll = select.poll()
        poll.register(self._sock, event)
        left = timeout
        while left > 0:
            if poll.poll(min(left, SLOW_CLIENT_SECONDS) * 1000):
                return True
            left -= SLOW_CLIENT_SECONDS
            if self._pool.waiting:
                break  # other tasks need the thread
        self.count(TOO_SLOW, what)
        return False


class Body(RequestBody):
    """The body of a request, in a thread.

    :param waits: whether the client waits for ``100 Continue`` before it sends the body.
    """

    def __init__(self, client: Client, length: Optional[int], waits: bool) -> None:
        super().__init__(client, length)
        self._client = client
        self._waits = waits

    def proceed(self) -> None:
        if self._waits:
            self._waits = False
            self._client.send(_CONTINUE)

    @property
    def has_to_be_asked_for(self) -> bool:
        """Whether the client still waits for ``100 Continue``, so that it may not send the body."""
        return self._waits and not self.ended

    def wait_for_client(self, source: Any, size: int, timeout: float) -> bytes:
        return self._client.receive(size, timeout)
