"""The identity of this process in the cluster: its tag and its name."""

from __future__ import annotations

import functools
import os
import secrets


@functools.lru_cache(maxsize=1)
def _tag_of_process(pid: int) -> str:
    return secrets.token_hex(4)


def tag() -> str:
    """The tag of this process, with which its session ids begin.

    A forked child has a tag of its own.
    """
    return _tag_of_process(os.getpid())


def of_supervisord() -> bool:
    """Whether a supervisord started this process, directly or through a wrapper."""
    return "SUPERVISOR_PROCESS_NAME" in os.environ


def process_name() -> str:
    """The name that supervisorctl shows; outside supervisord ``pid N``."""
    process = os.environ.get("SUPERVISOR_PROCESS_NAME")
    if not process:
        return f"pid {os.getpid()}"
    # As supervisor.options.make_namespec, whose import takes 5 % of a worker's start.
    group = os.environ.get("SUPERVISOR_GROUP_NAME", process)
    return process if group == process else f"{group}:{process}"
