"""What one host sends reaches the others, whatever happens to Redis and to the routers."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import psutil
import pytest
from cluster.conftest import Clients, ClusterFactory
from cluster.harness import Cluster, wait_until
from cluster.modes import NO_WORKER
from cluster.test_hosts import Host, Redis, join, queue

__all__ = ["queue"]

pytestmark = NO_WORKER


@pytest.fixture(scope="module")
def clusters(make_module_cluster: ClusterFactory, queue: Redis) -> list[Cluster]:
    return [make_module_cluster(message_queue=queue.url).start() for _ in "ab"]


@pytest.fixture
def hosts(clusters: list[Cluster], clients: Clients) -> list[Host]:
    for cluster in clusters:
        cluster.wait_ready()
    return join(clusters, clients)


class Ticks:
    """The first client of a host emits numbers to all, as long as the block lasts."""

    def __init__(self, host: Host, pause: float = 0.01) -> None:
        self._host = host
        self._pause = pause
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.emitted = 0

    def __enter__(self) -> Ticks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._ended.is_set():
            self._host.emit("tick", self.emitted)
            self.emitted += 1
            time.sleep(self._pause)


def expect_all(hosts: list[Host], ticks: Ticks) -> None:
    """Each client has each number once, in order, unless it is counted as missed."""
    staying = [client for host in hosts for client in host.clients if not client.disconnects]
    assert len(staying) > len(hosts)
    for client in staying:
        client.expect_numbers("tick", ticks.emitted, timeout=20)
    for host in hosts:
        assert host.queue["missed"] == host.queue["unsent"] == 0
        assert host.cluster.status()["relay"]["dropped"] == 0


def restart_router(cluster: Cluster) -> None:
    old = cluster.router_pid
    started = psutil.Process(old).create_time()
    wait_until(lambda: time.time() > started + 1.2, 5, "the router counts as started")
    os.kill(old, signal.SIGKILL)
    cluster.wait_new_router(old)
    cluster.wait_ready()


def test_the_router_of_a_receiving_host_restarts(hosts: list[Host]) -> None:
    here, there = hosts
    with Ticks(here) as ticks:
        wait_until(lambda: ticks.emitted > 100, 60, "some")
        restart_router(there.cluster)
        wait_until(lambda at=ticks.emitted: ticks.emitted > at + 200, 60, "some more")
    expect_all(hosts, ticks)


def test_the_router_of_a_sending_host_restarts(hosts: list[Host]) -> None:
    here, there = hosts
    with Ticks(here) as ticks:
        wait_until(lambda: ticks.emitted > 100, 60, "some")
        restart_router(here.cluster)
        wait_until(lambda at=ticks.emitted: ticks.emitted > at + 200, 60, "some more")
    expect_all(hosts, ticks)


@pytest.fixture
def thawed(queue: Redis) -> Iterator[psutil.Process]:
    assert queue._process is not None
    process = psutil.Process(queue._process.pid)
    yield process
    process.resume()


@pytest.mark.long  # unit/bridge/test_queue.py gives up a silent connection sooner
def test_redis_is_frozen_for_nine_seconds(hosts: list[Host], thawed: psutil.Process) -> None:
    with Ticks(hosts[0], 0.02) as ticks:
        wait_until(lambda: ticks.emitted > 100, 60, "some")
        thawed.suspend()
        time.sleep(9)  # longer than Redis has for an answer
        thawed.resume()
        wait_until(lambda at=ticks.emitted: ticks.emitted > at + 100, 60, "some more")
    expect_all(hosts, ticks)


def test_redis_is_away_and_the_router_of_the_sender_is_killed(
    hosts: list[Host], queue: Redis
) -> None:
    here, _ = hosts
    with Ticks(here) as ticks:
        wait_until(lambda: ticks.emitted > 50, 60, "some")
        queue.kill()
        try:
            wait_until(lambda: here.queue["state"] == "away", 10, "it is noticed")
            # Until its figures, which supervisord gets each second, say since when some wait.
            wait_until(lambda at=ticks.emitted: ticks.emitted > at + 300, 60, "some that wait")
            restart_router(here.cluster)
        finally:
            queue.start()
        wait_until(lambda: here.queue["state"] == "connected", 10, "connected again")
        wait_until(lambda at=ticks.emitted: ticks.emitted > at + 50, 60, "some more")
    expect_all(hosts, ticks)
