"""Who waits too long, comes in too great a number, or is no worker at all."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from supervisor_sio.common import channel

from .conftest import ClusterFactory
from .descriptors import COUNTED, limit_descriptors
from .harness import Cluster, wait_until
from .modes import NO_HANDLER, NO_WORKER
from .raw import PATH, Poller, exchange

pytestmark = NO_HANDLER

HANDSHAKE = f"GET {PATH}polling HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()


def router(cluster: Cluster) -> dict[str, Any]:
    figures: dict[str, Any] = cluster.status()["router"]
    return figures


def wait_for(cluster: Cluster, condition: Callable[[dict[str, Any]], object]) -> None:
    wait_until(lambda: condition(router(cluster)), 10, "figures")


def open_slowly(cluster: Cluster) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", cluster.port), timeout=20)
    sock.sendall(b"GET /sl")
    return sock


def keep_alive(cluster: Cluster) -> socket.socket:
    """An idle connection; its first request has been answered, if it was."""
    sock = socket.create_connection(("127.0.0.1", cluster.port), timeout=20)
    sock.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n")
    return sock


def is_answered(sock: socket.socket, start: bytes = b"HTTP/1.1 200") -> bool:
    try:
        return sock.recv(65536).startswith(start)
    except ConnectionError:
        return False


@NO_WORKER
def test_a_slow_head_is_turned_away(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=1, head_timeout="1").start()
    began = time.monotonic()
    with open_slowly(cluster) as sock:
        assert sock.recv(100).startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began < 9  # by default it is 10
    wait_for(cluster, lambda r: r["refused"] == {"head-timeout": 1} and not r["waiting"])


def test_a_kept_connection_ends_when_nothing_comes(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=1, keepalive_timeout="1").start()
    with keep_alive(cluster) as sock:
        assert is_answered(sock)
        began = time.monotonic()
        while sock.recv(65536):  # of the answer
            began = time.monotonic()
        assert 0.5 < time.monotonic() - began < 15
    wait_for(cluster, lambda r: not r["waiting"] and not r["refused"])


@NO_WORKER
def test_nobody_waits_longer_than_hold_timeout(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=1, hold_timeout="1").start()
    assert cluster.ctl("stop", "workers:*").returncode == 0
    answer = exchange(cluster.port, HANDSHAKE)
    assert answer.startswith(b"HTTP/1.1 503 ") and b"\r\nRetry-After: " in answer
    wait_for(cluster, lambda r: r["refused"] == {"hold-timeout": 1})


@NO_WORKER
def test_max_pending(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=1, max_pending="8").start()
    assert cluster.ctl("stop", "workers:*").returncode == 0
    with ThreadPoolExecutor(12) as pool:
        answers = [pool.submit(exchange, cluster.port, HANDSHAKE) for _ in range(12)]
        wait_for(cluster, lambda r: (r["waiting"], r["refused"]) == (8, {"max-pending": 4}))
        assert cluster.ctl("start", "workers:*").returncode == 0
        statuses = sorted(answer.result()[9:12] for answer in answers)
    assert statuses == [b"200"] * 8 + [b"503"] * 4


@NO_WORKER
def test_who_waits_is_found_when_the_router_starts_again(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=1).start()
    idle = keep_alive(cluster)
    assert is_answered(idle)
    assert cluster.ctl("stop", "workers:*").returncode == 0
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(exchange, cluster.port, HANDSHAKE) for _ in range(4)]
        wait_for(cluster, lambda r: r["waiting"] == 5)
        assert cluster.ctl("stop", "sio").returncode == 0
        assert cluster.ctl("start", "sio", "workers:*").returncode == 0
        assert all(answer.result().startswith(b"HTTP/1.1 200 ") for answer in answers)
    idle.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n")
    assert is_answered(idle)
    idle.close()


@NO_WORKER
def test_idle_and_abandoned_connections_take_no_ones_place(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=1, max_pending="8").start()
    idle = [keep_alive(cluster) for _ in range(10)]
    assert all(is_answered(sock) for sock in idle)
    assert cluster.ctl("stop", "workers:*").returncode == 0
    wait_for(cluster, lambda r: (r["waiting"], r["refused"]) == (8, {"max-pending": 2}))
    with contextlib.ExitStack() as requests:
        for _ in range(8):
            sock = socket.create_connection(("127.0.0.1", cluster.port), timeout=20)
            requests.enter_context(sock)
            sock.sendall(HANDSHAKE)
        # An idle one made room for each.
        wait_for(cluster, lambda r: (r["waiting"], r["refused"].get("idle")) == (8, 8))
    wait_for(cluster, lambda r: r["refused"].get("closed-early") == 8)
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(exchange, cluster.port, HANDSHAKE) for _ in range(4)]
        wait_for(cluster, lambda r: r["waiting"] == 4)
        assert cluster.ctl("start", "workers:*").returncode == 0
        assert all(answer.result().startswith(b"HTTP/1.1 200 ") for answer in answers)
    assert router(cluster)["refused"]["max-pending"] == 2
    for sock in idle:
        sock.close()


@NO_WORKER
def test_one_address_has_a_share(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=1, max_pending="40").start()
    slow = [open_slowly(cluster) for _ in range(30)]
    wait_for(cluster, lambda r: (r["waiting"], r["refused"]) == (10, {"address-share": 20}))
    Poller(cluster.port).open()  # a request in one piece does not wait
    assert sum(sock.recv(12) == b"HTTP/1.1 503" for sock in slow[10:]) == 20
    for sock in slow:
        sock.close()
    wait_for(cluster, lambda r: not r["waiting"])


# --- descriptors ----------------------------------------------------------------------


def pids(cluster: Cluster) -> list[int]:
    return sorted([cluster.router_pid, *(row["pid"] for row in cluster.workers())])


def are_same(cluster: Cluster, before: list[int]) -> None:
    """No process has ended, and the workers are ready, as soon as they have got over it."""
    wait_until(lambda: pids(cluster) == before, 10, "the same processes")


def test_router_and_workers_use_what_descriptors_they_may_have(
    make_cluster: ClusterFactory,
) -> None:
    cluster = make_cluster(workers=1, wrapper=["prlimit", "--nofile=1024:3000"]).start()
    for pid in pids(cluster):
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (3000, 3000)
    cluster.wait_log("router", "max_pending is 1468: the limit of 3000 open files")


@NO_WORKER
def test_more_slow_clients_than_descriptors(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=1).start()
    limit_descriptors(cluster.router_pid, 150)
    before = pids(cluster)
    session, kept = Poller(cluster.port), Poller(cluster.port).connection()
    session.open(kept)
    session.join(kept)
    slow = [open_slowly(cluster) for _ in range(400)]
    wait_until(lambda: "new connections wait in the kernel" in cluster.log("router"), 10, "full")
    # Those who are in stay in: they are given back, and new sessions placed.
    for _ in range(20):
        assert session.call("echo", "x", connection=kept) == "x"
        Poller(cluster.port).open(kept)
    for sock in slow:
        sock.close()
    Poller(cluster.port).open()
    are_same(cluster, before)
    assert "accept-failed" not in cluster.log("router")


@pytest.mark.parametrize("more", [0, 100])
def test_more_clients_than_descriptors_in_a_worker(make_cluster: ClusterFactory, more: int) -> None:
    cluster = make_cluster(workers=1).start()
    before = pids(cluster)
    session, kept = Poller(cluster.port), Poller(cluster.port).connection()
    session.open(kept)
    session.join(kept)
    limit_descriptors(cluster.workers()[0]["pid"], more)
    clients = [keep_alive(cluster) for _ in range(150)]
    answered = sum(is_answered(sock) for sock in clients)
    assert answered == 0 if not more else 0 < answered < more
    refused = socket.create_connection(("127.0.0.1", cluster.port), timeout=20)
    refused.sendall(HANDSHAKE)
    assert not is_answered(refused)
    assert session.call("echo", "x", connection=kept) == "x"
    wait_until(lambda: "no-descriptor" in cluster.log("workers_00"), 5, "the worker's line")
    for sock in [*clients, refused]:
        sock.close()
    are_same(cluster, before)


@pytest.mark.long
def test_more_idle_connections_than_descriptors_come_back(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster().start()
    router_pid = cluster.router_pid
    clients = [keep_alive(cluster) for _ in range(300)]
    assert all(is_answered(sock) for sock in clients)
    limit_descriptors(router_pid, 100)
    assert cluster.ctl("restart", "workers:*").returncode == 0
    cluster.wait_ready()
    assert cluster.router_pid == router_pid
    line = "refused 1 (no-descriptor), last from a worker"
    wait_until(lambda: line in cluster.log("router"), 5, "the router's line")
    for name in ("workers_00", "workers_01"):
        assert "error" not in cluster.log(name)
    assert "exit status 1" not in cluster.log("supervisord")
    Poller(cluster.port).open()
    for sock in clients:
        sock.close()


@NO_WORKER
def test_more_are_on_their_way_to_a_hung_worker_than_its_user_may_have(
    make_cluster: ClusterFactory,
) -> None:
    cluster = make_cluster(wrapper=COUNTED, balance="round-robin").start()
    limit_descriptors(cluster.router_pid, 120)
    hung = cluster.workers()[0]["pid"]
    os.kill(hung, signal.SIGSTOP)
    try:
        clients = [
            socket.create_connection(("127.0.0.1", cluster.port), timeout=20) for _ in range(500)
        ]
        for sock in clients:
            sock.sendall(HANDSHAKE)
        wait_until(lambda: channel.ON_THEIR_WAY in cluster.log("router"), 10, "the router's line")
    finally:
        os.kill(hung, signal.SIGCONT)
    assert all(is_answered(sock) for sock in clients)
    wait_for(cluster, lambda figures: not figures["waiting"])
    cluster.wait_ready(2)
    assert not router(cluster)["refused"]
    for sock in clients:
        sock.close()


def test_a_worker_for_whom_no_descriptor_is_free_waits(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=1).start()
    pid = cluster.router_pid
    limit = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    began = time.monotonic()
    limit_descriptors(pid, 0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(20)
        sock.connect(str(cluster.run_dir / "router.sock"))
        wait_for(cluster, lambda r: r["refused"].get("worker-accept-failed"))
        time.sleep(1)
        failed = router(cluster)["refused"]["worker-accept-failed"]
        assert failed < 30 * (time.monotonic() - began), "it tries without a pause"
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
        channel.send(sock, {"type": "hello", "version": 99})
        assert b"version 99" in sock.recv(65536)


def test_random_starts_of_connections(shared_pair: Cluster) -> None:
    """2,000 of them, some cut off, some reset; the router is the same afterwards."""
    dice = random.Random()
    began = time.monotonic()
    before = router(shared_pair)
    descriptors = len(os.listdir(f"/proc/{before['pid']}/fd"))
    seeds = [HANDSHAKE, b"\x16\x03\x01\x02\x00\x01", b"PRI * HTTP/2.0\r\n\r\n", b"PROXY TCP4 "]

    def try_one(number: int) -> None:
        data = bytearray(seeds[number % len(seeds)] * (1 + number % 2))
        for _ in range(number % 4):
            data[dice.randrange(len(data))] = dice.randrange(256)
        del data[dice.randrange(len(data)) :]
        with socket.create_connection(("127.0.0.1", shared_pair.port), timeout=20) as sock:
            if number % 3 == 0:  # close with a reset
                linger = b"\1\0\0\0\0\0\0\0"
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            try:
                sock.sendall(data)
            except ConnectionError:
                pass

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(try_one, range(2000)))
    wait_until(
        lambda: len(os.listdir(f"/proc/{before['pid']}/fd")) <= descriptors, 5, "no descriptor left"
    )
    assert router(shared_pair)["pid"] == before["pid"]
    Poller(shared_pair.port).open()
    lines = [line for line in shared_pair.log("router").splitlines() if "refused" in line]
    assert len(lines) < max(200, 10 * (time.monotonic() - began)), "a line for every refusal"


def refusal(cluster: Cluster, *messages: dict[str, Any]) -> str:
    """What the router says to a worker that starts like this, before it hangs up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(20)
        sock.connect(str(cluster.run_dir / "router.sock"))
        for message in messages:
            channel.send(sock, message)
        said = ""
        while data := sock.recv(65536):
            said = data.decode()
        return said


