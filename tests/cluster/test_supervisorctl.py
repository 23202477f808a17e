"""The plain commands of supervisorctl just work, and ``sio`` shows the cluster."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from .conftest import Clients, ClusterFactory
from .harness import Cluster, wait_until
from .modes import ANY_MODE, NO_WORKER
from .raw import open_websocket
from .recorder import TestClient


def assert_serves(cluster: Cluster, clients: list[TestClient], event: str) -> None:
    """The same clients are back by themselves, and an emit reaches each of them once."""
    for client in clients:
        client.wait_talking()
    cluster.wait_ready()
    clients[0].call("emit_all", event, 1, {})
    for client in clients:
        assert client.wait_for(event) == [[1]], client.name


def pids(cluster: Cluster) -> set[int]:
    return {row["pid"] for row in cluster.workers()}


@ANY_MODE
def test_restart_stop_start_update_reload(cluster: Cluster, clients: Clients) -> None:
    made = clients.mixed(cluster, 6)

    before = pids(cluster)
    done = cluster.ctl("restart", "workers:*")
    assert done.returncode == 0 and "ERROR" not in done.stdout, done.stdout
    assert_serves(cluster, made, "restarted")
    assert not before & pids(cluster)

    # Of one worker: the others' clients notice nothing.
    stopped = made[0].whoami()
    others = [client for client in made if client.whoami()["pid"] != stopped["pid"]]
    counts = [len(client.disconnects) for client in others]
    assert cluster.ctl("stop", f"workers:{stopped['name']}").returncode == 0
    for client in made:
        client.wait_talking()
        assert client.whoami()["pid"] != stopped["pid"]
    assert [len(client.disconnects) for client in others] == counts
    assert cluster.ctl("start", f"workers:{stopped['name']}").returncode == 0
    assert_serves(cluster, made, "started")

    cluster.numprocs = 3
    cluster.write_config()
    assert "workers: changed" in cluster.ctl("reread").stdout
    assert cluster.ctl("update").returncode == 0
    assert_serves(cluster, made, "updated")
    assert len(pids(cluster)) == 3

    before, router = pids(cluster), cluster.router_pid
    assert cluster.ctl("reload").returncode == 0
    cluster.wait_new_router(router)
    assert_serves(cluster, made, "reloaded")
    assert not before & pids(cluster)

    assert cluster.ctl("restart", "sio").returncode == 0
    counts = [len(client.disconnects) for client in made]
    assert_serves(cluster, made, "router restarted")
    assert [len(client.disconnects) for client in made] == counts


def test_new_clients_wait_while_every_worker_restarts(
    make_cluster: ClusterFactory, clients: Clients
) -> None:
    cluster = make_cluster(workers=1).start()
    assert cluster.ctl("stop", "workers:*").returncode == 0
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(clients.connect, cluster, kind) for kind in ("python", "node") * 2]
        assert cluster.ctl("start", "workers:*").returncode == 0
        made = [future.result() for future in waiting]
    assert_serves(cluster, made, "waited")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_supervisord_ends_cleanly(
    make_cluster: ClusterFactory, clients: Clients, number: int
) -> None:
    cluster = make_cluster(drain_timeout="14").start()
    clients.mixed(cluster, 6)
    began = time.monotonic()
    assert cluster.stop(number) == 0
    assert time.monotonic() - began < 13
    logs = cluster.logs()
    assert not [name for name, text in logs.items() if "Traceback" in text]
    assert "SIGKILL" not in logs["supervisord.log"]


@NO_WORKER
def test_status_answers_within_a_second_with_500_clients(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=1).start()
    with ThreadPoolExecutor(16) as pool:
        sockets = list(pool.map(lambda _: open_websocket(cluster.port), range(500)))
    try:
        times: list[float] = []
        while len(times) < 3 or (min(times) >= 1 and len(times) < 12):
            began = time.monotonic()
            done = cluster.ctl("sio", "status")
            times.append(time.monotonic() - began)
            assert done.returncode == 0, done.stdout
        assert min(times) < 1, times
        # The figures are at most a second old.
        wait_until(
            lambda: sum(row["sessions"] for row in cluster.workers()) == 500, 5, "500 sessions"
        )
    finally:
        for sock in sockets:
            sock.close()


@pytest.mark.long  # test_ctl.py has more of it
@NO_WORKER
def test_status_of_what_does_not_run(make_cluster: ClusterFactory) -> None:
    """Exit code 3, as ``supervisorctl status`` has it, and a word that says what it is."""
    cluster = make_cluster(workers=2, startsecs=20, startretries=0)
    command = "supervisor-sio worker no_such_module:app"
    cluster.extra = cluster.program("broken", command) + "autostart = false\n"
    cluster.start()
    assert cluster.ctl("start", "broken:*").returncode != 0

    def row(name: str) -> str:
        done = cluster.ctl("sio", "status")
        assert done.returncode == 3, done.stdout
        line, *_ = [line for line in done.stdout.splitlines() if name in line]
        return line.lower()

    assert "fatal" in row("broken:broken_00")
    assert cluster.ctl("stop", "workers:workers_01").returncode == 0
    assert "stopped" in row("workers:workers_01")
    assert "ready" in row("workers:workers_00")

    assert cluster.ctl("stop", "sio").returncode == 0
    assert cluster.status()["router"]["state"] == "down"
    assert "down" in row("router")

    cluster.stop()
    done = cluster.ctl("sio", "status")
    assert done.returncode == cluster.ctl("status").returncode == 4
    assert str(cluster.socket) in done.stdout and "Traceback" not in done.stdout
    assert len(done.stdout.splitlines()) == 1


@NO_WORKER
@pytest.mark.parametrize(("level", "shown"), [("info", True), ("warn", False)])
def test_logs_follow_the_loglevel_of_supervisord(
    make_cluster: ClusterFactory, level: str, shown: bool
) -> None:
    cluster = make_cluster(workers=1, extra=f"\n[supervisord]\nloglevel = {level}\n").start()
    assert cluster.ctl("restart", "workers:*").returncode == 0
    cluster.wait_ready()
    lines = (("router", "worker workers:workers_00 joins"), ("workers_00", "ready (tag"))
    if shown:
        for name, line in lines:
            wait_until(lambda n=name, text=line: text in cluster.log(n), 5, line)  # type: ignore[misc]
    # What matters is said at any level.
    with open_websocket(cluster.port) as sock:
        sock.sendall(b"\x81\x01x")  # no mask
        wait_until(lambda: "protocol error" in cluster.log("workers_00"), 10, "a warning")
    assert [line in cluster.log(name) for name, line in lines] == [shown, shown]


@NO_WORKER
def test_the_router_takes_events_of_any_name(make_cluster: ClusterFactory) -> None:
    """Of a program that is not its own, from a supervisord that is called anything."""
    extra = (
        "[supervisord]\nidentifier = my host:1\n[program:wörker]\ncommand = cat\nstartsecs = 0\n"
    )
    cluster = make_cluster(workers=1, extra=extra).start()
    router = cluster.router_pid
    for _ in range(3):
        assert cluster.ctl("restart", "wörker").returncode == 0
    # This event comes after those.
    name = cluster.workers()[0]["name"]
    assert cluster.ctl("restart", name).returncode == 0
    cluster.wait_ready()
    assert cluster.router_pid == router
    assert "not supervisord's" not in cluster.log("router")
