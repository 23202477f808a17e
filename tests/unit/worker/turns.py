"""Turns of the hub, for tests that look at what has not happened, or has meanwhile."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import eventlet


def let_run(seconds: float) -> None:
    """Let all others run, several times over.

    Where the process itself was not let run, one sleep may end before the hub has looked at any
    descriptor.
    """
    for _ in range(5):
        eventlet.sleep(seconds / 5)
