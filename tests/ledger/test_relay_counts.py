"""The relay's bounds and counts: nothing piles up in it, and what is lost is counted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Optional

import pytest
from cluster.conftest import Clients, ClusterFactory
from cluster.harness import Cluster, server_environment, wait_until
from cluster.modes import ANY_MODE
from cluster.recorder import TestClient

from supervisor_sio.common.limits import RELAY_HIGH_WATER

from .test_orderly_restarts import APP, HERE, client_of_each, dropped, numbers, pid_of
from .victim import MB, memory


@pytest.fixture
def two_workers(make_cluster: ClusterFactory) -> Cluster:
    return make_cluster(here=HERE, command=APP, buffer_maxbytes="256MB").start()


def start_emitter(
    cluster: Cluster, script: str, *args: str, stderr: Optional[int] = None
) -> subprocess.Popen[bytes]:
    """A process that only emits, with ``emitter`` and ``sys``."""
    head = "import sys; from supervisor_sio import ZmqManager\n"
    head += "emitter = ZmqManager(write_only=True)\n"
    variables = server_environment(SUPERVISOR_SIO_RUN_DIR=str(cluster.run_dir))
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", head + script, *args], env=variables, stderr=stderr
    )


FLOOD = """
for number in range(300):
    emitter.emit("flood", (number, "x" * 200_000))
"""


def test_long_messages_of_a_process_that_only_emits_do_not_pile_up_in_the_relay(
    two_workers: Cluster, clients: Clients
) -> None:
    by_name = client_of_each(two_workers, clients)
    stopped = pid_of(two_workers, "workers_01")
    for name in ("workers_00", "workers_01"):
        by_name[name].call("echo", 1)
    router = two_workers.router_pid
    before = memory(router)
    os.kill(stopped, signal.SIGSTOP)
    try:
        process = start_emitter(two_workers, FLOOD)
        by_name["workers_00"].wait_for("flood", 300, timeout=60)
        grown = memory(router) - before
    finally:
        os.kill(stopped, signal.SIGCONT)
    print(f"60 MB emitted for a stopped worker: the router grew by {grown / MB:.0f} MB")
    assert grown < 15 * MB
    # It has ended only when the stopped one had all.
    by_name["workers_01"].expect_numbers("flood", 300, timeout=60)
    assert process.wait(60) == 0
    assert dropped(two_workers) == 0


def test_a_process_that_only_emits_waits_for_a_busy_worker(
    two_workers: Cluster, clients: Clients
) -> None:
    by_name = client_of_each(two_workers, clients)
    by_name["workers_01"].emit("block", 2.0)
    process = start_emitter(two_workers, 'emitter.emit("long", (0, "x" * 1_000_000))')
    assert process.wait(60) == 0
    for client in by_name.values():
        client.wait_for("long")
    assert dropped(two_workers) == 0


MORE = RELAY_HIGH_WATER + 2000

LEAVE = """
for number in range(10):
    emitter.emit("alone", number, room=sys.argv[1])
for number in range(int(sys.argv[2])):
    emitter.emit("last", (number, ""))
"""


@ANY_MODE
def test_what_a_stopped_worker_lacks_of_a_process_that_has_ended_is_counted(
    two_workers: Cluster, clients: Clients
) -> None:
    by_name = client_of_each(two_workers, clients)
    heard, missed = by_name["workers_00"], by_name["workers_01"]
    pid = pid_of(two_workers, "workers_01")
    os.kill(pid, signal.SIGSTOP)
    try:
        process = start_emitter(two_workers, LEAVE, missed.sid(), str(MORE), stderr=subprocess.PIPE)
        _, log = process.communicate(timeout=60)
        assert process.returncode == 0
        assert log.startswith(b"1 workers have not fetched all that this process has sent: ")
        assert len(log.splitlines()) == 1
        heard.wait_for("last", MORE, timeout=60)
        assert dropped(two_workers) == 0
    finally:
        os.kill(pid, signal.SIGCONT)

    def missing() -> int:
        got = len(missed.received("alone")) + len(missed.received("last"))
        return 10 + MORE - got

    wait_until(lambda: missing() == dropped(two_workers) > 0, 10, "what is missing is counted")
    for event in ("alone", "last"):
        got = numbers(missed, event)
        assert got == sorted(set(got))
    wait_until(
        lambda: "messages were lost" in two_workers.log("workers_01"), 10, "the loss is logged"
    )
    print(f"{MORE} emitted, {missing()} lost and counted")


MADE_UP = """
count = int(sys.argv[2])
for number in range(10):
    emitter.emit("real", number, room=sys.argv[1])
