"""Those who wait for the workers are spread over all of them, however late they start."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cluster.conftest import ClusterFactory
from cluster.harness import wait_until
from cluster.modes import NO_WORKER
from cluster.raw import Poller

pytestmark = NO_WORKER


@pytest.mark.tries(3)
def test_the_first_worker_does_not_get_everybody(make_cluster: ClusterFactory) -> None:
    """The router waits for two seconds for the next; on a busy machine it takes longer."""
    cluster = make_cluster(
        workers=3, here=Path(__file__).parent, command="supervisor-sio worker late_app:app"
    ).start()
    assert cluster.ctl("stop", "workers:*").returncode == 0

    def session(number: int) -> str:
        poller = Poller(cluster.port)
        poller.open()
        return poller.sid.partition(".")[0]

    with ThreadPoolExecutor(30) as pool:
        sessions = pool.map(session, range(30))
        wait_until(lambda: cluster.status()["router"]["waiting"] == 30, 10, "they wait")
        assert cluster.ctl("start", "workers:*").returncode == 0
        placed = Counter(sessions)
    assert sorted(placed.values()) == [10, 10, 10]
