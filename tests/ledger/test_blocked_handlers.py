"""A handler that blocks for long: what it holds up is shown, and nobody else waits."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cluster.conftest import Clients, ClusterFactory
from cluster.harness import Cluster, wait_until
from cluster.modes import LOOP, THREADING
from cluster.raw import Poller

from ledger.pairs import connect_pair
from ledger.victim import Echoes
from supervisor_sio.common.limits import SILENCE


@pytest.fixture
def cluster(make_cluster: ClusterFactory) -> Cluster:
    here = Path(__file__).parent
    return make_cluster(here=here, command="supervisor-sio worker relay_app:app").start()


@LOOP
def test_a_blocked_loop_is_shown_and_the_others_do_not_wait(
    cluster: Cluster, clients: Clients, tmp_path: Path
) -> None:
    blocking, other = connect_pair(clients, cluster)
    waiting = clients.connect(cluster, "node", ["polling"])
    while waiting.whoami()["pid"] != blocking.whoami()["pid"]:
        waiting = clients.connect(cluster, "node", ["polling"])
    blocked = blocking.whoami()
    released = tmp_path / "go"
    blocking.emit("block_until", str(released))
    try:
        wait_until(lambda: cluster.workers("hung"), 10, "it is shown")
        assert [row["pid"] for row in cluster.workers("hung")] == [blocked["pid"]]
        status = cluster.ctl("sio", "status")
        assert status.returncode == 3 and "hung" in status.stdout
        for _ in range(5):  # new ones go to the other worker
            session = Poller(cluster.port)
            session.open()
            session.join()
            assert session.call("whoami")["pid"] == other.whoami()["pid"]
        assert cluster.workers("hung")
    finally:
        released.touch()
    wait_until(lambda: len(cluster.workers()) == 2, 20, "it is back")
    for client in (blocking, waiting, other):
        assert client.call("echo", "there") == "there"
        assert not client.disconnects


@THREADING
def test_blocked_threads_hold_up_nobody(cluster: Cluster, clients: Clients, tmp_path: Path) -> None:
    """Also of the same worker: it has more threads, and its loop goes on."""
    blocking, _ = connect_pair(clients, cluster)
    pid = blocking.whoami()["pid"]
    released = tmp_path / "go"
    with ThreadPoolExecutor(1) as pool, Echoes(cluster.port) as echoes:
        blocked = pool.submit(blocking.call, "wait", str(released), timeout=90)
        try:
            wait_until(Path(f"{released}.begun").exists, 10, "the handler")
            time.sleep(SILENCE + 2)  # it would be shown by then
            wait_until(lambda: len(cluster.workers()) == 2, 5, "both are well")
            before = len(echoes.latencies)
            wait_until(lambda: len(echoes.latencies) > before + 20, 5, "echoes")
            assert not blocked.done()
        finally:
            released.touch()
        assert blocked.result() == str(released)
    assert blocking.whoami()["pid"] == pid and not blocking.disconnects
