"""The relay from outside: who gets a message, what garbage does, and processes that only emit."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import zmq

from supervisor_sio.common.limits import RELAY_WAITING
from supervisor_sio.relay.message import RelayMessage, topic_for_all, topic_for_one

from .conftest import Clients, ClusterFactory
from .harness import Cluster, server_environment, wait_until
from .modes import ANY_MODE, NO_WORKER
from .recorder import TestClient


def received(cluster: Cluster) -> dict[int, int]:
    """Messages that each worker has received, by pid."""
    return {row["pid"]: row["received"] for row in cluster.status()["workers"]}


def settled(cluster: Cluster) -> dict[int, int]:
    """The same, once it has stayed as it is for longer than figures take."""
    last, since = received(cluster), time.monotonic()
    while time.monotonic() < since + 2.5:
        time.sleep(0.1)
        now = received(cluster)
        if now != last:
            last, since = now, time.monotonic()
    return last


@pytest.mark.long
@ANY_MODE
def test_what_is_for_one_client_reaches_its_worker_only(
    make_cluster: ClusterFactory, clients: Clients
) -> None:
    cluster = make_cluster(workers=4).start()
    made = [clients.connect(cluster, "python", ["websocket"]) for _ in range(4)]
    by_pid = {client.whoami()["pid"]: client for client in made}
    assert len(by_pid) == 4
    (_, here), (pid, there), *_ = by_pid.items()
    before = settled(cluster)
    for number in range(100):
        here.call("emit_all", "psst", number, {"to": there.sid()})
    here.call("call_sid", there.sid(), "question", 1)
    here.call("enter_room_of", there.sid(), "room")
    here.call("leave_room_of", there.sid(), "room")
    here.call("disconnect_sid", there.sid())
    there.wait_disconnected()
    # The question's answer is the one message that goes the other way.
    expected = {worker: 0 for worker in before}
    expected[pid] = 100 + 1 + 1 + 1 + 1
    expected[here.whoami()["pid"]] = 1
    wanted = {worker: before[worker] + count for worker, count in expected.items()}
    with contextlib.suppress(AssertionError):  # what has come says more
        wait_until(lambda: received(cluster) == wanted, 5, "messages")
    after = settled(cluster)
    assert {worker: after[worker] - before[worker] for worker in after} == expected


@pytest.fixture(scope="module")
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    yield shared_cluster


@NO_WORKER
def test_the_relay_is_reachable_through_its_directory_only(cluster: Cluster) -> None:
    assert stat.S_IMODE(cluster.run_dir.stat().st_mode) == 0o700
    pids = [cluster.router_pid, *(row["pid"] for row in cluster.workers())]
    listening = {
        connection.laddr
        for pid in pids
        for connection in psutil.Process(pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {address.port for address in listening} == {cluster.port}


def malformed_messages(tag: str) -> Iterator[list[bytes]]:
    """Messages under real topics that no worker sends, each of one or more frames."""
    chance = random.Random(7)
    topics = [topic_for_all("socketio"), topic_for_one("socketio", tag)]
    fields: list[Any] = [
        {"method": "emit"},
        {"method": "emit", "namespace": 5, "packet": "x"},
        {"method": "emit", "namespace": "/", "packet": "x", "room": {}},
        {"method": "emit", "namespace": "/", "packet": "x", "skip_sid": 7},
        {"method": "emit", "namespace": "/", "packet": "another", "room": "x"},
        {"method": "callback", "ack": "x"},
        {"method": "callback", "ack": 5, "packet": "x"},
        {"method": "disconnect", "sid": []},
        {"method": "request", "request": -1, "operation": "x", "namespace": "/"},
        {"method": "answer", "request": 1},
        {"method": "__class__"},
        {"method": "sockets_join", "rooms": {}, "namespace": "/"},
        {"method": "emit", "namespace": "/", "packet": "x", "after": 9},
    ]
    whole = RelayMessage("forger", 0, {"method": "nothing"}, ("text", b"bytes")).pack()
    for number in range(5_000):
        topic = topics[number % 2]
        kind = number % 7
        if kind == 0:
            yield [topic]
        elif kind == 1:
            yield [topic + chance.randbytes(chance.randrange(200))]
        elif kind == 2:
            yield [topic + whole[: chance.randrange(len(whole))]]
        elif kind == 3:
            yield [topic + whole]  # an unknown method
        elif kind == 4:
            yield [topic, whole, b"more"]
        elif kind == 5:
            # A sender of its own each, or what is missing before it would be waited for.
            forged = RelayMessage(f"forger{number}", 1, fields[number % len(fields)], ("{",))
            yield [topic + forged.pack()]
        else:
            yield [topic + RelayMessage("forger", 0, {"method": "again", "first": 1}).pack()]


@pytest.fixture
def publisher(cluster: Cluster) -> Iterator[zmq.Socket[bytes]]:
    """Of no process of the cluster."""
    context = zmq.Context()
    sock = context.socket(zmq.PUB)
    sock.setsockopt(zmq.SNDHWM, 0)
    sock.connect(f"ipc://{cluster.run_dir}/xsub.sock")
    yield sock
    context.destroy(0)  # one that is left open stops the process when it is collected


@ANY_MODE
def test_malformed_messages_are_counted_and_harm_nobody(
    cluster: Cluster, clients: Clients, publisher: zmq.Socket[bytes]
) -> None:
    made = clients.mixed(cluster, 8)
    pids = [row["pid"] for row in cluster.workers()]
    victim = cluster.workers()[0]
    # It is heard once garbage is counted.
    probe = topic_for_one("socketio", victim["tag"]) + b"probe"

    def counted() -> int:
        return int(cluster.status()["relay"]["malformed"])

    before = counted()
    probes = 0

    def heard() -> bool:
        nonlocal probes
        publisher.send(probe)
        probes += 1
        return counted() > before

    wait_until(heard, 10, "the relay hears the publisher")
    sent = 0
    expected = before + probes
    for frames in malformed_messages(victim["tag"]):
        publisher.send_multipart(frames)
        sent += 1
        # What is for all comes to four workers, the rest to one.
        expected += 4 if frames[0].startswith(topic_for_all("socketio")) else 1
        if not sent % (RELAY_WAITING // 2):
            # Not more at a time than may wait for a worker: nobody sends these again.
            wait_until(lambda e=expected: counted() >= e - probes, 30, "all are counted")
    wait_until(lambda: counted() >= expected - probes, 30, "all are counted")
    time.sleep(1.2)  # for the figures of the last second: more would be wrong, too
    print(f"{sent} malformed messages, counted {counted() - before}")
    assert counted() <= expected
    wait_until(lambda: [row["pid"] for row in cluster.workers()] == pids, 10, "the same workers")
    made[0].call("emit_all", "after-garbage", {"b": b"1"}, {})
    for client in made:
        assert client.wait_for("after-garbage") == [[{"b": b"1"}]]
    assert not [client.name for client in made if client.disconnects]


EMITTER = """
import sys, time
from supervisor_sio import ZmqManager
emitter = ZmqManager(write_only=True)
event, count, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
for number in range(count):
    emitter.emit(event, number)
    if seconds:
        time.sleep(seconds / count)
