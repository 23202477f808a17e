"""Addresses to listen at: as written in options, and as the kernel takes them."""

from __future__ import annotations

import socket
from typing import Any, NamedTuple


class Address(NamedTuple):
    """Where to listen: a host and port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(text: str) -> Address:
    """``host:port``, ``*:port``, ``:port``, ``[v6]:port`` or ``unix:/path``.

    :raises ValueError: with a reason that names the text.
    """
    if text.startswith("unix:"):
        path = text[len("unix:") :]
        if path.startswith("//"):  # as in supervisor's own unix:///path
            path = path[2:]
        if not path.startswith("/"):
            raise ValueError(f"{text!r} needs an absolute path, as in unix:/run/app.sock")
        return Address(path=path)
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: write an IPv6 address in brackets, as in [::1]:8000")
    if not colon or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError(f"{text!r} is not host:port, [v6]:port or unix:/path")
    return Address("0.0.0.0" if host in ("", "*") else host, int(port))


class Place(NamedTuple):
    """An address as the kernel takes it."""

    family: int
    sockaddr: tuple[Any, ...]


def resolve(address: Address, family: int = socket.AF_UNSPEC) -> list[Place]:
    """Resolve a host and port; a socket is bound to the first place.

    :raises OSError: when the host has no address.
    :raises UnicodeError: when the host is not a valid name.
    """
    found = socket.getaddrinfo(
        address.host, address.port, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    return [Place(info[0], info[4]) for info in found]
