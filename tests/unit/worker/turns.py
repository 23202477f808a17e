"""Runs turns of the hub, for tests that check what has happened meanwhile, or has not."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import eventlet


def let_run(seconds: float) -> None:
    """Let all other greenlets run several times.

    If the process itself was not scheduled, a single sleep may end before the hub has polled any
    descriptor.
    """
    for _ in range(5):
        eventlet.sleep(seconds / 5)
