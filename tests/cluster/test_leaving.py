"""A worker that is stopped finishes what it has begun and gives the rest away."""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from .conftest import Clients, ClusterFactory
from .harness import Cluster, wait_until
from .raw import Poller, open_websocket
from .recorder import TestClient


def kept_connection(cluster: Cluster, pid: int | None = None) -> http.client.HTTPConnection:
    """An idle kept connection, at the worker with this pid."""
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", cluster.port, timeout=20)
        connection.connect()
        connection.auto_open = 0
        if get(connection, "/pid") == pid or pid is None:
            return connection
        connection.close()


def get(connection: http.client.HTTPConnection, path: str) -> int:
    connection.request("GET", path)
    return int(connection.getresponse().read())


def is_back(client: TestClient) -> bool:
    try:
        return bool(client.disconnects) and client.call("echo", 1) == 1
    except ConnectionError:
        return False


def test_idle_connections_move_on(cluster: Cluster) -> None:
    stopping = cluster.workers()[0]
    idle = [kept_connection(cluster, stopping["pid"]) for _ in range(3)]
    assert cluster.ctl("stop", stopping["name"]).returncode == 0
    left = {row["pid"] for row in cluster.workers()}
    assert {get(connection, "/pid") for connection in idle} == left
    for connection in idle:
        connection.close()
    cluster.wait_log("supervisord", "stopped: workers_00 (exit status 0)")


def test_idle_connections_wait_for_the_next_worker(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=1).start()
    idle = kept_connection(cluster)
    assert cluster.ctl("restart", "workers:*").returncode == 0
    pid = get(idle, "/pid")
    wait_until(lambda: [row["pid"] for row in cluster.workers()] == [pid], 10, "its row")
    idle.close()


def test_a_request_in_flight_is_finished(cluster: Cluster, tmp_path: Path) -> None:
    flag = tmp_path / "go"
    stopping = cluster.workers()[0]
    connection = kept_connection(cluster, stopping["pid"])
    connection.request("GET", f"/wait?{flag}")
    wait_until(Path(f"{flag}.begun").exists, 10, "the request has begun")
    stop = threading.Thread(target=cluster.ctl, args=("stop", stopping["name"]))
    stop.start()
    wait_until(lambda: cluster.workers("draining"), 10, "draining")
    # It drains: no new session comes here any more.
    for _ in range(6):
        session = Poller(cluster.port)
        session.open()
        assert not session.sid.startswith(stopping["tag"])
    flag.touch()
    assert int(connection.getresponse().read()) == stopping["pid"]
    stop.join(20)
    assert get(connection, "/pid") != stopping["pid"]
    connection.close()
    cluster.wait_log("supervisord", "stopped: workers_00 (exit status 0)")


def test_drain_timeout_ends_what_does_not_end(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    cluster = make_cluster(workers=1, drain_timeout="1").start()
    stopping = cluster.workers()[0]
    connection = kept_connection(cluster, stopping["pid"])
    connection.request("GET", f"/wait?{tmp_path / 'never'}")
    wait_until((tmp_path / "never.begun").exists, 10, "the request has begun")
    began = time.monotonic()
    assert cluster.ctl("stop", stopping["name"]).returncode == 0
    assert 0.9 < time.monotonic() - began
    cluster.wait_log("supervisord", "stopped: workers_00 (exit status 0)")
    connection.close()


def test_clients_come_back_at_once(cluster: Cluster, clients: Clients) -> None:
    made = clients.mixed(cluster, 18)
    stopping = cluster.workers()[0]
    concerned = [client for client in made if client.sid().startswith(stopping["tag"])]
    assert len(concerned) >= 8
    assert cluster.ctl("stop", stopping["name"]).returncode == 0
    for client in concerned:
        wait_until(lambda c=client: is_back(c), 15, client.name)  # type: ignore[misc]
    others = [client for client in made if client not in concerned]
    assert all(client.call("echo", 2) == 2 and not client.disconnects for client in others)


def test_what_is_emitted_at_the_very_end_arrives(
    make_cluster: ClusterFactory, clients: Clients
) -> None:
    """Also if the relay has lost it."""
    cluster = make_cluster(command="supervisor-sio worker leaving_app:app").start()
    made = clients.mixed(cluster, 6)
    stopping = cluster.workers()[0]
    others = [client for client in made if not client.sid().startswith(stopping["tag"])]
    assert others
    assert cluster.ctl("stop", stopping["name"]).returncode == 0
    for client in others:
        wait_until(lambda c=client: c.received("last"), 15, client.name)  # type: ignore[misc]
        assert client.received("last") == [[stopping["pid"]]]
    assert cluster.status()["relay"]["dropped"] == 0


def test_websockets_whose_clients_say_nothing_do_not_hold_it(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=1, drain_timeout="14").start()
    silent = [open_websocket(cluster.port) for _ in range(20)]
    began = time.monotonic()
    assert cluster.ctl("stop", "workers:*").returncode == 0
    assert time.monotonic() - began < 12
    for sock in silent:
        sock.close()


@pytest.mark.tries(3)
def test_without_supervisord_and_relay_nobody_waits_for_confirmations(
    make_cluster: ClusterFactory, clients: Clients
) -> None:
    """Both workers have just emitted; there will be no relay that could bring it to the other."""
    cluster = make_cluster(workers=2, drain_timeout="60").start()
    for client in clients.mixed(cluster, 6):
        client.call("emit_all", "last", 1, {})
    assert cluster.process is not None
    os.kill(cluster.router_pid, signal.SIGKILL)
    cluster.process.kill()
    cluster.process.wait()
    began = time.monotonic()
    wait_until(lambda: not cluster.processes(), 30, "the workers have ended")
    assert time.monotonic() - began < 6  # 8 to 20 with the timeouts for confirmations