@NO_WORKER
def test_false_workers(shared_pair: Cluster) -> None:
    living = shared_pair.workers()[0]
    hello = {"type": "hello", "version": channel.VERSION, "tag": "fffffff0", "name": "false"}
    counted = router(shared_pair)["refused"].get("bad-worker", 0)
    for messages, reason in (
        ([{**hello, "version": 99}], "version 99"),
        ([{**hello, "tag": living["tag"]}], f"tag {living['tag']} belongs to pid {living['pid']}"),
        ([{**hello, "tag": 7}], "without tag"),
        ([{**hello, "name": "\0\x1b"}], "without tag"),
        ([hello, {"type": "load", "sessions": float("inf")}], "'sessions' is not a count"),
        ([{"type": "ready"}], "expected hello"),
        ([hello, {"type": "load", "sessions": "many"}], "'sessions' is not a count"),
        ([hello, {"type": "connection"}], "unknown type"),
        ([hello, {"type": "conquer"}], "unknown type"),
    ):
        assert reason in refusal(shared_pair, *messages)
    wait_for(shared_pair, lambda r: r["refused"].get("bad-worker") == counted + 5)
    assert [row["name"] for row in shared_pair.workers()].count("false") == 0
    for _ in range(8):
        Poller(shared_pair.port).open()
