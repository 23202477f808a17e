"""A worker that leaves in order leaves nothing behind that others have yet to fetch."""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from cluster.conftest import Clients, ClusterFactory
from cluster.harness import Cluster, wait_until
from cluster.recorder import TestClient, deviation

#: Many clients for a long time: not for every run of the tests.
pytestmark = pytest.mark.long

HERE = Path(__file__).parent
APP = "supervisor-sio worker relay_app:app"

#: Over the length up to which messages are pushed.
LONG = 20_000

#: Restarts in a run of the tests; by hand it is worth while to make it 200.
RESTARTS = int(os.environ.get("RESTARTS", "6"))


@pytest.fixture
def two_workers(make_cluster: ClusterFactory) -> Cluster:
    return make_cluster(here=HERE, command=APP).start()


def client_of_each(cluster: Cluster, clients: Clients) -> dict[str, TestClient]:
    """By the name of its worker."""
    found: dict[str, TestClient] = {}
    while len(found) < len(cluster.workers()):
        client = clients.connect(cluster, "node", ["websocket"])
        found.setdefault(client.whoami()["name"], client)
    return found


def pid_of(cluster: Cluster, name: str) -> int:
    (pid,) = (row["pid"] for row in cluster.workers() if row["name"].endswith(name))
    return int(pid)


def dropped(cluster: Cluster) -> int:
    return int(cluster.status()["relay"]["dropped"])


def stop(cluster: Cluster, name: str) -> None:
    assert cluster.rpc.supervisor.stopProcess(f"workers:{name}")


def numbers(client: TestClient, event: str) -> list[Any]:
    return [args[0] for args in client.received(event)]


def test_long_messages_to_a_busy_worker_from_one_that_is_stopped(
    two_workers: Cluster, clients: Clients
) -> None:
    by_name = client_of_each(two_workers, clients)
    emitter, receiver = by_name["workers_00"], by_name["workers_01"]
    receiver.emit("block", 1.5)
    emitter.call("burst", "long", 20, LONG)
    stop(two_workers, "workers_00")
    receiver.expect_numbers("long", 20)
    assert dropped(two_workers) == 0


def test_a_worker_that_leaves_does_not_wait_longer_than_drain_timeout(
    make_cluster: ClusterFactory, clients: Clients
) -> None:
    """What a stopped worker has not fetched by then is counted as dropped."""
    cluster = make_cluster(here=HERE, command=APP, drain_timeout="2").start()
    by_name = client_of_each(cluster, clients)
    emitter, receiver = by_name["workers_00"], by_name["workers_01"]
    pid = pid_of(cluster, "workers_01")
    os.kill(pid, signal.SIGSTOP)
    try:
        emitter.call("burst", "long", 20, LONG)
        began = time.monotonic()
        stop(cluster, "workers_00")
        assert 1.5 < time.monotonic() - began < 13  # or supervisord kills it after 15
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: dropped(cluster) == 20, 15, "the lost ones are counted")
    assert numbers(receiver, "long") == []
    line = "workers have not fetched all"
    wait_until(lambda: line in cluster.log("workers_00"), 5, "the worker's line")


def test_all_workers_stop_at_once(two_workers: Cluster, clients: Clients) -> None:
    """They do not wait for each other."""
    by_name = client_of_each(two_workers, clients)
    for client in by_name.values():
        client.call("burst", "long", 20, LONG)
    began = time.monotonic()
    assert two_workers.rpc.supervisor.stopProcessGroup("workers")
    assert time.monotonic() - began < 9  # drain_timeout is 10


def test_restarts_under_load_lose_nothing(
    make_cluster: ClusterFactory, clients: Clients, tmp_path: Path
) -> None:
    """Messages of 100 B to 1 MB, of workers that are restarted, to clients that stay."""
    environ = f"environment = RELAY_APP={tmp_path},RELAY_APP_PAUSE=0.1"
    cluster = make_cluster(here=HERE, command=APP, workers=3, user="")
    cluster.user = environ  # of the section of the workers, and of the router
    cluster.start()
    by_name = client_of_each(cluster, clients)
    stays = by_name["workers_00"]
    (tmp_path / "sid").write_text(stays.sid())
    for turn in range(RESTARTS):
        name = f"workers_0{1 + turn % 2}"
        pid = pid_of(cluster, name)
        wait_until(
            lambda pid=pid: (
                (tmp_path / str(pid)).exists() and (tmp_path / str(pid)).stat().st_size > 10
            ),
            20,
            "it has emitted of every size",
        )
        stop(cluster, name)
        assert cluster.rpc.supervisor.startProcess(f"workers:{name}")
        cluster.wait_ready()
    cluster.rpc.supervisor.stopProcess("workers:workers_01")
    cluster.rpc.supervisor.stopProcess("workers:workers_02")
    emitted = {
        int(path.name): path.stat().st_size for path in tmp_path.iterdir() if path.name.isdigit()
    }
    del emitted[pid_of(cluster, "workers_00")]
    assert len(emitted) >= RESTARTS + 1
    stays.wait(lambda: all_have_come(stays, emitted), "every number", 30)
    for pid, got in by_emitter(stays).items():
        if pid in emitted:
            # One more than it wrote down: it ended between the emit and that.
            fault = deviation(got, max(len(got), emitted[pid]))
            assert not fault and len(got) <= emitted[pid] + 1, fault
    print(f"{RESTARTS} restarts, {sum(emitted.values())} messages, none lost")
    assert dropped(cluster) == 0


def by_emitter(client: TestClient) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for pid, number, _ in client.received("pump"):
        found[pid].append(number)
    return found


def all_have_come(client: TestClient, emitted: dict[int, int]) -> bool:
    got = by_emitter(client)
    return all(len(got[pid]) >= count for pid, count in emitted.items())