for number in range(count):
    emitter.emit("made up", number, room=f"{number:08x}." + "x" * 20)
for number in range(10, 20):
    emitter.emit("real", number, room=sys.argv[1])
"""


@pytest.mark.parametrize("buffer", ["65536", "500"])
def test_made_up_sids_cost_no_real_client_its_messages(
    make_cluster: ClusterFactory, clients: Clients, buffer: str
) -> None:
    """Those of the process that sends to them stay in its buffer, or they do not."""
    cluster = make_cluster(here=HERE, command=APP, buffer_messages=buffer).start()
    by_name = client_of_each(cluster, clients)
    real = by_name["workers_00"]
    assert start_emitter(cluster, MADE_UP, real.sid(), "1500").wait(60) == 0
    real.expect_numbers("real", 20)
    assert by_name["workers_01"].received("made up") == []
    assert by_name["workers_01"].received("real") == []
    assert dropped(cluster) == 0


COUNT = 3000


@ANY_MODE
def test_the_last_words_of_a_killed_worker_are_counted(
    make_cluster: ClusterFactory, clients: Clients
) -> None:
    """They wait in its own ZeroMQ because the relay is stopped, and die with it."""
    cluster = make_cluster(here=HERE, command=APP, workers=3).start()
    by_name = client_of_each(cluster, clients)
    emitter = by_name.pop("workers_02")
    others = list(by_name.values())
    emitter.call("burst", "before", 10, 10)
    for client in others:
        client.wait_for("before", 10)
    killed = pid_of(cluster, "workers_02")
    router = cluster.router_pid
    os.kill(router, signal.SIGSTOP)
    try:
        emitter.call("burst", "last", COUNT, 1000)
        os.kill(killed, signal.SIGKILL)
    finally:
        os.kill(router, signal.SIGCONT)
    expect_counted(cluster, others, "last", COUNT)


@ANY_MODE
def test_the_first_words_of_a_killed_worker_are_counted(
    make_cluster: ClusterFactory, clients: Clients
) -> None:
    """Nobody has heard anything of it before."""
    cluster = make_cluster(here=HERE, command=APP, workers=3).start()
    by_name = client_of_each(cluster, clients)
    emitter = by_name.pop("workers_02")
    others = list(by_name.values())
    router = cluster.router_pid
    os.kill(router, signal.SIGSTOP)
    try:
        emitter.call("burst", "first", COUNT, 1000)
        os.kill(pid_from(emitter), signal.SIGKILL)
    finally:
        os.kill(router, signal.SIGCONT)
    expect_counted(cluster, others, "first", COUNT)


def pid_from(client: TestClient) -> int:
    return int(client.whoami()["pid"])


def expect_counted(cluster: Cluster, clients: list[TestClient], event: str, count: int) -> None:
    """What these clients, each of another worker, have not got is what is dropped."""

    def counted() -> bool:
        missing = sum(count - len(client.received(event)) for client in clients)
        return missing == dropped(cluster) > 0

    wait_until(counted, 20, "what is missing is counted")
    for client in clients:
        got = numbers(client, event)
        assert got == sorted(set(got))
    got_all = sum(len(client.received(event)) for client in clients)
    print(f"{count} emitted, {got_all} of {count * len(clients)} arrived, the rest is counted")
