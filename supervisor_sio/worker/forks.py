"""Cleans up in a child process that a handler forks: the worker's descriptors, and its exit.

The child closes the parent's sockets without a shutdown, because the parent still uses them.
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

    This finds the sockets of libzmq, which does not report its descriptors.
    """
    prefix = os.path.join(directory, "")
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            sock = socket.SocketType(fileno=descriptor)  # never monkey-patched
        except OSError:
            continue  # the descriptor of the directory listing, closed by now
        try:
            peer = sock.getpeername() if sock.family == socket.AF_UNIX else ""
        except OSError:
            peer = ""
        sock.detach()
        if isinstance(peer, str) and peer.startswith(prefix):
            os.close(descriptor)


def end_child(error: Optional[BaseException], at_end: Callable[[], None]) -> None:
    """Exit the child process, whose handler has returned.

    :param error: the exception that the handler raised, or ``None``.
    :param at_end: called before the exit, unless the handler raised an exception.
    """
    status = 1
    try:
        if isinstance(error, SystemExit):
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        elif error is not None:
            traceback.print_exception(type(error), error, error.__traceback__)
        else:
            os.write(2, b"a forked child of this worker has returned from its handler and exits\n")
            at_end()
            status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
        os._exit(status)
