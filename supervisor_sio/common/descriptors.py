"""The limit of open descriptors of a process, and the share of it for clients."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import socket
import sys
from typing import Iterator


def raise_limit() -> int:
    """Raise the soft limit to the hard limit; returns the resulting limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        return soft
    return hard


@contextlib.contextmanager
def raised_limit() -> Iterator[None]:
    """Raise the limit within the block, to send descriptors; do not start processes in it.

    The kernel refuses to send a descriptor when its user has more descriptors in transit than the
    sending process may have open (unix(7), ETOOMANYREFS).
    """
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    raise_limit()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def ceiling(reserve: int) -> int:
    """The number below which clients' descriptors must be.

    The kernel assigns the lowest free number. So as long as no client keeps a higher one,
    ``reserve`` descriptors are left for everything else.
    """
    most = limit()
    return most - min(reserve, most // 2)


def listens() -> bool:
    """Whether this process has a listening socket; true if that cannot be determined."""
    try:
        descriptors = [int(name) for name in os.listdir("/proc/self/fd")]
        getsockopt = ctypes.CDLL(None).getsockopt
    except (OSError, AttributeError):
        return True
    for descriptor in descriptors:
        # A socket object could change the mode of a descriptor that other processes share.
        value = ctypes.c_int(0)
        size = ctypes.c_uint(ctypes.sizeof(value))
        option = socket.SOL_SOCKET, socket.SO_ACCEPTCONN
        failed = getsockopt(descriptor, *option, ctypes.byref(value), ctypes.byref(size))
        if not failed and value.value:
            return True
    return False


def lowest_free(descriptor: int) -> int:
    """The number that the next descriptor gets: all lower ones are in use.

    :param descriptor: any open descriptor.
    """
    try:
        probe = os.dup(descriptor)
    except OSError:
        return sys.maxsize
    os.close(probe)
    return probe
