"""Who waits at the router is found by the next one, however this one ends."""

from __future__ import annotations

import resource
import socket
from contextlib import ExitStack

import pytest
from cluster.conftest import ClusterFactory
from cluster.descriptors import COUNTED, limit_descriptors
from cluster.harness import Cluster, wait_until, wait_until_idle
from cluster.modes import NO_WORKER
from cluster.raw import PATH

from .victim import descriptors

pytestmark = NO_WORKER

REQUEST = f"GET {PATH}polling HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()


def waiting(cluster: Cluster) -> int:
    return int(cluster.status()["router"]["waiting"])


def read_all(sock: socket.socket) -> bytes:
    data = b""
    while more := sock.recv(65536):
        data += more
    return data


@pytest.mark.parametrize("how", ["kill", "restart"])
def test_all_who_wait_are_answered_by_the_next_router(
    make_cluster: ClusterFactory, how: str
) -> None:
    cluster = make_cluster(workers=1, hold_timeout="90", head_timeout="60").start()
    assert cluster.ctl("stop", "workers:*").returncode == 0
    with ExitStack() as stack:
        socks = []
        for _ in range(100):
            sock = socket.create_connection(("127.0.0.1", cluster.port), timeout=60)
            socks.append(stack.enter_context(sock))
            sock.sendall(REQUEST)
        # One whose request line came in pieces.
        slow = stack.enter_context(socket.create_connection(("127.0.0.1", cluster.port), 60))
        slow.sendall(REQUEST[:10])
        wait_until(lambda: waiting(cluster) == 101, 10, "they wait")
        slow.sendall(REQUEST[10:])
        wait_until_idle(cluster.router_pid)
        assert waiting(cluster) == 101
        for _ in range(2):
            cluster.end_router(how)
            wait_until(lambda: waiting(cluster) == 101, 20, "they wait at the next")
        assert cluster.ctl("start", "workers:*").returncode == 0
        for sock in [*socks, slow]:
            assert read_all(sock).startswith(b"HTTP/1.1 200 ")  # to the end of the connection
    assert not cluster.status()["router"]["refused"]
    wait_until(lambda: waiting(cluster) == 0, 5, "nobody waits")
    wait_until(lambda: descriptors(cluster.router_pid) < 80, 5, "the router has none of them")


def test_more_wait_than_supervisord_may_send_descriptors(make_cluster: ClusterFactory) -> None:
    """Those who wait are on their way, too, and its user may have no more there."""
    cluster = make_cluster(workers=1, wrapper=COUNTED, hold_timeout="90").start()
    assert cluster.ctl("stop", "workers:*").returncode == 0
    limit_descriptors(cluster.pid, 20)
    limit = resource.prlimit(cluster.pid, resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        socks = []
        for _ in range(2 * limit[0]):
            sock = socket.create_connection(("127.0.0.1", cluster.port), timeout=60)
            socks.append(stack.enter_context(sock))
            sock.sendall(REQUEST)
        wait_until(lambda: waiting(cluster) == len(socks), 10, "they wait")
        wait_until_idle(cluster.router_pid)
        cluster.end_router("kill")
        wait_until(lambda: waiting(cluster) == len(socks), 20, "they wait at the next")
        assert resource.prlimit(cluster.pid, resource.RLIMIT_NOFILE) == limit
        assert cluster.ctl("start", "workers:*").returncode == 0
        for sock in socks:
            assert read_all(sock).startswith(b"HTTP/1.1 200 ")
    assert not cluster.status()["router"]["refused"]


def test_the_time_to_wait_goes_on_over_a_restart(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=1, hold_timeout="6").start()
    assert cluster.ctl("stop", "workers:*").returncode == 0
    with socket.create_connection(("127.0.0.1", cluster.port), timeout=60) as sock:
        sock.sendall(REQUEST)
        wait_until(lambda: waiting(cluster) == 1, 10, "it waits")
        wait_until_idle(cluster.router_pid)
        cluster.end_router("kill")
        answer = read_all(sock)
        assert answer.startswith(b"HTTP/1.1 503 ") and b"\r\nRetry-After: " in answer
    wait_until(
        lambda: cluster.status()["router"]["refused"] == {"hold-timeout": 1}, 5, "it is counted"
    )


def test_nobody_waits_for_a_supervisord_that_stops(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=1).start()
    assert cluster.ctl("stop", "workers:*").returncode == 0
    with socket.create_connection(("127.0.0.1", cluster.port), timeout=60) as sock:
        sock.sendall(REQUEST)
        wait_until(lambda: waiting(cluster) == 1, 5, "it waits")
        cluster.ctl("shutdown")
        assert read_all(sock).startswith(b"HTTP/1.1 503 ")
