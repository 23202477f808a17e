"""A worker with many clients ends in time, and tells the application of each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from cluster.harness import environment
from cluster.modes import EVENTLET

pytestmark = EVENTLET

CLIENTS = 10_000


def test_ten_thousand_sessions_close_within_the_drain_timeout() -> None:
    """In 3.8 seconds of one turn before."""
    ended = subprocess.run(
        [sys.executable, "drain_many.py", str(CLIENTS)],
        cwd=Path(__file__).parent,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert ended.returncode == 0, ended.stderr
    figures = json.loads(ended.stdout)
    assert (figures["told"], figures["left"]) == (CLIENTS, 0)
    # CPU time. Of drain_timeout, 10 seconds, it is a small part.
    assert figures["cpu"] < 2
    assert figures["longest turn"] < 1
