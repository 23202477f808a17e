"""A worker's child is not that worker: it serves nobody, and keeps nobody from anything."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from cluster.conftest import Clients, ClusterFactory
from cluster.harness import Cluster, wait_until
from cluster.recorder import TestClient

from ledger.victim import wait_idle

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def shared(make_module_cluster: ClusterFactory) -> Cluster:
    return make_module_cluster(here=HERE, command="supervisor-sio worker fork_app:app").start()


@pytest.fixture
def two(shared: Cluster, clients: Clients) -> Iterator[tuple[TestClient, TestClient]]:
    """Clients of different workers."""
    shared.wait_ready()
    made = [clients.connect(shared, "python", ["websocket"]) for _ in range(2)]
    while made[0].whoami()["pid"] == made[-1].whoami()["pid"]:
        made.append(clients.connect(shared, "python", ["websocket"]))
    yield made[0], made[-1]


@pytest.mark.tries(3)
def test_a_child_that_waits_takes_no_cpu(two: tuple[TestClient, TestClient]) -> None:
    worker = two[0].whoami()["pid"]
    child = two[0].call("fork_and_wait", 3)
    wait_idle(child)
    assert running(child), "it has ended too soon to tell"
    assert two[0].call("echo", "still here") is not None
    wait_until(lambda: psutil.Process(child).status() == psutil.STATUS_ZOMBIE, 5, "its end")
    assert two[0].whoami()["pid"] == worker and not two[0].disconnects


def test_what_a_child_emits_arrives_once(two: tuple[TestClient, TestClient]) -> None:
    assert two[0].call("fork_and_emit", "from-child") == 0
    for client in two:
        assert len(client.wait_for("from-child")) == 1
    # And after that the worker's own.
    two[0].call("emit_all", "from-worker", 1, {})
    for client in two:
        assert client.wait_for("from-worker") == [[1]]
        assert len(client.wait_for("from-child")) == 1


def test_a_child_that_goes_on_as_the_worker_harms_nobody(
    two: tuple[TestClient, TestClient],
) -> None:
    worker = two[0].whoami()["pid"]
    child = two[0].call("fork_and_fall_through")
    assert child != worker
    for client in two:
        client.call("echo", "still here")
    two[0].call("emit_all", "after-the-fork", 1, {})
    assert two[1].wait_for("after-the-fork") == [[1]]
    assert two[0].wait_for("after-the-fork") == [[1]]
    wait_until(lambda: not running(child), 5, "the child has ended")
    assert not two[0].disconnects


def running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def test_a_child_keeps_no_connection_of_its_worker(two: tuple[TestClient, TestClient]) -> None:
    assert len(two[0].call("list_peers")) >= 4  # a client, the router, and the relay's two
    assert two[0].call("fork_and_list") == []


def test_a_web_terminal_works(two: tuple[TestClient, TestClient]) -> None:
    assert "as you see" in two[0].call("terminal", "as you see")
    assert "again" in two[0].call("terminal", "again")


def test_a_pool_of_processes_works(two: tuple[TestClient, TestClient]) -> None:
    assert two[0].call("pool", 5) == [0, 1, 4, 9, 16]


def test_a_program_that_is_called_works(two: tuple[TestClient, TestClient]) -> None:
    assert two[0].call("call_external") == "hi\n"


def test_a_child_that_is_stopped_does_not_stop_its_worker(
    two: tuple[TestClient, TestClient],
) -> None:
    worker = two[0].whoami()["pid"]
    assert two[0].call("terminate_child") == -signal.SIGTERM
    time.sleep(0.3)
    assert two[0].whoami()["pid"] == worker and not two[0].disconnects


def test_a_killed_worker_is_dead_whatever_it_forked(
    shared: Cluster, two: tuple[TestClient, TestClient]
) -> None:
    victim, other = two
    worker = victim.whoami()["pid"]
    child = victim.call("fork_and_wait", 120)
    try:
        os.kill(worker, signal.SIGKILL)
        victim.wait_disconnected()
        # All workers that there are answer, as soon as the router has noticed that one is dead.
        wait_until(
            lambda: json.loads(shared.ctl("sio", "sockets", "--json").stdout)["missing"] == 0,
            10,
            "nobody is missing",
        )
        victim.wait_talking()
        assert running(child)
    finally:
        os.kill(child, signal.SIGKILL)
    shared.wait_ready()
