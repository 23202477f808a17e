"""Session set-ups go on while workers restart, and while workers and router are killed.

One set-up is a polling handshake, a post, a poll, and the upgrade to websocket.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import ClusterFactory
from .harness import HERE, Cluster, wait_until

LOAD = HERE.parent / "bench" / "load.py"

#: What may become of sessions, and of connections, of a worker that was stopped or killed.
ENDED = ("Invalid session", "websocket closed", "unexpected ''")


def restart(cluster: Cluster) -> None:
    assert cluster.ctl("restart", "workers:*").returncode == 0


def reload(cluster: Cluster) -> None:
    done = cluster.ctl("sio", "reload")
    assert done.returncode == 0, done.stdout


def kill_router(cluster: Cluster) -> None:
    router = cluster.router_pid
    os.kill(router, signal.SIGKILL)
    cluster.wait_new_router(router)


def kill_worker(cluster: Cluster) -> None:
    os.kill(cluster.workers()[0]["pid"], signal.SIGKILL)
    cluster.wait_ready()


@pytest.mark.parametrize(
    ("event", "seconds", "allowed", "most"),
    [
        # Of the sessions in the middle of being set up, at most those in flight are concerned.
        (restart, 16, ENDED, 16),
        (reload, 40, (), 0),
        (kill_router, 12, (), 0),
        (kill_worker, 12, (*ENDED, "reset", "closed"), 16),
    ],
)
def test_set_ups(
    make_cluster: ClusterFactory,
    event: Callable[[Cluster], None],
    seconds: int,
    allowed: tuple[str, ...],
    most: int,
) -> None:
    cluster = make_cluster(workers=3).start()
    handed_over = cluster.status()["router"]["handed_over"]
    with subprocess.Popen(
        [sys.executable, LOAD, "127.0.0.1", str(cluster.port), f"--seconds={seconds}",
         "--in-flight=16", "--timeout=30"],
        stdout=subprocess.PIPE,
    ) as load:  # fmt: skip
        wait_until(
            lambda: cluster.status()["router"]["handed_over"] > handed_over + 100, 10, "load"
        )
        event(cluster)
        assert load.poll() is None, "the load ended before the event did"
        output, _ = load.communicate(timeout=seconds + 40)
    result: dict[str, Any] = json.loads(output)
    failures = result["failures"]
    print(f"{event.__name__}: {result['completed']} set-ups, failures {failures}")
    assert result["completed"] > 500
    assert not [reason for reason in failures if "refused" in reason]
    unexpected = {
        reason: count
        for reason, count in failures.items()
        if not any(word in reason for word in allowed)
    }
    assert not unexpected
    assert sum(failures.values()) <= most
