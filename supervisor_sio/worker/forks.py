"""Descriptors of a worker in a child that a handler forks.

What belongs to the parent is closed without a word to the other end, which has the parent still.
"""

from __future__ import annotations

import os
import socket
import stat
from typing import Any


def close_socket(sock: Any) -> None:
    """Close this process's descriptor of a socket, without a shutdown."""
    descriptor = sock.detach()
    if descriptor >= 0:
        os.close(descriptor)


def close_connections_to(directory: str) -> None:
    """Close the sockets that are connected to a Unix socket in this directory.

    libzmq does not tell which descriptors it has.
    """
    prefix = os.path.join(directory, "")
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            sock = socket.SocketType(fileno=descriptor)  # which nobody has patched
        except OSError:
            continue  # that of the listing itself
        try:
            peer = sock.getpeername() if sock.family == socket.AF_UNIX else ""
        except OSError:
            peer = ""
        sock.detach()
        if isinstance(peer, str) and peer.startswith(prefix):
            os.close(descriptor)
