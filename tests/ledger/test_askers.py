"""Processes that serve no clients ask those who do: the workers, and their clients."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import socketio
from cluster.conftest import Clients, ClusterFactory
from cluster.harness import Cluster, server_environment, wait_until
from cluster.modes import ANY_MODE, NO_WORKER
from cluster.recorder import TestClient

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def shared(make_module_cluster: ClusterFactory) -> Cluster:
    return make_module_cluster(here=HERE, command="supervisor-sio worker asking_app:app").start()


@pytest.fixture
def client(shared: Cluster, clients: Clients) -> TestClient:
    return clients.connect(shared, transports=["websocket"])


class Asker:
    """A process of ``asking.py`` that is told what to ask, a line at a time."""

    def __init__(self, cluster: Cluster, way: str, sid: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "asking.py", way, sid],
            cwd=HERE,
            env=server_environment(SUPERVISOR_SIO_RUN_DIR=str(cluster.run_dir)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def told(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, line: str) -> Any:
        self.tell(line)
        return self.told()

    def end(self) -> float:
        """Seconds that it takes to end when there is nothing more to ask."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        began = time.monotonic()
        assert self.process.wait(60) == 0
        return time.monotonic() - began


@pytest.fixture
def askers() -> Iterator[list[Asker]]:
    started: list[Asker] = []
    yield started
    for asker in started:
        with asker.process as process:
            process.kill()


@pytest.mark.parametrize(
    "way", ["in_a_script", "with_the_application", "in_asyncio", "in_threads", "after_a_fork"]
)
def test_what_it_asks_is_answered(shared: Cluster, client: TestClient, way: str) -> None:
    assert ask(shared, way, client.sid()) == answers(client)


@ANY_MODE
@pytest.mark.parametrize("library", ["eventlet", "gevent"])
def test_where_a_library_has_replaced_threads(
    shared: Cluster, client: TestClient, library: str
) -> None:
    pytest.importorskip(library)
    assert ask(shared, f"with_{library}", client.sid()) == answers(client)


