"""TLS at the router: the handshake, and a pump between the client and its worker.

After the handshake the worker's end of a socket pair takes the place of the
client's connection: it is peeked, handed over and handed back like any other,
and the worker knows TLS only as ``wsgi.url_scheme``.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Callable, Optional, cast

#: First byte of a TLS record that opens a connection (RFC 8446, section 5.1).
HANDSHAKE_RECORD = 0x16


class Terminator:
    """Turns a client's TLS connection into the worker's end of a socket pair.

    :param handshake_timeout: in seconds.
    """

    def __init__(self, context: ssl.SSLContext, handshake_timeout: float) -> None:
        #: Replaced when certificates are reloaded; connections keep theirs.
        self.context = context
        self._handshake_timeout = handshake_timeout
        self._tasks: set[asyncio.Task[None]] = set()

    def start(
        self,
        sock: socket.socket,
        established: Callable[[socket.socket], None],
        failed: Callable[[], None],
    ) -> None:
        """Take over ``sock``; one of the callbacks is called once, later."""
        task = asyncio.ensure_future(self._run(sock, established, failed))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(
        self,
        sock: socket.socket,
        established: Callable[[socket.socket], None],
        failed: Callable[[], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        sock.setblocking(False)
        client = _Side()
        try:
            await loop.connect_accepted_socket(
                lambda: client,
                sock,
                ssl=self.context,
                ssl_handshake_timeout=self._handshake_timeout,
            )
        except OSError:  # ssl.SSLError, resets and time-outs among them
            sock.close()
            failed()
            return
        try:
            inner, outer = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError:  # no descriptor left
            client.abort()
            failed()
            return
        inner.setblocking(False)
        worker = _Side()
        client.other, worker.other = worker, client
        await loop.connect_accepted_socket(lambda: worker, inner)
        client.start()
        established(outer)


class _Side(asyncio.Protocol):
    """One end of the pump: what arrives here leaves at the other, no faster than it can."""

    def __init__(self) -> None:
        self.other: Optional[_Side] = None
        self._transport: Optional[asyncio.Transport] = None
        self._lost = False
        self._early = b""  # what came in one flight with the end of the handshake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self.other is None:
            self._transport.pause_reading()

    def start(self) -> None:
        """The other side is there."""
        if self.other is None or self.other._transport is None:
            return
        if self._early:
            self.other._transport.write(self._early)
            self._early = b""
        if self._lost:
            self.other._transport.close()
        self.resume_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._lost:
            self._transport.resume_reading()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other._transport is not None:
            self.other._transport.write(data)
        else:
            self._early += data

    def eof_received(self) -> Optional[bool]:
        # TLS over asyncio knows no half-closed connection: the end is the end.
        return None

    def pause_writing(self) -> None:
        other = self.other
        if other is not None and other._transport is not None and not other._lost:
            other._transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.resume_reading()

    def connection_lost(self, error: Optional[Exception]) -> None:
        self._lost = True
        other = self.other
        if other is not None and other._transport is not None:
            other._transport.close()  # after what it still has to write
