"""A worker that leaks, or hangs, is restarted by supervisord: one at a time, and drained."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import Clients, ClusterFactory
from .harness import Cluster, free_port, wait_until
from .recorder import TestClient
from .setups import SetUps
from .test_run_once import Ticks

pytestmark = pytest.mark.long

WORKERS = 3

#: More than a worker has when it is ready, by far.
MAX_MEMORY = 140

#: More than a worker may have to wait for the processor, while tests are busy.
HUNG_TIMEOUT = 8

#: What everything together may take longer then.
BUSY = 10

#: Seconds after which the clients of a killed worker are at another one.
BACK = 5


@pytest.fixture
def ticks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ticks:
    monkeypatch.setenv("TICKS", str(tmp_path))
    return Ticks(tmp_path)


@pytest.fixture
def cluster(request: pytest.FixtureRequest, ticks: Ticks, make_cluster: ClusterFactory) -> Cluster:
    """With one limit alone: nobody hangs, or needs more memory, while the other is measured."""
    options = {
        "workers": WORKERS,
        "command": "supervisor-sio worker recycling_app:app",
        "metrics": f"127.0.0.1:{free_port()}",
        **request.param,
    }
    return make_cluster(**options).start()


def at_worker(cluster: Cluster, clients: Clients, name: str) -> TestClient:
    """A client of the worker with this name; those of others stay, or it would never have two."""
    for _ in range(20 * WORKERS):
        client = clients.connect(cluster, transports=["websocket"])
        if client.call("whoami") == name:
            return client
    raise AssertionError(f"no client was placed at {name}")


def recycled(cluster: Cluster) -> dict[str, int]:
    counted: dict[str, int] = cluster.status()["recycling"]["recycled"]
    return counted


def metric(cluster: Cluster) -> str:
    """The lines of the metric."""
    port = int(cluster.settings["metrics"].rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    finally:
        connection.close()
    return "\n".join(line for line in lines if "workers_recycled_total{" in line)


class Watch:
    """Looks all the time who is away while the block lasts."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._ends = threading.Event()
        #: The names of those that were not ready at the same time.
        self.away: set[tuple[str, ...]] = set()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._ends.wait(0.05):
            rows = self._cluster.status()["workers"]
            self.away.add(tuple(row["name"] for row in rows if row["state"] != "ready"))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ends.set()
        self._thread.join()


@pytest.mark.tries(3)
@pytest.mark.parametrize("cluster", [{"hung_timeout": f"{HUNG_TIMEOUT}"}], indirect=True)
def test_one_that_hangs_is_killed_and_its_clients_and_its_task_go_elsewhere(
    cluster: Cluster, ticks: Ticks, clients: Clients
) -> None:
    before = recycled(cluster)["hung"]
    holder = ticks.last
    name = f"workers:{holder['worker']}"
    victims = [at_worker(cluster, clients, holder["worker"]) for _ in range(3)]
    connects = {client: client.connects for client in victims}
    os.kill(holder["pid"], signal.SIGSTOP)
    stopped = time.monotonic()
    wait_until(lambda: recycled(cluster)["hung"] > before, 10, "it is killed")
    killed = time.monotonic()
    for client in victims:
        client.wait(lambda c=client: c.connects > connects[c], "way back")  # type: ignore[misc]
    back = time.monotonic() - killed
    taker = ticks.wait_for_another(holder)
    cluster.wait_ready()
    log = cluster.log("supervisord")
    (line,) = [one for one in log.splitlines() if f"killing {name} (pid {holder['pid']})" in one]
    said = re.search(rf"it hangs: no report for (\d+) s \(hung_timeout {HUNG_TIMEOUT}\)", line)
    assert said is not None and HUNG_TIMEOUT <= int(said[1]) <= HUNG_TIMEOUT + BUSY
    wait_until(lambda: f'{{reason="hung"}} {before + 1}.0' in metric(cluster), 5, "the metric")
    lines = ticks.running()
    gap = next(one["at"] for one in lines if one["number"] == taker["number"]) - max(
        one["at"] for one in lines if one["pid"] == holder["pid"]
    )
    print(f"killed after {killed - stopped:.1f} s, back after {back:.1f}, the task after {gap:.1f}")
    ticks.check()
    assert max(killed - stopped, gap) <= HUNG_TIMEOUT + BUSY and back <= BACK


