"""The Socket.IO servers of this process, and the ids of their sessions."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any, Callable, Sequence

from engineio import packet

from . import identity, packets
from .relay.message import EncodedPacket

#: Sends an encoded Socket.IO packet to clients of a server, by their Engine.IO sids.
FanOut = Callable[[Sequence[str], Sequence[EncodedPacket]], None]


class Traffic:
    """What this process has counted since its start."""

    def __init__(self) -> None:
        #: Sessions opened, and Engine.IO messages from and to their clients.
        self.opened = 0
        self.received = 0
        self.sent = 0


traffic = Traffic()

_servers: weakref.WeakSet[Any] = weakref.WeakSet()


def attach(server: Any) -> FanOut:
    """Let the session ids of a ``socketio.Server`` name this worker.

    An id becomes ``<tag>.<random>``: whoever sees it knows where it belongs,
    without a table of sessions. The server's packets are coded faster, too.

    :return: how to send to many clients of this server.
    """
    generate_id = server.eio.generate_id
    prefix = identity.tag() + "."
    server.eio.generate_id = lambda: prefix + generate_id()
    server.packet_class = packets.class_for(server)
    _servers.add(server)
    if server.eio.async_mode != "eventlet":
        return partial(send_to_each, server)
    from .worker import session  # not where there is no eventlet

    return session.install(server).fan_out


def send_to_each(server: Any, eio_sids: Sequence[str], packets: Sequence[EncodedPacket]) -> None:
    texts = {p: packet.Packet(packet.MESSAGE, p) for p in packets if isinstance(p, str)}
    for eio_sid in eio_sids:
        for part in packets:
            # An Engine.IO packet keeps its first encoding, and that of bytes is
            # base64 for one transport and not for the other.
            known = texts.get(part) if isinstance(part, str) else None
            server._send_eio_packet(eio_sid, known or packet.Packet(packet.MESSAGE, part))


def servers() -> list[Any]:
    return list(_servers)


def count() -> int:
    """Open sessions; python-socketio keeps the WSGI environment of each."""
    return sum(len(server.environ) for server in _servers)
