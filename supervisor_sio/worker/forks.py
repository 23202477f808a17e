"""A child that a handler forks: the descriptors of its worker, and its end.

What belongs to the parent is closed without a word to the other end, which has the parent still.
"""

from __future__ import annotations

import os
import socket
import stat
import sys
import traceback
from contextlib import suppress
from typing import Any, Callable, Optional


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


def end_child(error: Optional[BaseException], at_end: Callable[[], None]) -> None:
    """End the process: what has forked is done.

    :param error: what it has raised.
    :param at_end: called before that, unless something was raised.
    """
    status = 1
    try:
        if isinstance(error, SystemExit):
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        elif error is not None:
            traceback.print_exception(type(error), error, error.__traceback__)
        else:
            os.write(2, b"a forked child of this worker has left its handler, and ends\n")
            at_end()
            status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
        os._exit(status)