@pytest.mark.tries(3)
@pytest.mark.parametrize("cluster", [{"max_memory": f"{MAX_MEMORY}MB"}], indirect=True)
def test_one_that_leaks_is_drained_and_restarted_and_a_reload_waits(
    cluster: Cluster, clients: Clients
) -> None:
    before = recycled(cluster)["memory"]
    first, second = (row["name"] for row in cluster.workers()[:2])
    pids = {row["name"]: row["pid"] for row in cluster.workers()}
    client = at_worker(cluster, clients, first.partition(":")[2])

    def begins() -> bool:
        recycling = cluster.status()["recycling"]
        return recycling["worker"] == first or recycling["recycled"]["memory"] > before

    with SetUps(cluster) as load, Watch(cluster) as watch:
        # 10 MB/s; and it ends before the worker waits for it.
        client.emit("leak", MAX_MEMORY - 60, 40, 10)
        wait_until(begins, 15, "it is recycled")
        shown = cluster.ctl("sio", "reload", second)
        wait_until(lambda: recycled(cluster)["memory"] > before, 15, "it is recycled")
        wait_until(lambda: not cluster.status()["recycling"]["worker"], 15, "it is back")
        load.go_on()
    cluster.wait_ready()
    assert shown.returncode == 0, shown.stdout
    assert not load.failures and load.completed > 0
    assert {(first,), (second,)} <= watch.away <= {(), (first,), (second,)}, "one at a time"
    after = {row["name"]: row["pid"] for row in cluster.workers()}
    assert [name for name in pids if pids[name] != after[name]] == [first, second]
    log = cluster.log("supervisord")
    (line,) = [one for one in log.splitlines() if f"recycling {first} (pid {pids[first]})" in one]
    assert f" MB of {MAX_MEMORY}" in line and f"(pid {pids[first]}): it has not" not in log
    wait_until(lambda: f'{{reason="memory"}} {before + 1}.0' in metric(cluster), 5, "the metric")
    text = cluster.ctl("sio", "status").stdout
    assert f"memory {before + 1})" in _line(text, "recycled ")
    answer: dict[str, Any] = json.loads(cluster.ctl("sio", "status", "--json").stdout)
    assert answer["recycling"]["state"] == "on" and not answer["recycling"]["worker"]


@pytest.mark.tries(3)
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "cluster", [{"max_memory": f"{MAX_MEMORY}MB", "workers": 4}], indirect=True
)
def test_all_that_are_over_the_limit_at_once_go_one_at_a_time(
    cluster: Cluster, clients: Clients
) -> None:
    before = recycled(cluster)["memory"]
    pids = {row["name"]: row["pid"] for row in cluster.workers()}
    leaking = [at_worker(cluster, clients, name.partition(":")[2]) for name in pids]
    with SetUps(cluster) as load, Watch(cluster) as watch:
        for client in leaking:
            client.emit("leak", MAX_MEMORY - 40, 0, 1)

        def all_are_new() -> bool:
            ready = {row["name"]: row["pid"] for row in cluster.workers()}
            return ready.keys() == pids.keys() and not set(ready.values()) & set(pids.values())

        wait_until(all_are_new, 120, "all are recycled")
        load.go_on()
    assert not load.failures and load.completed > 0
    assert watch.away == {(), *((name,) for name in pids)}, "one at a time"
    assert recycled(cluster)["memory"] == before + len(pids)
    assert "killing" not in cluster.log("supervisord")


def _line(text: str, begin: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(begin))