def ask(cluster: Cluster, way: str, sid: str) -> Any:
    """What the process has got; it ends by itself."""
    done = subprocess.run(
        [sys.executable, "asking.py", way, sid],
        cwd=HERE,
        env=server_environment(SUPERVISOR_SIO_RUN_DIR=str(cluster.run_dir)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


def answers(client: TestClient) -> list[Any]:
    """To the five questions, of that client and two workers."""
    return [["a"], [["a"]], [client.sid()], ["aa", "aa"], 2]


@ANY_MODE
def test_nothing_is_left_of_a_call(
    shared: Cluster, client: TestClient, askers: list[Asker]
) -> None:
    """Not here, and no more than so much in the workers; see REPLIES_KEPT."""
    askers.append(Asker(shared, "again_and_again", client.sid()))
    descriptors, memory = askers[0].ask("300")
    workers = [psutil.Process(row["pid"]) for row in shared.workers()]
    before = [worker.num_fds() for worker in workers]
    later, more = askers[0].ask("1000")
    assert later == descriptors
    assert more - memory < 2 * 1024 * 1024
    # Clients of tests before may still leave.
    assert all(worker.num_fds() <= count + 2 for worker, count in zip(workers, before))
    assert askers[0].end() < 20


@ANY_MODE
def test_what_is_for_others_costs_it_nothing(
    shared: Cluster, client: TestClient, clients: Clients, askers: list[Asker]
) -> None:
    """It does not even receive it."""
    askers.append(Asker(shared, "lines", client.sid()))
    received = "manager._subscriber.received"
    before = askers[0].ask(f"[manager.server_count(), {received}][1]")
    client.call("emit_many", 500)
    client.wait_for("number", 500)
    assert askers[0].ask(received) == before


@ANY_MODE
def test_a_worker_that_dies_is_not_waited_for(
    make_cluster: ClusterFactory, clients: Clients, askers: list[Asker], tmp_path: Path
) -> None:
    cluster = make_cluster(here=HERE, command="supervisor-sio worker asking_app:app").start()
    client = clients.connect(cluster, transports=["websocket"])
    askers.append(Asker(cluster, "lines", client.sid()))
    assert askers[0].ask("manager.server_count()") == 2
    old = [row["pid"] for row in cluster.workers()]
    begin_to_wait(askers[0], tmp_path / "never", old)
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    assert askers[0].told() == [[], 2]
    wait_until(lambda: {row["pid"] for row in cluster.workers()}.isdisjoint(old), 20, "new workers")
    cluster.wait_ready()
    assert sorted(askers[0].ask("manager.server_side_call('double', 2)")) == [4, 4]


@ANY_MODE
@pytest.mark.parametrize("how", ["kill", "restart"])
def test_the_router_restarts(
    shared: Cluster, client: TestClient, askers: list[Asker], how: str, tmp_path: Path
) -> None:
    """Between two calls; and what is answered meanwhile comes late."""
    askers.append(Asker(shared, "lines", client.sid()))
    assert askers[0].ask("manager.call('question', 1, to=sid)['got']") == [1]
    begin_to_wait(askers[0], tmp_path / "end", [row["pid"] for row in shared.workers()])
    if how == "kill":
        os.kill(shared.router_pid, signal.SIGSTOP)  # nothing gets through it any more
        (tmp_path / "end").touch()
        time.sleep(0.3)
    shared.end_router(how)
    (tmp_path / "end").touch()
    assert askers[0].told() == [[1, 1], 0]
    assert askers[0].ask("manager.call('question', 3, to=sid)['got']") == [3]
    assert askers[0].ask("[len(manager.fetch_sockets(room=sid)), manager.server_count()]") == [1, 2]


@ANY_MODE
def test_a_client_answers_when_another_worker_has_it(shared: Cluster, askers: list[Asker]) -> None:
    """Each worker is restarted while the question waits for the client."""
    asked, may_answer = threading.Event(), threading.Event()
    sio = socketio.Client(reconnection=False)

    @sio.event
    def question(value: int) -> int:
        asked.set()
        may_answer.wait(100)
        return value + 1

    sio.connect(shared.url, transports=["websocket"], wait_timeout=60)
    try:
        askers.append(Asker(shared, "lines", sio.get_sid()))
        askers[0].tell("manager.call('question', 1, to=sid, timeout=100)")
        assert asked.wait(60)
        before = {row["pid"] for row in shared.workers()}
        assert shared.ctl("sio", "reload").returncode == 0
        assert before.isdisjoint(row["pid"] for row in shared.workers())
        may_answer.set()
        assert askers[0].told() == 2
    finally:
        may_answer.set()
        sio.disconnect()


def begin_to_wait(asker: Asker, path: Path, pids: list[int]) -> None:
    """It asks these workers, which answer when there is a file of this name."""
    asker.tell(
        f"(lambda a: [a, a.missing])(manager.server_side_call('wait', {str(path)!r}, timeout=1000))"
    )
    for pid in pids:
        begun = Path(f"{path}.{pid}")
        wait_until(begun.exists, 20, "the question has come")


NOBODY = """\
import sys
from supervisor_sio import RelayUnreachable, ZmqManager
from supervisor_sio.cluster import relaying
relaying._JOIN_TIMEOUT = 0.5
try:
    ZmqManager(sys.argv[1]).fetch_sockets()
except RelayUnreachable as error:
    print(error)
"""


@NO_WORKER
def test_there_is_no_relay(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text('{"channel": "socketio"}')
    done = subprocess.run(
        [sys.executable, "-c", NOBODY, f"zmq+ipc://{tmp_path}"],
        env=server_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"no relay answers in {tmp_path}: is supervisord running, with [eventlistener:sio]?\n"
    )
