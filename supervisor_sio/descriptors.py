"""How many descriptors a process may have open, and how many of them clients get."""

from __future__ import annotations

import os
import resource
import sys


def raise_limit() -> int:
    """Raise the soft limit to the hard one; the result is the limit from then on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        return soft
    return hard


def ceiling(reserve: int) -> int:
    """The descriptors of clients have numbers below this one.

    The kernel gives out the lowest number that is free. So as long as no client
    keeps a higher one, ``reserve`` descriptors are left for everything else.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limit - min(reserve, limit // 2)


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
