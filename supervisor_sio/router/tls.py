"""TLS at the router: the handshake, and a pump between the client and its worker.

After the handshake, one end of a socket pair takes the place of the client's connection: it is
read, handed over and handed back like any other connection, and the worker sees TLS only as
``wsgi.url_scheme``.

This uses OpenSSL on the sockets directly, not asyncio's transports: those have a buffer of 256 KB
for each connection, and wait without limit for a client that does not read.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import ssl
import struct
import termios
from typing import Callable, Optional, Union

from ..common.limits import TLS_CHUNK, TLS_LINGER, TLS_STALL_TIMEOUT

#: First byte of a TLS record that opens a connection (RFC 8446, section 5.1).
HANDSHAKE_RECORD = 0x16

#: Chunks moved from one side before other connections get a turn.
_BATCH = 4

#: Seconds until the next attempt when OpenSSL must write in order to read, or read in order to
#: write. That happens only for a change of keys (RFC 8446, section 4.6.3) with a client that does
#: not read.
_KEY_UPDATE_PAUSE = 0.05

_Socket = Union[socket.socket, ssl.SSLSocket]


class Terminator:
    """Turns a client's TLS connection into the worker's end of a socket pair.

    :param handshake_timeout: in seconds.
    """

    def __init__(self, context: ssl.SSLContext, handshake_timeout: float) -> None:
        #: Replaced when certificates are reloaded; connections keep theirs.
        self.context = context
        self._handshake_timeout = handshake_timeout

    def start(
        self,
        sock: socket.socket,
        established: Callable[[socket.socket], None],
        failed: Callable[[], None],
    ) -> None:
        """Take over ``sock``, and call one of the callbacks, once, later."""
        loop = asyncio.get_running_loop()
        sock.setblocking(False)
        try:
            client = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        except (OSError, ValueError):  # the client is gone already
            sock.close()
            loop.call_soon(failed)
            return

        def connected() -> None:
            try:
                inner, outer = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            except OSError:  # no free descriptor
                client.close()
                failed()
                return
            _Pump(loop, client, inner)
            established(outer)

        _Handshake(loop, client, self._handshake_timeout, connected, failed)


class _Handshake:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        client: ssl.SSLSocket,
        timeout: float,
        connected: Callable[[], None],
        failed: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._client = client
        self._connected = connected
        self._failed = failed
        self._timer = loop.call_later(timeout, self._fail)
        loop.add_reader(client, self._step)

    def _step(self) -> None:
        try:
            self._client.do_handshake()
        except ssl.SSLWantReadError:
            self._loop.remove_writer(self._client)
        except ssl.SSLWantWriteError:
            self._loop.add_writer(self._client, self._step)
        except (OSError, ValueError):  # includes ssl.SSLError and resets
            self._fail()
        else:
            self._end()
            self._connected()

    def _end(self) -> None:
        self._timer.cancel()
        self._loop.remove_reader(self._client)
        self._loop.remove_writer(self._client)

    def _fail(self) -> None:
        self._end()
        self._client.close()
        self._failed()


class _Pump:
    """Moves data in both directions between a client and its worker, until either side closes."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, client: ssl.SSLSocket, worker: socket.socket
    ) -> None:
        self.loop = loop
        self._client = client
        self._worker = worker
        self._timer: asyncio.TimerHandle
        self.closed = False
        worker.setblocking(False)
        self._to_client = _Way(self, worker, client, self._finish)
        self._to_worker = _Way(self, client, worker, self.close)

    def close(self) -> None:
        """Close both sides at once."""
        if not self.closed:
            self._detach()
            self._client.close()

    def _finish(self) -> None:
        """All data was sent to the client: close as TLS requires (RFC 8446, section 6.1)."""
        self._detach()
        # Closing with unread bytes would reset the connection, and the client could lose data that
        # it has not read yet (RFC 9112, section 9.6).
        self._timer = self.loop.call_later(TLS_LINGER, self._let_go)
        self._say_end()

    def _say_end(self) -> None:
        self.loop.remove_writer(self._client)
        try:
            self._client.unwrap()
        except ssl.SSLWantWriteError:
            self.loop.add_writer(self._client, self._say_end)
            return
        except (OSError, ValueError):  # "want read": the client has not answered yet
            pass
        try:
            self._client.shutdown(socket.SHUT_WR)
        except OSError:
            self._let_go()
        else:
            self.loop.add_reader(self._client, self._discard)

    def _discard(self) -> None:
        try:
            if socket.socket.recv(self._client, TLS_CHUNK):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._let_go()

    def _let_go(self) -> None:
        self._timer.cancel()
        self.loop.remove_reader(self._client)
        self.loop.remove_writer(self._client)
        self._client.close()

    def _detach(self) -> None:
        self.closed = True
        for way in (self._to_client, self._to_worker):
            way.stop()
        self._worker.close()


