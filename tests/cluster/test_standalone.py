"""The same application by hand on a laptop, and other ways to write one."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from typing import Any
from urllib.request import urlopen

import pytest

from .conftest import Clients, ClusterFactory
from .harness import HERE, free_port, server_environment, wait_until
from .modes import WSGI


class Server:
    """What clients need to know of a server."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serves_by_hand_without_supervisord(clients: Clients, number: int) -> None:
    server = Server(free_port())
    with subprocess.Popen(
        [sys.executable, "standalone_app.py", f"127.0.0.1:{server.port}"],
        cwd=HERE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=server_environment(),
    ) as process:
        try:
            wait_until(server.listens, 20, "listening")
            made: list[Any] = [
                clients.connect(server, kind, transports)
                for kind in ("python", "node")
                for transports in (["polling"], ["websocket"], None)
            ]
            made[0].call("emit_all", "hello", b"all", {})
            for client in made:
                assert client.wait_for("hello") == [[b"all"]]
                assert client.whoami()["pid"] == process.pid
            assert urlopen(f"{server.url}/pid").read() == str(process.pid).encode()
            process.send_signal(number)
            assert process.wait(30) == 0
        finally:
            process.kill()
        assert process.stdout is not None
        output = process.stdout.read()
    assert f"127.0.0.1:{server.port}" in output and "Traceback" not in output


def test_the_default_is_port_8000_of_this_host_only(clients: Clients) -> None:
    server = Server(8000)
    with subprocess.Popen(
        [sys.executable, "standalone_app.py"],
        cwd=HERE,
        stderr=subprocess.PIPE,
        text=True,
        env=server_environment(),
    ) as process:
        assert process.stderr is not None
        try:
            said = next(line for line in process.stderr if "127.0.0.1:8000" in line)
            if "address already in use" in said:  # somebody else on this host has it
                assert process.wait(60) == 1
            else:
                wait_until(server.listens, 20, "listening")
                assert clients.connect(server).whoami()["pid"] == process.pid
        finally:
            process.terminate()


def test_a_program_that_serves_itself_joins_the_cluster(
    make_cluster: ClusterFactory, clients: Clients
) -> None:
    cluster = make_cluster(command=f"{sys.executable} standalone_app.py").start()
    made = [clients.connect(cluster) for _ in range(4)]
    assert {c.whoami()["pid"] for c in made} == {row["pid"] for row in cluster.workers()}
    made[0].call("emit_all", "hello", 1, {})
    for client in made:
        assert client.wait_for("hello") == [[1]]


@WSGI
def test_flask_socketio(make_cluster: ClusterFactory, clients: Clients) -> None:
    cluster = make_cluster(command="supervisor-sio worker flask_app:app").start()
    made = clients.mixed(cluster, 6)
    pids = {row["pid"] for row in cluster.workers()}
    assert {client.whoami()["pid"] for client in made} == pids
    made[0].emit("say", {"b": b"bytes"})
    for client in made:
        assert client.wait_for("said") == [[{"b": b"bytes"}]]
        assert client.call("echo", b"x", 1) == [b"x", 1]
    assert int(urlopen(f"{cluster.url}/pid").read()) in pids
