"""Facts about processes from ``/proc`` (proc(5))."""

from __future__ import annotations

import errno
import os

#: Ancestors of a process that are examined: wrappers within wrappers.
_MOST_ANCESTORS = 16


def is_descendant(pid: int, ancestor: int) -> bool:
    """Whether ``ancestor`` started the process ``pid``, directly or through a wrapper."""
    return pid == ancestor or bool(lineage(pid, ancestor))


def lineage(pid: int, ancestor: int) -> list[tuple[int, int]]:
    """Each process from ``pid`` up to ``ancestor``, with its parent; empty if not related."""
    pairs: list[tuple[int, int]] = []
    while len(pairs) < _MOST_ANCESTORS and pid > 1:
        parent = parent_of(pid)
        pairs.append((pid, parent))
        if parent == ancestor:
            return pairs if parent else []
        pid = parent
    return []


def is_alive(pid: int) -> bool:
    """Whether a process with this pid exists; false for 0."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return pid > 0


def parent_of(pid: int) -> int:
    """The parent's pid; 0 if the process is gone, or its parent is outside the pid namespace."""
    try:
        return _read_parent(pid)
    except (OSError, ValueError, IndexError):
        return 0


def has_parent(pid: int, parent: int) -> bool:
    """Whether the process exists and ``parent`` is its parent.

    Also true when this process has no free descriptor to find out.
    """
    try:
        return _read_parent(pid) == parent
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    except (ValueError, IndexError):
        return False


def has_ended(pid: int) -> bool:
    """Whether the process has ended, also if its parent has not noticed yet.

    False when this process has no free descriptor to find out.
    """
    try:
        return _read_stat(pid)[0] in "ZX"
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ESRCH)


def _read_parent(pid: int) -> int:
    return int(_read_stat(pid)[1])


def _read_stat(pid: int) -> list[str]:
    """The fields after the pid and the command in parentheses: the state, the parent, …"""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def process_memory(pid: int) -> int:
    """Resident memory of a process in KiB; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    except (OSError, ValueError, IndexError):
        return 0
