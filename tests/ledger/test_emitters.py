"""Emits of processes that have the application, or a part of it, and serve nobody."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.conftest import Clients, ClusterFactory
from cluster.harness import Cluster, server_environment
from cluster.modes import ANY_MODE, NO_WORKER
from cluster.recorder import TestClient

from ledger.pairs import connect_pair

HERE = Path(__file__).parent
Pair = tuple[TestClient, TestClient]


@pytest.fixture(scope="module")
def shared(make_module_cluster: ClusterFactory) -> Cluster:
    return make_module_cluster(here=HERE, command="supervisor-sio worker manager_app:app").start()


@pytest.fixture
def pair(shared: Cluster, clients: Clients) -> Iterator[Pair]:
    """Two clients of different workers."""
    yield connect_pair(clients, shared)


def emit(run_dir: Path, way: str, event: str, text: str) -> str:
    """What the process prints; it ends by itself."""
    done = subprocess.run(
        [sys.executable, "emitting.py", way, event, text],
        cwd=HERE,
        env=server_environment(SUPERVISOR_SIO_RUN_DIR=str(run_dir)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def gather(pair: Pair, event: str, count: int) -> None:
    """Everybody gets it so often, and not once more."""
    for client in pair:
        client.wait_for(event, count)
    pair[0].call("server_call", "emit", ["end-" + event, None], {})
    for client in pair:
        client.wait_for("end-" + event)
        assert len(client.received(event)) == count


@pytest.mark.parametrize(
    ("way", "count"),
    [
        ("with_the_application", 1),
        ("in_threads", 4),
        ("after_a_fork", 2),
        ("in_asyncio", 1),
        ("in_tasks", 4),
    ],
)
@pytest.mark.parametrize("length", [5, 100_000])
@ANY_MODE
def test_the_first_emit_arrives_too(
    shared: Cluster, pair: Pair, way: str, count: int, length: int
) -> None:
    event, text = f"{way}-{length}", "x" * length
    emit(shared.run_dir, way, event, text)
    gather(pair, event, count)
    assert pair[0].received(event)[0] == [text]


def test_rooms_and_disconnects_reach_the_worker(
    shared: Cluster, pair: Pair, clients: Clients
) -> None:
    """And what would wait for an answer raises."""
    client = clients.connect(shared, transports=["websocket"])
    printed = emit(shared.run_dir, "with_rooms_and_disconnects", "n", f"{client.sid()} a-room")
    assert printed == ""
    assert client.wait_for("n") == [["to the room"]]
    client.wait_disconnected()
    assert pair[0].received("n") == pair[1].received("question") == []


@NO_WORKER
def test_flask_socketio_without_an_application(shared: Cluster, pair: Pair) -> None:
    emit(shared.run_dir, "with_flask_socketio", "celery", "task")
    gather(pair, "celery", 1)
    assert pair[1].received("celery") == [[{"text": "task"}]]


DEADLOCK = """\
import os, signal, sys, threading, time
from supervisor_sio import RelayUnreachable, ZmqManager
from supervisor_sio.cluster import relaying
relaying._JOIN_TIMEOUT = 1
manager = ZmqManager(write_only=True)

def emit():
    try:
        manager.emit("n", 1)
    except RelayUnreachable:
        pass

threading.Thread(target=emit).start()  # waits for a relay that is not there
time.sleep(0.3)
pid = os.fork()
signal.alarm(50)
emit()
os.write(1, b"parent " if pid else b"child ")  # in one piece
if pid:
    os.wait()
os._exit(0)
"""


@NO_WORKER
def test_a_fork_while_another_thread_emits_first_does_not_deadlock_the_child(
    tmp_path: Path,
) -> None:
    (tmp_path / "cluster.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-c", DEADLOCK],
        env=server_environment(SUPERVISOR_SIO_RUN_DIR=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == ["child", "parent"]
