"""A file of memory, of which a descriptor travels to another process: memfd_create(2).

Who gets the descriptor shares its offset with who has sent it, so nothing is read or written at
the offset.
"""

from __future__ import annotations

import os

#: Those in which the router keeps what it sends to other hosts: how far it has come, and what
#: was sent last, in two files by turns.
HOST_FILES = ("sio-hosts-state", "sio-hosts-1", "sio-hosts-2")


def write(name: str, data: bytes) -> int:
    """Make one that has these bytes.

    :param name: for ``/proc``.
    :return: its descriptor, which is the caller's.
    :raises OSError: when there is no descriptor, or no memory, for it.
    """
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        write_at(descriptor, data, 0)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def write_at(descriptor: int, data: bytes, at: int) -> None:
    """Into one, from this place on.

    :raises OSError: when there is no memory for all of it.
    """
    left = memoryview(data)
    while left:
        written = os.pwrite(descriptor, left, at)
        left, at = left[written:], at + written


def read(descriptor: int, most: int) -> bytes:
    """All of one, whose descriptor stays open.

    :raises ValueError: when it is longer than this.
    :raises OSError: when it cannot be read.
    """
    size = os.fstat(descriptor).st_size
    if size > most:
        raise ValueError(f"{size} bytes are over the limit of {most}")
    parts = []
    at = 0
    while at < size:
        part = os.pread(descriptor, size - at, at)
        if not part:
            break
        parts.append(part)
        at += len(part)
    return b"".join(parts)
