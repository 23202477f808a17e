"""Processes that run out of descriptors."""

from __future__ import annotations

import os
import resource

#: Before a command: the kernel counts the descriptors that are on their way between processes of
#: its user (unix(7), ETOOMANYREFS), which it does not for root.
COUNTED = () if os.geteuid() else ("setpriv", "--bounding-set", "-sys_admin,-sys_resource")


def limit_descriptors(pid: int, more: int) -> None:
    """As if the process had been started with a limit that leaves it this many more."""
    now = max(int(number) for number in os.listdir(f"/proc/{pid}/fd")) + 1
    # The hard limit stays, so that a test can take this back without being root.
    hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (now + more, hard))
