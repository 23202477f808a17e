"""Memory files (memfd_create(2)), whose descriptors are passed to other processes.

Sender and receiver of a descriptor share its offset, so these functions do not use the offset.
"""

from __future__ import annotations

import os

#: Names of the files in which the router keeps its state towards other hosts: its position, and
#: the messages that it sent last, in two files by turns.
HOST_FILES = ("sio-hosts-state", "sio-hosts-1", "sio-hosts-2")


def write(name: str, data: bytes) -> int:
    """Create a memory file with these bytes.

    :param name: shown in ``/proc``.
    :return: its descriptor; the caller closes it.
    :raises OSError: when the process has no free descriptor, or the host no memory.
    """
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        write_at(descriptor, data, 0)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def write_at(descriptor: int, data: bytes, at: int) -> None:
    """Write to a memory file, from the offset ``at``.

    :raises OSError: when the host has no memory for all of it.
    """
    left = memoryview(data)
    while left:
        written = os.pwrite(descriptor, left, at)
        left, at = left[written:], at + written


def read(descriptor: int, most: int) -> bytes:
    """Read a whole memory file; its descriptor stays open.

    :raises ValueError: when the file is longer than ``most`` bytes.
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
