"""What one host sends reaches the others, whatever happens to Redis and to the routers."""

from __future__ import annotations

import json
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
from cluster.test_hosts import Host, Redis, join, knows_another, queue

__all__ = ["queue"]

pytestmark = [NO_WORKER, pytest.mark.long]  # cluster/test_hosts.py has what happens often


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
            wait_until(lambda: here.queue["state"] == "away", 60, "it is noticed")
            wait_until(lambda at=ticks.emitted: ticks.emitted > at + 300, 60, "some that wait")
            restart_router(here.cluster)
        finally:
            queue.start()
        wait_until(lambda: here.queue["state"] == "connected", 60, "connected again")
        wait_until(lambda at=ticks.emitted: ticks.emitted > at + 50, 60, "some more")
    expect_all(hosts, ticks)


def test_the_routers_of_both_hosts_are_killed(hosts: list[Host]) -> None:
    """Neither knows any more what the other has, and nobody repeats what has come."""
    here, there = hosts
    with Ticks(here) as ticks:
        wait_until(lambda: ticks.emitted > 50, 60, "some")
        for cluster in (here.cluster, there.cluster):
            os.kill(cluster.router_pid, signal.SIGKILL)
        for host in hosts:
            wait_until(knows_another(host.cluster), 60, "the other host")
            host.cluster.wait_ready()
        wait_until(lambda at=ticks.emitted: ticks.emitted > at + 50, 60, "some more")
    expect_all(hosts, ticks)


def test_three_hosts(make_cluster: ClusterFactory, clients: Clients, queue: Redis) -> None:
    """One of which has another name for the same Redis."""
    urls = [queue.url, queue.url.replace("redis:", "valkey:"), queue.url]
    made = [make_cluster(message_queue=url, channel="three").start() for url in urls]
    for cluster in made:
        wait_until(lambda c=cluster: c.status()["queue"]["hosts"] == 2, 60, "both other hosts")
    hosts = join(made, clients)
    here, there, third = hosts
    with Ticks(here) as ticks:
        wait_until(lambda: ticks.emitted > 50, 60, "some")
        queue.kill()
        try:
            wait_until(lambda: third.queue["state"] == "away", 60, "it is noticed")
            restart_router(there.cluster)
        finally:
            queue.start()
        wait_until(lambda: here.queue["state"] == "connected", 60, "connected again")
        restart_router(here.cluster)
        wait_until(lambda at=ticks.emitted: ticks.emitted > at + 50, 60, "some more")
    expect_all(hosts, ticks)
    # An answer of a third one, which the second one has nothing to do with.
    target = third.clients[0]
    answer = here.emitter.call("call_sid", target.sid(), "question", 1)
    assert answer == {"from": target.name, "got": [1]}

    def count() -> int:
        return int(json.loads(here.emitter.call("operation", "server_count", (), {}))["value"])

    wait_until(lambda: count() == 6, 20, "all workers")
    there.cluster.stop()
    wait_until(lambda: count() == 4, 60, "the others are still there")


def test_a_host_that_is_stopped_is_known_in_time_and_back_with_all(hosts: list[Host]) -> None:
    """What it is: one that dies says no word, either."""
    here, there = hosts
    router = psutil.Process(there.cluster.router_pid)
    workers = len(there.cluster.workers())
    with Ticks(there) as ticks:
        wait_until(lambda: ticks.emitted > 50, 60, "some")
        router.suspend()
        try:
            # Much longer than BRIDGE_SILENCE: a loaded machine is late, too.
            call = ("operation", "fetch_sockets", (), {"timeout": 60})
            outcome = json.loads(here.emitter.call(*call, timeout=70))
        finally:
            router.resume()
        assert len(outcome["value"]) == len(here.clients) and not outcome["timed_out"]
        assert outcome["missing"] == workers
        print(f"known after {outcome['elapsed']:.1f} s")
        wait_until(knows_another(here.cluster), 60, "it is back")
        wait_until(lambda at=ticks.emitted: ticks.emitted > at + 50, 60, "some more")
    expect_all(hosts, ticks)
