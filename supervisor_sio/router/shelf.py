"""Where connections that wait are safe when this process dies.

A connection lives as long as somebody has it open. So those that wait are also sent
through a socket pair of supervisord's, and left there: in the kernel, without any work
for supervisord. The next router takes them out. This one takes them all out before it
passes on any of them: nobody may find there what a worker reads already.
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
    #: When its time is up, by the host's monotonic clock.
    deadline: float


class Shelf:
    """:param ends: of a pair of ``SOCK_SEQPACKET``: what goes into the first comes out of the
    second."""

    def __init__(self, *ends: socket.socket) -> None:
        self._into, self._out_of = ends
        self._messages = 0
        self._failures = Refusals(logger)
        for end in ends:
            end.setblocking(False)

    def take(self) -> list[Kept]:
        """Those that waited at the router before this one."""
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
                except (ChannelError, TypeError, ValueError):  # of another version
                    sock.close()
        return kept

    def keep(self, connections: Iterable[Connection]) -> None:
        """These and no others, as many as the kernel has room for."""
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
        """They wait on, and are as safe as this process."""
        reason = str(error)
        if error.errno == errno.EAGAIN:
            reason = "their socket is full, for more raise net.core.wmem_max"
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
