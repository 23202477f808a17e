"""A client's connection on its way to a worker."""

from __future__ import annotations

import socket
import time
from typing import Any, Optional

from ..common.request import Kind

#: How an IPv4 address begins as one of IPv6 (RFC 4291, section 2.5.5.2).
_IPV4_MAPPED = bytes(10) + b"\xff\xff"


class Connection:
    """A client's socket, and what the router has found out about it."""

    __slots__ = (
        "sock",
        "peer",
        "local",
        "scheme",
        "prefix",
        "since",
        "deadline",
        "kind",
        "tag",
        "proxy_header_due",
        "tls_due",
        "in_handshake",
        "counted_for",
        "refused_by",
    )

    def __init__(
        self, sock: socket.socket, peer: Any, local: Any, scheme: str, prefix: bytes = b""
    ) -> None:
        self.sock = sock
        self.peer = peer if peer.__class__ is tuple else _text(peer)
        self.local = local if local.__class__ is tuple else _text(local)
        self.scheme = scheme
        #: Bytes that were already read from it, here or by a worker that handed it back.
        self.prefix = prefix
        #: When it was accepted, or handed back by a worker.
        self.since = time.monotonic()
        self.deadline = 0.0
        #: ``None`` for an idle connection that a worker handed back.
        self.kind: Optional[Kind] = None
        self.tag = ""
        self.proxy_header_due = False
        self.tls_due = False
        self.in_handshake = False
        #: The network for which the entrance counts it.
        self.counted_for = ""
        #: The tag of the worker that handed it back with a request.
        self.refused_by = ""

    @property
    def address(self) -> str:
        """The client's address without its port; empty for a Unix socket."""
        return str(self.peer[0]) if isinstance(self.peer, (tuple, list)) and self.peer else ""

    @property
    def network(self) -> str:
        """The network of the address, for which shares are counted."""
        return network_of(self.address)


def _text(address: Any) -> Any:
    """Convert an address to text that JSON can carry.

    The peer of a Unix socket chooses its name: a path with any bytes, or an abstract name, which
    the kernel returns as ``bytes``, and which gets a leading ``@``, as in ``ss``.
    """
    if isinstance(address, bytes):
        address = "@" + address[1:].decode("utf-8", "backslashreplace")
    if isinstance(address, str) and not address.isprintable():
        return address.encode("unicode_escape").decode()
    return address


def network_of(address: str) -> str:
    """The IPv4 address, or the /64 of IPv6, of which one client may use any address."""
    if ":" not in address:
        return address
    try:
        packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except (OSError, ValueError):
        return address
    if packed.startswith(_IPV4_MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[len(_IPV4_MAPPED) :])
    return socket.inet_ntop(socket.AF_INET6, packed[:8] + bytes(8))
