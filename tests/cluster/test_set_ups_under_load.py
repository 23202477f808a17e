"""Session set-ups go on while workers restart, and while workers and router are killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from .conftest import ClusterFactory
from .harness import Cluster
from .setups import SetUps

#: Many clients for a long time: not for every run of the tests.
pytestmark = pytest.mark.long

#: What may become of sessions, and of connections, of a worker that was stopped or killed.
ENDED = ("Session ID unknown", "websocket closed", "unexpected ''")


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
    ("event", "allowed", "most"),
    [
        # Of the sessions in the middle of being set up, at most those in flight are concerned: some
        # twice, as the three workers are not stopped in the same moment.
        (restart, ENDED, 32),
        (reload, (), 0),
        # The one that it had accepted, and not yet handed over, dies with it.
        (kill_router, ("reset",), 1),
        (kill_worker, (*ENDED, "reset", "closed"), 16),
    ],
)
def test_set_ups(
    make_cluster: ClusterFactory,
    event: Callable[[Cluster], None],
    allowed: tuple[str, ...],
    most: int,
) -> None:
    cluster = make_cluster(workers=3).start()
    with SetUps(cluster) as made:
        event(cluster)
        made.go_on()
    print(f"{event.__name__}: {made.completed} set-ups, failures {dict(made.failures)}")
    assert made.completed > 50
    assert not [reason for reason in made.failures if "refused" in reason]
    unexpected = {
        reason: count
        for reason, count in made.failures.items()
        if not any(word in reason for word in allowed)
    }
    assert not unexpected
    assert sum(made.failures.values()) <= most
