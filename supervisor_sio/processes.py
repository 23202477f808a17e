"""What ``/proc`` says of processes (proc(5))."""

from __future__ import annotations

import os


def is_descendant(pid: int, ancestor: int) -> bool:
    """Whether ``ancestor`` started the process ``pid``, directly or through a wrapper."""
    for _ in range(16):
        if pid == ancestor:
            return True
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
                # The second field is the command in parentheses, the fourth the parent.
                pid = int(file.read().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return False
        if pid <= 1:
            break
    return pid == ancestor


def process_memory(pid: int) -> int:
    """Resident memory of a process in KiB; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    except (OSError, ValueError, IndexError):
        return 0