"""

PATCHED = {
    "plain": "",
    "eventlet": "import eventlet; eventlet.monkey_patch()\n",
    "gevent": "import gevent.monkey; gevent.monkey.patch_all()\n",
}


def start_emitter(
    cluster: Cluster, event: str, count: int, seconds: float, patch: str = "plain"
) -> subprocess.Popen[bytes]:
    variables = server_environment(SUPERVISOR_SIO_RUN_DIR=str(cluster.run_dir))
    script = PATCHED[patch] + EMITTER
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script, event, str(count), str(seconds)],
        env=variables,
    )


def expect_numbers(clients: list[TestClient], event: str, count: int) -> None:
    for client in clients:
        client.expect_numbers(event, count)


@NO_WORKER
@pytest.mark.parametrize("patch", PATCHED)
def test_a_process_that_emits_once_and_ends(cluster: Cluster, clients: Clients, patch: str) -> None:
    made = [clients.connect(cluster, "node") for _ in range(8)]
    began = time.monotonic()
    process = start_emitter(cluster, "once", 1, 0, patch)
    assert process.wait(60) == 0
    print(f"a process that emits once takes {time.monotonic() - began:.2f} s")
    expect_numbers(made, "once", 1)


@NO_WORKER
def test_a_process_that_only_emits_while_the_router_is_killed(
    cluster: Cluster, clients: Clients
) -> None:
    made = [clients.connect(cluster, "node") for _ in range(8)]
    process = start_emitter(cluster, "through", 600, 3)
    for quarter in (1, 3):
        wait_until(
            lambda quarter=quarter: len(made[0].received("through")) > 150 * quarter, 20, "numbers"
        )
        cluster.end_router("kill")
    assert process.wait(60) == 0
    expect_numbers(made, "through", 600)


@NO_WORKER
def test_a_process_that_ends_while_there_is_no_relay(cluster: Cluster, clients: Clients) -> None:
    """Its last words are with its own sockets only: it stays until they are through."""
    made = [clients.connect(cluster, "node") for _ in range(8)]
    process = start_emitter(cluster, "last-words", 200, 1)
    wait_until(lambda: len(made[0].received("last-words")) > 150, 20, "most")
    old = cluster.router_pid
    os.kill(old, signal.SIGKILL)
    assert process.wait(60) == 0
    expect_numbers(made, "last-words", 200)
    cluster.wait_new_router(old)


@NO_WORKER
def test_supervisorctl_emits(cluster: Cluster, clients: Clients) -> None:
    cluster.wait_ready()
    red, blue = (clients.connect(cluster, kind) for kind in ("python", "node"))
    both = [red, blue]
    red.call("join", "red")
    ctl = cluster.ctl("sio", "emit", "news", '{"a": [1, "two words"]}', "2")
    assert (ctl.returncode, ctl.stdout) == (0, "news: emitted (2 clients)\n")
    for client in both:
        assert client.wait_for("news") == [[{"a": [1, "two words"]}, 2]]
    assert cluster.ctl("sio", "emit", "to-room", "--room", "red").returncode == 0
    assert cluster.ctl("sio", "emit", "to-sid", "1", "--to", blue.sid()).returncode == 0
    assert cluster.ctl("sio", "emit", "last").returncode == 0
    for client in both:
        client.wait_for("last")
    assert [client.received("to-room") for client in both] == [[[]], []]
    assert [client.received("to-sid") for client in both] == [[], [[1]]]
    wrong = cluster.ctl("sio", "emit", "news", "hello")
    assert wrong.returncode == 2
    assert wrong.stdout == (
        "Error: not JSON: hello; a string needs its quotes, as in '\"hello\"'\n"
    )
    long = cluster.ctl("sio", "emit", "news", f'"{"x" * 70_000}"')
    assert long.returncode == 1
    assert "over the limit of 65536" in long.stdout
