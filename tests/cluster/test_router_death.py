"""The router is out of the way of those who are connected, and can come and go."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from .conftest import Clients
from .harness import Cluster, wait_until
from .modes import NO_HANDLER
from .pyclient import PyClient
from .raw import Poller
from .recorder import TestClient

pytestmark = NO_HANDLER

ESTABLISHED = "01"


@pytest.fixture(scope="module")
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    """Each test leaves a router behind, if not the one it found."""
    yield shared_cluster


def kill_router(cluster: Cluster) -> None:
    old = cluster.router_pid
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(old), 10, "the router is gone")


def socket_inodes(pid: int) -> set[str]:
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(path)
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found


def established_inodes(port: int) -> dict[int, str]:
    """The server's ends of connections to ``port``: the client's port and the inode."""
    found = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote, state, inode = fields[1], fields[2], fields[3], fields[9]
        if int(local.split(":")[1], 16) == port and state == ESTABLISHED:
            found[int(remote.split(":")[1], 16)] = inode
    return found


def one_of_each_worker(clients: list[TestClient]) -> list[TestClient]:
    return list({client.whoami()["pid"]: client for client in clients}.values())


def test_the_router_holds_no_established_connection(cluster: Cluster, clients: Clients) -> None:
    made = [clients.connect(cluster, "python", ["websocket"]) for _ in range(12)]
    inodes = established_inodes(cluster.port)
    ours = {inodes[client.local_port] for client in made if isinstance(client, PyClient)}
    assert len(ours) == 12
    assert not ours & socket_inodes(cluster.router_pid)
    assert ours <= set().union(*(socket_inodes(row["pid"]) for row in cluster.workers()))


def test_clients_stay_connected_when_the_router_is_killed(
    cluster: Cluster, clients: Clients
) -> None:
    made = clients.mixed(cluster, 12)
    old = cluster.router_pid
    kill_router(cluster)
    for client in made:
        assert client.call("echo", "still here") == "still here"
    cluster.wait_new_router(old)
    cluster.wait_ready()
    for client in made:
        assert client.call("echo", "and now") == "and now"
    assert not [client.name for client in made if client.disconnects]


def test_new_clients_wait_for_the_next_router(cluster: Cluster, clients: Clients) -> None:
    kill_router(cluster)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda kind: clients.connect(cluster, kind), ["python", "node"] * 4))
    assert {client.call("echo", 1) for client in made} == {1}


def test_polling_sessions_go_on_after_a_restart_of_the_router(cluster: Cluster) -> None:
    sessions = [Poller(cluster.port) for _ in range(20)]
    for session in sessions:
        session.open()
        session.join()
    pids = [session.call("whoami")["pid"] for session in sessions]
    kill_router(cluster)
    # Each request comes on a new connection: it waits for the new router.
    with ThreadPoolExecutor(20) as pool:
        again = list(pool.map(lambda session: session.call("whoami")["pid"], sessions))
    assert again == pids


def test_emits_wait_for_the_next_relay(cluster: Cluster, clients: Clients) -> None:
    """Stopped for good, not only for a moment: what was emitted meanwhile comes, in order."""
    made = clients.mixed(cluster, 12)
    first, second, *_ = one_of_each_worker(made)
    assert cluster.ctl("stop", "sio").returncode == 0
    assert cluster.status()["router"]["state"] == "down"
    for number in range(100):
        first.call("emit_all", "delayed", number, {})
    assert cluster.ctl("start", "sio").returncode == 0
    second.call("emit_all", "prompt", b"bytes", {})
    first.call("emit_all", "last", 0, {})
    for client in made:
        client.wait_for("prompt")
        client.wait_for("last")
        assert client.received("prompt") == [[b"bytes"]], client.name
        client.expect_numbers("delayed", 100)
    cluster.wait_ready()
    assert cluster.status()["relay"]["dropped"] == 0


def test_emits_cross_workers_after_the_router_was_killed(
    cluster: Cluster, clients: Clients
) -> None:
    made = clients.mixed(cluster, 12)
    emitters = one_of_each_worker(made)
    assert len(emitters) == 4
    kill_router(cluster)
    for emitter in emitters:
        for number in range(3):
            emitter.call("emit_all", f"after-{emitter.name}", number, {})
    for client in made:
        for emitter in emitters:
            event = f"after-{emitter.name}"
            assert client.wait_for(event, 3) == [[0], [1], [2]], client.name
    answer = emitters[0].call("call_sid", emitters[1].sid(), "question", 1)
    assert answer == {"from": emitters[1].name, "got": [1]}
