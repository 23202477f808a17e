"""Where new sessions go."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from .conftest import ClusterFactory
from .harness import Cluster, wait_until
from .modes import NO_WORKER
from .raw import open_websocket

pytestmark = NO_WORKER


class Sessions:
    """Websocket sessions, opened many at once and kept."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.sockets = []

    def open(self, count: int) -> None:
        with ThreadPoolExecutor(count) as pool:
            self.sockets += pool.map(lambda _: open_websocket(self._cluster.port), range(count))

    def counts(self, total: int) -> list[int]:
        """Sessions of each worker, once the figures tell of all."""

        def rows() -> list[int]:
            found = [row["sessions"] for row in self._cluster.workers()]
            return found if sum(found) == total else []

        return sorted(wait_until(rows, 10, f"{total} sessions"))

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


@pytest.mark.parametrize(
    "balance",
    [
        "least-connection",
        pytest.param("round-robin", marks=pytest.mark.long),
        pytest.param("random", marks=pytest.mark.long),
    ],
)
def test_forty_at_once(make_cluster: ClusterFactory, balance: str) -> None:
    cluster = make_cluster(workers=4, balance=balance).start()
    sessions = Sessions(cluster)
    sessions.open(40)
    counts = sessions.counts(40)
    if balance == "random":
        assert len(counts) == 4 and counts[0] >= 1
    else:
        assert counts == [10, 10, 10, 10]
    sessions.close()


@pytest.mark.long
def test_a_new_worker_catches_up(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=4).start()
    sessions = Sessions(cluster)
    sessions.open(40)
    assert cluster.ctl("restart", "workers:workers_00").returncode == 0
    cluster.wait_ready(4)
    assert sessions.counts(30) == [0, 10, 10, 10]
    sessions.open(10)
    assert sessions.counts(40) == [10, 10, 10, 10]
    sessions.close()


@pytest.mark.long  # ledger/test_starting.py has more of it
def test_those_who_waited_are_spread(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=4, spread_timeout="20").start()
    assert cluster.ctl("stop", "workers:*").returncode == 0
    sessions = Sessions(cluster)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(sessions.open, 40)
        wait_until(lambda: cluster.status()["router"]["waiting"] == 40, 10, "40 wait")
        assert cluster.ctl("start", "workers:*").returncode == 0
        waiting.result()
    assert sessions.counts(40) == [10, 10, 10, 10]
    sessions.close()
