"""Read connections from the listening socket up to a request that can be placed.

A connection passes up to three stages: the PROXY header, TLS, and the request line. The header is
removed; the TLS handshake is only peeked at here. The bytes that were read with the request line
are handed over as ``prefix``: a worker that gets the whole head in it need not read again.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import Counter
from typing import Any, Callable, Optional

from ..common import reasons
from ..common.cors import Origins
from ..common.limits import PENDING_SHARE
from ..common.refusals import Refusals
from ..common.request import MAX_REQUEST_LINE, BadRequest, Request, parse_head
from ..common.unavailable import answer
from .acceptor import Acceptor
from .connection import Connection
from .proxy_protocol import parse_proxy_header
from .readable import Readable
from .tls import HANDSHAKE_RECORD, Terminator

logger = logging.getLogger("supervisor_sio.router")

_NOW = int(socket.MSG_DONTWAIT)
_PEEK = _NOW | int(socket.MSG_PEEK)

#: Bytes that are read at a time: most heads are shorter, and a waiting connection keeps its bytes.
_READ = 2048


class Entrance:
    """Accepts connections, and reads their request lines.

    :param place: receives each connection whose request is known.
    :param has_room: whether one more connection of a network may wait.
    :param waiting: the number of connections that wait, here or for a worker.
    :param ceiling: the number below which clients' descriptors must be.
    :param head_timeout: seconds from accept to the end of the request line.
    :param origins: origins whose pages may read the reason of a refusal.
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
        waiting: Callable[[], int],
        ceiling: Callable[[], int],
        origins: Callable[[], Origins] = dict,
    ) -> None:
        self._paths = paths
        self._head_timeout = head_timeout
        self._share = max(1, max_pending // PENDING_SHARE)
        self._proxy_protocol = proxy_protocol
        self._terminator = terminator
        self._refusals = refusals
        self._place = place
        self._has_room = has_room
        self._ceiling = ceiling
        self._origins = origins
        self._acceptor = Acceptor(
            refusals=refusals,
            accepted=self._enter,
            ceiling=ceiling,
            # With TLS, the count is unknown: connections keep descriptors here at workers, too.
            taken=waiting if terminator is None else None,
            # Each pending handshake will need two more descriptors, and so will the next one.
            due=lambda: 2 * (len(self) + 1) if terminator is not None else 0,
        )
        self._readable = Readable(asyncio.get_running_loop(), self._examine_pending)
        #: Connections in a stage, by descriptor.
        self._pending: dict[int, Connection] = {}
        #: The number of these and of TLS handshakes, by the client's network.
        self._by_network: Counter[str] = Counter()
        self._handshakes = 0

    def __len__(self) -> int:
        return len(self._pending) + self._handshakes

    def listen(self, listeners: list[socket.socket]) -> None:
        self._acceptor.listen(listeners)

    def close(self) -> None:
        self._acceptor.close()

    def release(self) -> list[Connection]:
        """The router ends: return the connections with unfinished requests to the caller."""
        pending = list(self._pending.values())
        for connection in pending:
            self._forget(connection)
        return pending

    def expire(self, now: float) -> None:
        """Refuse the connections whose deadline is over."""
        for connection in [c for c in self._pending.values() if c.deadline <= now]:
            self.refuse(connection, reasons.HEAD_TIMEOUT)

    def examine_again(self, connection: Connection) -> None:
        """Examine a connection that a worker handed back with a part of a request, or all of it."""
        connection.deadline = time.monotonic() + self._head_timeout
        self._examine(connection)

    def refuse(self, connection: Connection, reason: str) -> None:
        self._forget(connection)
        status = reasons.TABLE[reason].answer
        answer(connection.sock, status, connection.prefix, self._origins())
        self.drop(connection, reason)

    def drop(self, connection: Connection, reason: str) -> None:
        self._forget(connection)
        self._refusals.count(reason, connection.address or "a local client")
        connection.sock.close()

    def _enter(self, sock: socket.socket, peer: Any, local: Any) -> None:
        connection = Connection(sock, peer, local, "http")
        connection.deadline = connection.since + self._head_timeout
        connection.proxy_header_due = self._proxy_protocol
        connection.tls_due = self._terminator is not None
        self._examine(connection)

    def _examine(self, connection: Connection) -> None:
        """Examine the received bytes; place or refuse the connection, or wait for more."""
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

    def _examine_pending(self, descriptor: int) -> None:
        connection = self._pending.get(descriptor)
        if connection is not None:  # None: it was removed in the same turn
            self._examine(connection)

    def _read_request(self, connection: Connection) -> Optional[Request]:
        """The connection's request; ``None`` when more bytes, or TLS, are needed first.

        :raises EOFError: when the client has closed the connection.
        """
        if connection.proxy_header_due or connection.tls_due:
            if not self._pass_preamble(connection):
                return None
        data = connection.prefix
        if data:
            # A worker that handed it back may have read the whole line.
            request = parse_head(data, self._paths)
            if request is not None:
                return request
        read = connection.sock.recv(_READ, _NOW)
        if not read:
            raise EOFError
        connection.prefix = data = data + read
        return parse_head(data, self._paths)

    def _pass_preamble(self, connection: Connection) -> bool:
        """Whether the next bytes are the request, not a PROXY header or TLS.

        :raises EOFError: when the client has closed the connection.
        """
        peeked = connection.sock.recv(MAX_REQUEST_LINE + 16, _PEEK)
        if not peeked:
            raise EOFError
        data = connection.prefix + peeked
        if connection.proxy_header_due:
            data = self._take_proxy_header(connection, data)
            if not data:
                return False
        if connection.tls_due:
            self._start_tls(connection, data)
            return False
        return True

    def _take_proxy_header(self, connection: Connection, data: bytes) -> bytes:
        """Remove the PROXY header; returns the bytes after it, or b"" while it is incomplete."""
        header = parse_proxy_header(data)
        # All bytes belong to an incomplete header, so all can be read.
        length = len(data) if header is None else header.length
        connection.sock.recv(length - len(connection.prefix), _NOW)
        if header is None:
            connection.prefix = data
            return b""
        connection.prefix = b""
        connection.proxy_header_due = False
        self._forget(connection)  # the header changes the address under which it is counted
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
        self._count(connection)
        self._handshakes += 1
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
            self._count(connection)
        except BadRequest as bad:
            self.refuse(connection, bad.reason)
            return
        try:
            self._readable.add(descriptor)
        except OSError:  # the limit of watched descriptors is reached: epoll(7)
            self._discount(connection)
            self.drop(connection, reasons.NO_DESCRIPTOR)
            return
        self._pending[descriptor] = connection

    def _count(self, connection: Connection) -> None:
        """:raises BadRequest: when the connection may not wait."""
        network = connection.network
        if self._by_network[network] >= self._share:
            raise BadRequest(reasons.ADDRESS_SHARE)
        if not self._has_room(network):
            raise BadRequest(reasons.MAX_PENDING)
        self._by_network[network] += 1
        connection.counted_for = network

    def _forget(self, connection: Connection) -> None:
        descriptor = connection.sock.fileno()
        if self._pending.pop(descriptor, None) is None:
            return
        self._readable.remove(descriptor)
        self._discount(connection)

    def _discount(self, connection: Connection) -> None:
        network = connection.counted_for
        self._by_network[network] -= 1
        if not self._by_network[network]:
            del self._by_network[network]
