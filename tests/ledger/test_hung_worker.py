"""A worker that hangs costs the router a bounded number of descriptors, for a bounded time."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack

import pytest
from cluster.conftest import ClusterFactory
from cluster.harness import Cluster, wait_until
from cluster.modes import NO_WORKER
from cluster.raw import PATH, Poller

from .victim import descriptors

#: The kernel keeps about this many for a worker that does not read: its share of the
#: 208 KiB of a socket. They are that worker's already, and no descriptors of the router.
IN_KERNEL = 300


def session_at(cluster: Cluster, tag: str) -> Poller:
    while True:
        poller = Poller(cluster.port)
        poller.open()
        poller.join()
        if poller.sid.startswith(tag + "."):
            return poller


def poll(cluster: Cluster, sid: str) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", cluster.port), timeout=20)
    sock.sendall(f"GET {PATH}polling&sid={sid} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return sock


@pytest.mark.long  # unit/router/test_placement.py has it without the kernel
@NO_WORKER
def test_requests_for_a_hung_worker_are_counted_and_end(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(max_pending="160", hold_timeout="8").start()
    hung, well = cluster.workers()
    victim, other = session_at(cluster, hung["tag"]), session_at(cluster, well["tag"])
    before = descriptors(cluster.router_pid)

    def waiting() -> int:
        return int(cluster.status()["router"]["waiting"])

    def refused(reason: str) -> int:
        return int(cluster.status()["router"]["refused"].get(reason, 0))

    os.kill(hung["pid"], signal.SIGSTOP)
    try:
        with ExitStack() as stack:
            polls = [stack.enter_context(poll(cluster, victim.sid)) for _ in range(600)]
            wait_until(lambda: refused("worker-share") >= 600 - IN_KERNEL - 40, 10, "a share")
            assert 0 < waiting() <= 40
            assert descriptors(cluster.router_pid) <= before + 50
            for _ in range(20):  # not one of them waits for the worker that hangs
                assert other.call("echo", "there") == "there"
            answer = polls[-1].recv(1000)
            assert answer.startswith(b"HTTP/1.1 503 ") and b"\r\nRetry-After: " in answer
            # Those who stay are answered when their time is up.
            wait_until(lambda: refused("hold-timeout") > 0 and not waiting(), 15, "deadlines")
            # Those who leave are not kept until then.
            again = [poll(cluster, victim.sid) for _ in range(20)]
            wait_until(lambda: waiting() == 20, 5, "they wait")
            expired = refused("hold-timeout")
            for sock in again:
                sock.close()
            wait_until(lambda: not waiting(), 4, "they are let go")
            assert refused("hold-timeout") == expired, "they were kept until their time was up"
            assert descriptors(cluster.router_pid) <= before + 10
    finally:
        os.kill(hung["pid"], signal.SIGCONT)
    wait_until(lambda: not cluster.workers("hung"), 10, "it is back")
    assert session_at(cluster, hung["tag"]).call("echo", "back") == "back"


@NO_WORKER
def test_one_address_does_not_take_every_place_of_those_who_wait(
    make_cluster: ClusterFactory,
) -> None:
    cluster = make_cluster(workers=1, max_pending="40").start()
    assert cluster.ctl("stop", "workers:*").returncode == 0
    request = f"GET {PATH}polling HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()

    def ask(address: str) -> socket.socket:
        sock = socket.create_connection(
            ("127.0.0.1", cluster.port), timeout=30, source_address=(address, 0)
        )
        sock.sendall(request)
        return sock

    with ExitStack() as stack:
        flood = [stack.enter_context(ask("127.0.0.9")) for _ in range(60)]
        wait_until(
            lambda: cluster.status()["router"]["refused"].get("max-pending") == 20, 10, "full"
        )
        others = [stack.enter_context(ask(f"127.0.1.{n}")) for n in range(1, 31)]
        wait_until(
            lambda: cluster.status()["router"]["refused"].get("address-share") == 30, 10, "room"
        )
        assert cluster.ctl("start", "workers:*").returncode == 0
        assert all(sock.recv(1000).startswith(b"HTTP/1.1 200 ") for sock in others)
        answers = [sock.recv(1000)[9:12] for sock in flood]
        assert answers == [b"200"] * 10 + [b"503"] * 50