class _Way:
    """Moves data from one side to the other, with one chunk at most waiting."""

    def __init__(
        self, pump: _Pump, source: _Socket, sink: _Socket, ended: Callable[[], None]
    ) -> None:
        self._pump = pump
        self._loop = pump.loop
        self._source = source
        self._sink = sink
        self._ended = ended
        self._waiting = b""
        self._moved = False
        self._queued = 0
        self._timer: Optional[asyncio.TimerHandle] = None
        self._loop.add_reader(source, self.read)

    def stop(self) -> None:
        self._loop.remove_reader(self._source)
        self._loop.remove_writer(self._sink)
        if self._timer is not None:
            self._timer.cancel()

    def read(self) -> None:
        for _ in range(_BATCH):
            if self._pump.closed or self._waiting:
                return
            try:
                data = self._source.recv(TLS_CHUNK)
            except (BlockingIOError, ssl.SSLWantReadError):
                return
            except ssl.SSLWantWriteError:
                self._loop.call_later(_KEY_UPDATE_PAUSE, self.read)
                return
            except OSError:
                data = b""  # a worker that closed with unread bytes
            if not data:
                self._ended()
                return
            self._waiting = data
            self._send()
        if isinstance(self._source, ssl.SSLSocket) and not self._pump.closed:
            # Data that OpenSSL has already read does not make the descriptor readable.
            self._loop.call_soon(self.read)

    def _send(self) -> None:
        """Send the waiting data, as much as possible; OpenSSL sends one record at a time."""
        try:
            while self._waiting:
                sent = self._sink.send(self._waiting)
                self._waiting = self._waiting[sent:]
                self._moved = True
        except (BlockingIOError, ssl.SSLWantWriteError):
            pass
        except ssl.SSLWantReadError:
            self._loop.call_later(_KEY_UPDATE_PAUSE, self._resume)
        except OSError:
            self._pump.close()
            return
        if self._waiting and self._timer is None:
            self._watch()
            self._loop.remove_reader(self._source)
            self._loop.add_writer(self._sink, self._resume)

    def _resume(self) -> None:
        """The other side may accept more data."""
        if self._pump.closed or not self._waiting:
            return
        self._send()
        if self._waiting or self._pump.closed:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._loop.remove_writer(self._sink)
        self._loop.add_reader(self._source, self.read)
        self.read()

    def _watch(self) -> None:
        self._moved = False
        self._queued = _queued(self._sink)
        self._timer = self._loop.call_later(TLS_STALL_TIMEOUT, self._look)

    def _look(self) -> None:
        """Close the connection if the other side has read nothing of the waiting data."""
        # The socket of a slow reader accepts more only when a third of its buffer is free.
        if self._moved or _queued(self._sink) < self._queued:
            self._watch()
        else:
            self._pump.close()


def _queued(sock: _Socket) -> int:
    """The number of bytes in the socket's send buffer."""
    value = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    return int(struct.unpack("i", value)[0])
