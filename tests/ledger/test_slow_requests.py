"""Heads and bodies a byte at a time: each has an end."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest
from cluster.conftest import ClusterFactory
from cluster.harness import Cluster, wait_until

from .victim import descriptors


@pytest.fixture(scope="module")
def cluster(make_module_cluster: ClusterFactory) -> Cluster:
    return make_module_cluster(workers=1, head_timeout="1").start()


def connect(cluster: Cluster) -> socket.socket:
    return socket.create_connection(("127.0.0.1", cluster.port), timeout=20)


def drip(sock: socket.socket, data: bytes, seconds: float) -> tuple[float, bytes]:
    """Send a byte every 0.2 s until there is an answer; how long that took."""
    began = time.monotonic()
    sock.settimeout(0.2)
    for byte in data:
        with contextlib.suppress(ConnectionError):
            sock.send(bytes([byte]))
        try:
            answer = sock.recv(65536)
            return time.monotonic() - began, answer
        except TimeoutError:
            assert time.monotonic() - began < seconds, "still there"
    raise AssertionError("the data was too short")


@pytest.mark.parametrize("kept", [False, True], ids=["first", "kept"])
def test_a_head_has_a_deadline(cluster: Cluster, kept: bool) -> None:
    with connect(cluster) as sock:
        if kept:
            sock.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
        sock.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\n")
        elapsed, answer = drip(sock, b"X: " + b"x" * 100, 19)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert 0.9 < elapsed


def test_slow_heads_give_their_descriptors_back(cluster: Cluster) -> None:
    (row,) = cluster.workers()
    before = descriptors(row["pid"])
    slow = [connect(cluster) for _ in range(200)]
    for sock in slow:
        sock.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\n")
    for sock in slow:
        with sock, contextlib.suppress(ConnectionError):
            assert sock.recv(65536).startswith(b"HTTP/1.1 408 ")
    wait_until(lambda: descriptors(row["pid"]) <= before + 2, 15, "they are out")


def test_an_unfinished_head_does_not_stretch_a_restart(make_cluster: ClusterFactory) -> None:
    """It goes to the next worker with what has been read of it."""
    cluster = make_cluster(workers=2, head_timeout="60", drain_timeout="30").start()
    slow = [connect(cluster) for _ in range(20)]
    for sock in slow:
        sock.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\nX: ")
    wait_until(
        lambda: sum(row["connections"] for row in cluster.status()["workers"]) == 20, 10, "in"
    )
    assert cluster.ctl("restart", "workers:*").returncode == 0
    cluster.wait_ready()
    assert "SIGKILL" not in cluster.log("supervisord")  # after 15 seconds it is sent
    pids = {row["pid"] for row in cluster.workers()}
    for sock in slow:
        sock.sendall(b"y\r\n\r\n")
        answer = sock.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200 ") and int(answer.rpartition(b"\n")[2]) in pids
        sock.close()
