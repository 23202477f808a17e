"""Session set-ups under way: each a polling handshake, a post, a poll, and an upgrade."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

from .harness import HERE, Cluster, wait_until

LOAD = HERE.parent / "bench" / "load.py"

#: More than any test lasts.
MOST_SECONDS = 100


class SetUps:
    """Keeps 16 set-ups in flight while the block lasts; the first have been made at its begin.

    Afterwards:

    :ivar completed: how many were made.
    :ivar failures: how many were not, by reason.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def __enter__(self) -> SetUps:
        self._load = subprocess.Popen(
            [sys.executable, LOAD, "127.0.0.1", str(self._cluster.port),
             f"--seconds={MOST_SECONDS}", "--in-flight=16", "--timeout=30"],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            self.go_on()
        except BaseException:
            self._load.kill()
            self._load.communicate()
            raise
        return self

    def go_on(self) -> None:
        """Wait until many more connections have been handed over; a set-up has two or so."""
        before = self._handed_over()
        wait_until(lambda: self._handed_over() > before + 100, 30, "set-ups")

    def _handed_over(self) -> int:
        return int(self._cluster.status()["router"]["handed_over"])

    def __exit__(self, kind: object, *error: object) -> None:
        self._load.terminate()
        try:
            output, _ = self._load.communicate(timeout=40)
        finally:
            self._load.kill()
        if kind is None:
            result = json.loads(output)
            assert result["elapsed"] < MOST_SECONDS, "it ended too soon"
            self.completed = int(result["completed"])
            self.failures = Counter[str](result["failures"])
