"""Who this process is to the cluster: its tag and its name."""

from __future__ import annotations

import functools
import os
import secrets


@functools.lru_cache(maxsize=1)
def _tag_of_process(pid: int) -> str:
    return secrets.token_hex(4)


def tag() -> str:
    """Names this incarnation of this process, and the worker in its session ids.

    A forked child has a tag of its own.
    """
    return _tag_of_process(os.getpid())


def of_supervisord() -> bool:
    """Whether this process, or a wrapper around it, was started by a supervisord."""
    return "SUPERVISOR_PROCESS_NAME" in os.environ


def process_name() -> str:
    """The name that supervisorctl shows, or the pid outside supervisord."""
    process = os.environ.get("SUPERVISOR_PROCESS_NAME")
    if not process:
        return f"pid {os.getpid()}"
    # As supervisor.options.make_namespec, whose import takes a twentieth of a worker's start.
    group = os.environ.get("SUPERVISOR_GROUP_NAME", process)
    return process if group == process else f"{group}:{process}"
