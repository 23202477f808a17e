"""How many descriptors a process may have open, and how many of them clients get."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import socket
import sys
from typing import Iterator


def raise_limit() -> int:
    """Raise the soft limit to the hard one; the result is the limit from then on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        return soft
    return hard


@contextlib.contextmanager
def raised_limit() -> Iterator[None]:
    """The same while the block lasts: for what it sends, not for what it starts.

    A user may have as many descriptors on their way between processes as the process that sends
    one more may have open (unix(7), ETOOMANYREFS).
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
    """The descriptors of clients have numbers below this one.

    The kernel gives out the lowest number that is free. So as long as no client
    keeps a higher one, ``reserve`` descriptors are left for everything else.
    """
    most = limit()
    return most - min(reserve, most // 2)


def listens() -> bool:
    """Whether others may connect to this process; also where that cannot be told."""
    try:
        descriptors = [int(name) for name in os.listdir("/proc/self/fd")]
        getsockopt = ctypes.CDLL(None).getsockopt
    except (OSError, AttributeError):
        return True
    for descriptor in descriptors:
        # A socket object could set the mode of what others use as well.
        value = ctypes.c_int(0)
        size = ctypes.c_uint(ctypes.sizeof(value))
        option = socket.SOL_SOCKET, socket.SO_ACCEPTCONN
        failed = getsockopt(descriptor, *option, ctypes.byref(value), ctypes.byref(size))
        if not failed and value.value:
            return True
    return False


def lowest_free(descriptor: int) -> int:
    """The number that the next descriptor gets: all below it are taken.

    :param descriptor: any that is open.
    """
    try:
        probe = os.dup(descriptor)
    except OSError:
        return sys.maxsize
    os.close(probe)
    return probe
