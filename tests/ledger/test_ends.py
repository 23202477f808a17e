"""How workers and the router end, and who starts them again."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest
from cluster.conftest import Clients, ClusterFactory
from cluster.harness import Cluster, wait_until
from cluster.modes import ANY_MODE, LOOP, NO_WORKER
from cluster.raw import Poller

HERE = Path(__file__).parent
COMMAND = "supervisor-sio worker life_app:app"


@pytest.fixture(scope="module")
def shared(make_module_cluster: ClusterFactory) -> Cluster:
    return make_module_cluster(here=HERE, command=COMMAND).start()


def wait_for_successor(cluster: Cluster, name: str, pid: int) -> None:
    wait_until(
        lambda: any(row["name"] == name and row["pid"] != pid for row in cluster.workers()),
        20,
        f"another {name}",
    )


def state(cluster: Cluster, name: str) -> str:
    return str(cluster.rpc.supervisor.getProcessInfo(name)["statename"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_worker_that_somebody_kills_starts_again(shared: Cluster, number: signal.Signals) -> None:
    row = shared.workers()[0]
    os.kill(row["pid"], number)
    wait_for_successor(shared, row["name"], row["pid"])
    assert f"exit status {128 + number}; not expected" in shared.log("supervisord")
    shared.wait_ready()


@NO_WORKER
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_router_that_somebody_kills_starts_again(shared: Cluster, number: signal.Signals) -> None:
    old = shared.router_pid
    os.kill(old, number)
    shared.wait_new_router(old)
    shared.wait_ready()
    Poller(shared.port).open()


@pytest.mark.long
def test_a_worker_killed_while_there_is_no_router_starts_again(shared: Cluster) -> None:
    assert shared.ctl("stop", "sio").returncode == 0
    name = "workers:workers_00"
    pid = shared.rpc.supervisor.getProcessInfo(name)["pid"]
    os.kill(pid, signal.SIGTERM)
    wait_until(
        lambda: shared.rpc.supervisor.getProcessInfo(name)["pid"] not in (0, pid), 20, "a successor"
    )
    assert shared.ctl("start", "sio").returncode == 0
    shared.wait_ready()


@pytest.mark.long
def test_a_worker_does_not_say_who_stopped_it_when_it_cannot_know(shared: Cluster) -> None:
    name = "workers:workers_01"
    before = len(shared.log("workers_01"))

    def log() -> str:
        return shared.log("workers_01")[before:]

    assert shared.ctl("stop", "sio").returncode == 0
    wait_until(lambda: "the router has ended" in log(), 5, "the worker has seen it")
    assert shared.ctl("stop", name).returncode == 0
    wait_until(lambda: "stopped by SIGTERM" in log(), 5, "the worker's line")
    assert "stopped by SIGTERM, by an unknown sender: no router is connected" in log()
    assert "not by supervisord" not in log()
    assert shared.ctl("start", "sio", name).returncode == 0
    shared.wait_ready()


def test_what_supervisord_stops_ends_with_0_and_stays_stopped(shared: Cluster) -> None:
    before = len(shared.log("supervisord"))
    for name in ("workers:workers_00", "sio"):
        assert shared.ctl("stop", name).returncode == 0
        process = name.rpartition(":")[2]
        wait_until(
            lambda p=process: f"stopped: {p} (exit status 0)" in shared.log("supervisord")[before:],  # type: ignore[misc]
            5,
            f"{process} has ended with 0",
        )
        assert state(shared, name) == "STOPPED"
    assert shared.ctl("start", "sio", "workers:workers_00").returncode == 0
    shared.wait_ready()


def test_all_that_a_shutdown_stops_ends_with_0(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(here=HERE, command=COMMAND).start()
    cluster.stop()
    log = cluster.log("supervisord")
    assert [f"stopped: {name} (exit status 0)" in log for name in ("workers_00", "sio")] == [
        True,
        True,
    ]
    assert "exit status 1" not in log


@pytest.mark.parametrize(
    "status, called, ends",
    [
        (3, "sys.exit(3)", 3),
        ("full\ndisk", "sys.exit('full\\ndisk')", 1),
        (259, "sys.exit(259)", 3),
    ],
)
def test_the_log_says_which_handler_has_called_exit(
    shared: Cluster, clients: Clients, status: Any, called: str, ends: int
) -> None:
    client = clients.connect(shared, transports=["websocket"])
    me = client.call("whoami")
    process = me["name"]
    before, ended = len(shared.log(process)), len(shared.log("supervisord"))
    client.emit("leave", status)
    line = f"ERROR the handler of 'leave' called {called} at life_app.py:"
    wait_until(lambda: line in shared.log(process)[before:], 10, "the worker's line")
    (line,) = [whole for whole in shared.log(process)[before:].splitlines() if line in whole]
    if shared.mode == "threading":
        assert line.endswith(": this ends only the call")
        assert client.call("whoami") == me
        return
    assert line.endswith(f": the worker ends with status {ends}")
    wait_for_successor(shared, f"workers:{process}", me["pid"])
    assert f"{process} (exit status {ends}; not expected)" in shared.log("supervisord")[ended:]
    shared.wait_ready()


@LOOP
def test_the_log_says_when_a_task_has_called_exit(shared: Cluster, clients: Clients) -> None:
    client = clients.connect(shared, transports=["websocket"])
    me = client.call("whoami")
    before = len(shared.log(me["name"]))
    client.emit("leave_later", 4)
    wait_for_successor(shared, f"workers:{me['name']}", me["pid"])
    assert "ERROR the application called sys.exit(4) at " in shared.log(me["name"])[before:]
    shared.wait_ready()


def test_the_applications_own_sigterm_handler_runs(shared: Cluster) -> None:
    before = len(shared.log("workers_01"))
    assert shared.ctl("stop", "workers:workers_01").returncode == 0
    text = "the application's handler has run 15"
    wait_until(lambda: text in shared.log("workers_01")[before:], 10, "the handler's line")
    assert shared.ctl("start", "workers:workers_01").returncode == 0
    shared.wait_ready()


def test_sighup_finishes_what_has_begun(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    cluster = make_cluster(workers=1).start()
    pid = cluster.workers()[0]["pid"]
    with socket.create_connection(("127.0.0.1", cluster.port), 20) as sock:
        sock.sendall(f"GET /wait?{tmp_path / 'go'} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        wait_until((tmp_path / "go.begun").exists, 10, "the request has begun")
        os.kill(pid, signal.SIGHUP)
        wait_until(lambda: cluster.workers("draining"), 10, "draining")
        (tmp_path / "go").touch()
        assert sock.recv(65536).endswith(str(pid).encode())
    wait_for_successor(cluster, "workers:workers_00", pid)


@pytest.mark.long
def test_a_router_that_is_stopped_delays_no_end(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=1, drain_timeout="1").start()
    worker, router = cluster.workers()[0]["pid"], cluster.router_pid
    # More idle connections than fit into the channel when they all go back.
    idle = [socket.create_connection(("127.0.0.1", cluster.port), 20) for _ in range(600)]
    for sock in idle:
        sock.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n")
    for sock in idle:
        assert sock.recv(65536)
    os.kill(router, signal.SIGSTOP)
    try:
        os.kill(worker, signal.SIGTERM)
        # drain_timeout, twice the wait for the router, and what is left over; not for ever.
        wait_until(lambda: not psutil.pid_exists(worker), 12, "the worker has ended")
    finally:
        os.kill(router, signal.SIGCONT)
        for sock in idle:
            sock.close()


# --- a start script without exec ----------------------------------------------------


def wrapped(depth: int) -> str:
    command = "supervisor-sio worker cluster_app:app"
    for _ in range(depth):
        command = "sh -c '" + command.replace("'", "'\\''") + "; true'"
    return command


def workers_alive(cluster: Cluster) -> set[int]:
    found = set()
    for process in cluster.processes():
        try:
            line = process.cmdline()
        except psutil.Error:
            continue
        if "worker" in line and not line[0].endswith("sh"):
            found.add(process.pid)
    return found


def stop_workers(cluster: Cluster) -> None:
    """supervisord would not wait for what is behind a script."""
    assert cluster.ctl("stop", "workers:*").returncode == 0
    wait_until(lambda: not workers_alive(cluster), 15, "the workers have ended")


@pytest.mark.long
@ANY_MODE
def test_an_old_worker_behind_start_scripts_ends(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=1, command=wrapped(2)).start()
    for _ in range(2):
        assert cluster.ctl("restart", "workers:*").returncode == 0
    wait_until(lambda: len(workers_alive(cluster)) == 1, 20, "the old ones have ended")
    cluster.wait_ready()
    stop_workers(cluster)


@ANY_MODE
def test_a_worker_behind_a_start_script_ends_with_it(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(command=wrapped(1), workers=1).start()
    row = cluster.workers()[0]
    script = psutil.Process(row["pid"]).ppid()
    os.kill(script, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(row["pid"]), 15, "the worker has ended")
    cluster.wait_ready()
    stop_workers(cluster)


def test_a_worker_behind_a_start_script_ends_with_supervisord(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=1, command=wrapped(2)).start()
    assert cluster.process is not None
    cluster.process.kill()
    cluster.process.wait()
    wait_until(lambda: not cluster.processes(), 20, "all have ended")


def two_rows(cluster: Cluster) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = cluster.status()["workers"]
    return rows if [row["state"] for row in rows] == ["ready", "draining"] else []


@ANY_MODE
def test_two_workers_of_one_name_are_two_rows(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    cluster = make_cluster(command=wrapped(1), workers=1, drain_timeout="60").start()
    (old,) = workers_alive(cluster)
    with socket.create_connection(("127.0.0.1", cluster.port), 20) as sock:
        sock.sendall(f"GET /wait?{tmp_path / 'go'} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        wait_until((tmp_path / "go.begun").exists, 10, "the request has begun")
        assert cluster.ctl("restart", "workers:*").returncode == 0
        rows = wait_until(lambda: two_rows(cluster), 20, "the new one is ready, the old one drains")
        assert [row["name"] for row in rows] == ["workers:workers_00"] * 2
        assert {row["pid"] for row in rows} == workers_alive(cluster) and rows[1]["pid"] == old
        assert cluster.ctl("sio", "status").stdout.count("workers_00") == 2
        (tmp_path / "go").touch()
        assert sock.recv(65536).endswith(str(old).encode())
    wait_until(lambda: old not in workers_alive(cluster), 15, "the old one has ended")
    wait_until(lambda: len(cluster.status()["workers"]) == 1, 5, "one row is left")
    stop_workers(cluster)


@ANY_MODE
def test_a_client_of_a_worker_behind_a_script_reconnects(
    make_cluster: ClusterFactory, clients: Clients
) -> None:
    cluster = make_cluster(command=wrapped(1), workers=1).start()
    client = clients.connect(cluster, "python", ["websocket"])
    old = client.whoami()["pid"]
    assert cluster.ctl("restart", "workers:*").returncode == 0
    client.wait_disconnected()
    client.wait_talking()
    assert client.whoami()["pid"] != old
    clients.close()  # else it would wait for a worker
    stop_workers(cluster)
