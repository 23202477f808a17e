"""Keep waiting connections for the next router, in case this process dies.

A connection lives as long as some process, or the kernel, has its descriptor. So waiting
connections are also sent into a socket pair of supervisord, and left there in the kernel, without
any work for supervisord. The next router reads them. This router removes them all before it hands
over any of them, so that the next router cannot find a connection that a worker already reads.
"""

from __future__ import annotations

import errno
import logging
import socket
from typing import Any, Iterable, NamedTuple, Optional

from ..common import channel
from ..common.channel import ChannelError
from ..common.limits import MAX_DESCRIPTORS, MAX_ROW
from ..common.refusals import Refusals
from ..common.request import Kind
from .connection import Connection

logger = logging.getLogger("supervisor_sio.router")


class Kept(NamedTuple):
    connection: Connection
    #: Its deadline, by the host's monotonic clock.
    deadline: float


class Shelf:
    """:param ends: a pair of ``SOCK_SEQPACKET`` sockets: packets sent into the first are read from
    the second."""

    def __init__(self, *ends: socket.socket) -> None:
        self._into, self._out_of = ends
        self._messages = 0
        self._failures = Refusals(logger)
        for end in ends:
            end.setblocking(False)

    def take(self) -> list[Kept]:
        """Read the connections that waited at the router before this one."""
        kept: list[Kept] = []
        for message, descriptors in self._receive():
            rows = message.get("rows")
            if not isinstance(rows, list) or len(rows) != len(descriptors):
                channel.close_all(descriptors)
                continue
            for row, descriptor in zip(rows, descriptors):
                sock = socket.socket(fileno=descriptor)
                try:
                    kept.append(_from_row(row, sock))
                except (ChannelError, TypeError, ValueError):  # written by another version
                    sock.close()
        return kept

    def keep(self, connections: Iterable[Connection]) -> None:
        """Keep these connections in place of the previous ones, as far as the kernel has room."""
        self.clear()
        rows: list[Any] = []
        socks: list[int] = []
        for connection in connections:
            row = _row(connection)
            if row is not None:
                rows.append(row)
                socks.append(connection.sock.fileno())
        try:
            for part in channel.in_parts(rows, MAX_DESCRIPTORS):
                if part:
                    channel.send(self._into, {"type": "kept", "rows": part}, socks[: len(part)])
                    self._messages += 1
                    del socks[: len(part)]
        except OSError as error:
            self._note_unsafe(len(socks), len(rows), error)

    def _note_unsafe(self, count: int, total: int, error: OSError) -> None:
        """Log that connections could not be kept; they keep waiting in this process."""
        reason = str(error)
        if error.errno == errno.EAGAIN:
            reason = "the socket that keeps them is full, raise net.core.wmem_max"
        elif error.errno in channel.CROWDED:
            reason = channel.ON_THEIR_WAY
        text = f"{count} of {total} connections that wait are lost if this process is killed"
        line = self._failures.noted(reason, text)
        if line:
            logger.warning("%s", line)

    def clear(self) -> None:
        if self._messages:
            for _, descriptors in self._receive():
                channel.close_all(descriptors)

    def _receive(self) -> Iterable[channel.Packet]:
        self._messages = 0
        return channel.receive_left(self._out_of, _note_lost)


def _note_lost(error: Exception) -> None:
    logger.warning("connections that waited are lost: %s", error)


def _row(connection: Connection) -> Optional[list[Any]]:
    row = [
        connection.kind.value if connection.kind is not None else None,
        connection.tag,
        connection.peer,
        connection.local,
        connection.scheme,
        channel.pack_bytes(connection.prefix),
        connection.proxy_header_due,
        connection.deadline,
    ]
    try:
        return row if channel.row_size(row) <= MAX_ROW else None
    except (TypeError, ValueError):
        return None


def _from_row(row: list[Any], sock: socket.socket) -> Kept:
    kind, tag, peer, local, scheme, prefix, proxy_header_due, deadline = row
    connection = Connection(sock, peer, local, str(scheme), channel.unpack_bytes(prefix))
    connection.kind = Kind(kind) if kind is not None else None
    connection.tag = str(tag)
    connection.proxy_header_due = bool(proxy_header_due)
    return Kept(connection, float(deadline))
