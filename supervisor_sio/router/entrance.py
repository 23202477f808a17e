"""From the listening socket to a request that can be placed.

A connection passes up to three stages here: the PROXY header, TLS, and the
request line. The header is consumed; a line that is there at once is only peeked,
so that the worker finds the connection as the client left it; what came of one
in pieces goes along as ``prefix``.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import Counter
from typing import Any, Callable, Optional

from ..common import reasons
from ..common.descriptors import lowest_free
from ..common.limits import PENDING_SHARE
from ..common.refusals import Refusals
from ..common.request import MAX_REQUEST_LINE, BadRequest, Request, parse_head
from ..common.unavailable import answer
from .connection import Connection
from .proxy_protocol import parse_proxy_header
from .tls import HANDSHAKE_RECORD, Terminator

logger = logging.getLogger("supervisor_sio.router")

#: Connections accepted before other descriptors get a turn.
_BATCH = 64

#: Seconds without accepting when it failed, or when clients have all their descriptors.
_PAUSE = 0.1

#: Seconds between log lines about that.
_TELL = 60.0

_PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)


class Entrance:
    """Accepts connections and reads as much of them as it takes to place them.

    :param place: takes each connection whose request is known.
    :param has_room: whether one more connection of this network may wait.
    :param ceiling: below it are the numbers of descriptors that clients may have.
    :param head_timeout: seconds from accept to the end of the request line.
    """

    def __init__(
        self,
        *,
        paths: tuple[bytes, ...],
        head_timeout: float,
        max_pending: int,
        proxy_protocol: bool,
        terminator: Optional[Terminator],
        refusals: Refusals,
        place: Callable[[Connection], None],
        has_room: Callable[[str], bool],
        ceiling: Callable[[], int],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._paths = paths
        self._head_timeout = head_timeout
        self._share = max(1, max_pending // PENDING_SHARE)
        self._proxy_protocol = proxy_protocol
        self._terminator = terminator
        self._refusals = refusals
        self._place = place
        self._has_room = has_room
        self._ceiling = ceiling
        self._told = -_TELL
        self._listeners: list[socket.socket] = []
        #: Connections in a stage, by descriptor.
        self._pending: dict[int, Connection] = {}
        #: How many of those and of the TLS handshakes a client's network has.
        self._by_network: Counter[str] = Counter()
        self._handshakes = 0

    def __len__(self) -> int:
        return len(self._pending) + self._handshakes

    def listen(self, listeners: list[socket.socket]) -> None:
        self._listeners = listeners
        for listener in listeners:
            listener.setblocking(False)
            self._resume(listener, listener.getsockname())

    def close(self) -> None:
        for listener in self._listeners:
            self._loop.remove_reader(listener)
            listener.close()

    def release(self) -> list[Connection]:
        """The router is about to end: unfinished requests are somebody else's from now on."""
        pending = list(self._pending.values())
        for connection in pending:
            self._forget(connection)
        return pending

    def expire(self, now: float) -> None:
        """Turn away who took too long."""
        for connection in [c for c in self._pending.values() if c.deadline <= now]:
            self.refuse(connection, reasons.HEAD_TIMEOUT)

    def examine_again(self, connection: Connection) -> None:
        """A connection that a worker gave back in the middle of a request line or behind it."""
        connection.deadline = time.monotonic() + self._head_timeout
        self._examine(connection)

    def refuse(self, connection: Connection, reason: str) -> None:
        self._forget(connection)
        answer(connection.sock, reasons.TABLE[reason].answer)
        self.drop(connection, reason)

    def drop(self, connection: Connection, reason: str) -> None:
        self._forget(connection)
        self._refusals.count(reason, connection.address or "a local client")
        connection.sock.close()

    def _pause(self, listener: socket.socket, local: Any) -> None:
        self._loop.remove_reader(listener)
        self._loop.call_later(_PAUSE, self._resume, listener, local)

    def _resume(self, listener: socket.socket, local: Any) -> None:
        if listener.fileno() >= 0:  # not closed in the meantime
            self._loop.add_reader(listener, self._accept, listener, local)

    def _is_full(self, listener: socket.socket) -> bool:
        """Whether clients have all the descriptors that are for them."""
        # A handshake that is due or under way ends with two more for good; so will the next.
        due = 2 * (len(self) + 1) if self._terminator is not None else 0
        ceiling = self._ceiling()
        if lowest_free(listener.fileno()) + due < ceiling:
            return False
        now = time.monotonic()
        if now - self._told >= _TELL:
            self._told = now
            logger.warning(
                "new connections wait in the kernel: all %d descriptors for clients are taken; "
                "raise the limit of open files",
                ceiling,
            )
        return True

    def _accept(self, listener: socket.socket, local: Any) -> None:
        for _ in range(_BATCH):
            if self._is_full(listener):
                self._pause(listener, local)
                return
            try:
                sock, peer = listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue
            except OSError as error:
                # Out of descriptors, most likely: let some go before the next try.
                self._refusals.count(reasons.ACCEPT_FAILED, str(error))
                self._pause(listener, local)
                return
            connection = Connection(sock, peer, local, "http")
            connection.deadline = time.monotonic() + self._head_timeout
            connection.proxy_header_due = self._proxy_protocol
            connection.tls_due = self._terminator is not None
            self._examine(connection)

    def _examine(self, connection: Connection) -> None:
        """Judge what has arrived; come back when there is more."""
        try:
            request = self._read_request(connection)
        except BlockingIOError:
            request = None
        except OSError:
            self.drop(connection, reasons.RESET)
            return
        except BadRequest as bad:
            self.refuse(connection, bad.reason)
            return
        except EOFError:
            self.drop(connection, reasons.CLOSED_EARLY)
            return
        if request is not None:
            self._forget(connection)
            connection.kind, connection.tag = request
            self._place(connection)
        elif not connection.in_handshake:
            self._wait(connection)

    def _read_request(self, connection: Connection) -> Optional[Request]:
        """What the connection wants; ``None`` when that takes more bytes, or TLS first.

        :raises EOFError: when no more will come.
        """
        if connection.prefix and not connection.proxy_header_due:
            # A worker that gave it back has read the whole line.
            request = parse_head(connection.prefix, self._paths)
            if request is not None:
                return request
        peeked = connection.sock.recv(MAX_REQUEST_LINE + 16, _PEEK)
        if not peeked:
            raise EOFError
        data = connection.prefix + peeked
        if connection.proxy_header_due:
            data = self._take_proxy_header(connection, data)
            if not data:
                return None
        if connection.tls_due:
            self._start_tls(connection, data)
            return None
        request = parse_head(data, self._paths)
        if request is None:
            # Left in the socket it would stay readable, and a Unix socket
            # cannot be asked to wait for more: take it along.
            taken = len(data) - len(connection.prefix)
            connection.prefix += connection.sock.recv(taken, socket.MSG_DONTWAIT)
        return request

    def _take_proxy_header(self, connection: Connection, data: bytes) -> bytes:
        """Take the header out; what is behind it, if it is complete, is the result."""
        header = parse_proxy_header(data)
        # All of an incomplete header can be taken, there is nothing behind it yet.
        length = len(data) if header is None else header.length
        connection.sock.recv(length - len(connection.prefix), socket.MSG_DONTWAIT)
        if header is None:
            connection.prefix = data
            return b""
        connection.prefix = b""
        connection.proxy_header_due = False
        self._forget(connection)  # it may be counted under another address now
        if header.source is not None:
            connection.peer, connection.local = header.source, header.destination
        if header.tls:
            connection.scheme = "https"
        return data[length:]

    def _start_tls(self, connection: Connection, data: bytes) -> None:
        if data[0] != HANDSHAKE_RECORD:
            raise BadRequest(reasons.PLAIN_ON_TLS)
        assert self._terminator is not None
        self._forget(connection)
        self._check_room(connection)
        self._handshakes += 1
        self._by_network[connection.network] += 1
        connection.in_handshake = True

        def over() -> None:
            self._handshakes -= 1
            self._discount(connection)

        def established(inner: socket.socket) -> None:
            over()
            connection.in_handshake = False
            connection.sock = inner
            if inner.fileno() >= self._ceiling():
                self.drop(connection, reasons.NO_DESCRIPTOR)
                return
            connection.scheme = "https"
            connection.tls_due = False
            self._examine(connection)

        def failed() -> None:
            over()
            self._refusals.count(reasons.TLS_HANDSHAKE, connection.address or "a local client")

        self._terminator.start(connection.sock, established, failed)

    def _wait(self, connection: Connection) -> None:
        descriptor = connection.sock.fileno()
        if descriptor in self._pending:
            return
        try:
            self._check_room(connection)
        except BadRequest as bad:
            self.refuse(connection, bad.reason)
            return
        self._pending[descriptor] = connection
        self._by_network[connection.network] += 1
        self._loop.add_reader(descriptor, self._examine, connection)

    def _check_room(self, connection: Connection) -> None:
        """:raises BadRequest: when it may not wait."""
        if self._by_network[connection.network] >= self._share:
            raise BadRequest(reasons.ADDRESS_SHARE)
        if not self._has_room(connection.network):
            raise BadRequest(reasons.MAX_PENDING)

    def _forget(self, connection: Connection) -> None:
        descriptor = connection.sock.fileno()
        if self._pending.pop(descriptor, None) is None:
            return
        self._loop.remove_reader(descriptor)
        self._discount(connection)

    def _discount(self, connection: Connection) -> None:
        self._by_network[connection.network] -= 1
        if not self._by_network[connection.network]:
            del self._by_network[connection.network]
