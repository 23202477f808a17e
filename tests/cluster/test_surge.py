"""``supervisorctl sio reload --surge``: one process more while the others restart."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

import pytest

from .conftest import Clients, ClusterFactory
from .harness import BIN, Cluster, async_mode, environment, wait_until
from .modes import NO_WORKER
from .numbered import numbers
from .recorder import TestClient
from .supervisorctl import done_in

FIRST, SECOND, ADDED = (f"workers:workers_{number:02d}" for number in range(3))


def pids(cluster: Cluster) -> dict[str, int]:
    return {row["name"]: row["pid"] for row in cluster.workers()}


@contextmanager
def watched(cluster: Cluster) -> Iterator[list[int]]:
    """How many workers are ready, again and again."""
    counts: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            counts.append(len(cluster.workers()))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield counts
    finally:
        stop.set()
        thread.join()


#: The chat of each mode.
CHATS = {"eventlet": "chat", "asyncio": "fastapi_chat", "threading": "threaded_chat"}


@pytest.fixture(scope="module")
def shared_chat(make_module_cluster: ClusterFactory) -> Cluster:
    module = f"supervisor_sio.examples.{CHATS[async_mode()]}"
    return make_module_cluster(command=f"supervisor-sio worker {module}:app").start()


@pytest.fixture
def chat(shared_chat: Cluster) -> Cluster:
    """Two workers without clients; each test leaves as many."""
    shared_chat.wait_ready()
    wait_until(lambda: sessions(shared_chat) == [0, 0], 20, "the clients before have gone")
    return shared_chat


def sessions(cluster: Cluster) -> list[int]:
    return [row["sessions"] for row in cluster.workers()]


@pytest.mark.long
@NO_WORKER
def test_there_are_never_fewer_workers_than_usual(chat: Cluster) -> None:
    before = pids(chat)
    with watched(chat) as counts:
        done = chat.ctl("sio", "reload", "--surge", SECOND, "--json")
    assert min(counts) == 2 and max(counts) == 3
    after = pids(chat)
    (worker,) = json.loads(done.stdout)["workers"]
    assert (worker["name"], worker["pid"]) == (SECOND, after[SECOND])
    assert after == {**before, SECOND: worker["pid"]} != before
    assert chat.ctl("reread").stdout == "No config updates to processes\n"


@NO_WORKER
def test_new_code_that_does_not_start_stops_nobody(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(startsecs=1, startretries=0)
    broken = cluster.make_breakable()
    cluster.start()
    before = pids(cluster)
    broken.touch()
    done = cluster.ctl("sio", "reload", "--surge")
    assert done.returncode == 1
    (line,) = done_in(done.stdout)
    assert line.startswith(f"{ADDED}: ERROR (the new process is not ready: it ended)")
    assert line.endswith(f"; supervisorctl sio scale workers 2 removes {ADDED} again")
    assert pids(cluster) == before
    assert cluster.ctl("sio", "scale", "workers", "2").returncode == 0
    assert [row["name"] for row in cluster.status()["workers"]] == [FIRST, SECOND]


@pytest.mark.long
@NO_WORKER
def test_ctrl_c_leaves_what_scale_removes(cluster: Cluster) -> None:
    supervisorctl = subprocess.Popen(
        [BIN / "supervisorctl", "-c", cluster.conf, "sio", "reload", "--surge"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    wait_until(lambda: cluster.workers("drained"), 30, "the first one is drained")
    supervisorctl.send_signal(signal.SIGINT)
    said, _ = supervisorctl.communicate(timeout=20)
    assert said.splitlines()[-1] == (
        f"interrupted; supervisorctl sio scale workers 2 removes {ADDED} again"
    )
    assert supervisorctl.returncode == 1
    cluster.wait_ready(3)
    done = cluster.ctl("sio", "scale", "workers", "2")
    assert done.returncode == 0 and done_in(done.stdout)[0] == f"{ADDED}: removed", done.stdout
    cluster.wait_ready(2)


@pytest.mark.long
@NO_WORKER
def test_a_program_that_can_have_one_process_only(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=1)
    section = cluster.program("alone", "supervisor-sio worker cluster_app:app")
    cluster.extra = section.replace("%(program_name)s_%(process_num)02d\nnumprocs = 1", "alone")
    cluster.spawn()
    cluster.wait_ready(2)
    before = pids(cluster)
    done = cluster.ctl("sio", "reload", "--surge", "alone")
    assert done.returncode == 1
    assert done.stdout == (
        "alone: ERROR ([program:alone] can have 1 process only; for more, write process_name = "
        "%(program_name)s_%(process_num)02d there, and run supervisorctl update)\n"
    )
    assert pids(cluster) == before


# --- with clients ---------------------------------------------------------------------------


def takeover(cluster: Cluster) -> dict[str, Any]:
    answer: dict[str, Any] = cluster.status()["takeover"]
    return answer


def moved(cluster: Cluster) -> int:
    """Sessions, since the cluster has started."""
    counted = takeover(cluster)
    assert counted["taken_over"] == counted["passed_on"] and counted["held"] == 0, counted
    return int(counted["taken_over"])


def wait_moved(cluster: Cluster, count: int) -> None:
    def done() -> bool:
        counted = takeover(cluster)
        numbers = counted["taken_over"], counted["passed_on"], counted["held"]
        return bool(numbers == (count, count, 0))

    wait_until(done, 20, f"{count} sessions taken over")


def say_and_hear(clients: list[TestClient], text: str) -> None:
    """Each client says something, and all hear it."""
    before = [len(client.received("message")) for client in clients]
    for client in clients:
        client.call("message", client.name, text)
    for client, count in zip(clients, before):
        heard = client.wait_for("message", count + len(clients))[count:]
        assert sorted((said["who"], said["text"]) for (said,) in heard) == sorted(
            (speaker.name, text) for speaker in clients
        )


def welcomes(client: TestClient) -> list[str]:
    """The workers that have taken a client in, or over."""
    return [worker["worker"].rpartition(":")[2] for (worker,) in client.received("welcome")]


@pytest.mark.parametrize("surge", [False, True])
def test_a_reload_disconnects_nobody(chat: Cluster, clients: Clients, surge: bool) -> None:
    made = clients.mixed(chat, 6)
    say_and_hear(made, "before")
    before = [(client.sid(), *welcomes(client)) for client in made]
    workers = pids(chat)
    assert takeover(chat)["state"] == "on"
    # Three of them are at each worker; with surge the last ones move once more, when the
    # additional process goes.
    count = moved(chat) + (9 if surge else 6)

    with numbers(chat) as sent:
        done = chat.ctl("sio", "reload", *["--surge"] * surge)
        assert done.returncode == 0, done.stdout
        wait_moved(chat, count)
        say_and_hear(made, "after")
    lines = done_in(done.stdout)
    if surge:
        assert re.fullmatch(rf"{ADDED}: added \(pid \d+, [\d.]+ s\)", lines.pop(0))
        assert lines.pop() == f"{ADDED}: removed"
    for line, name in zip_longest(lines, (FIRST, SECOND)):
        assert line.startswith(f"{name}: reloaded (pid {workers[name]} -> {pids(chat)[name]}, ")
    for client in made:
        client.expect_numbers("number", len(sent))
    for client, (sid, worker) in zip(made, before):
        assert (client.sid(), client.connects, client.disconnects) == (sid, 1, [])
        if not surge:
            assert welcomes(client) == [worker, worker], "its own worker has it back"
    wait_until(lambda: sessions(chat) == [3, 3], 5, "all have as many as before")
    assert takeover(chat)["not_moved"] == {}
    line = f"takeover taken over {count}, passed on {count}, held 0, not moved 0"
    assert line in chat.ctl("sio", "status").stdout


def test_who_leaves_for_good_is_taken_over_at_once(chat: Cluster, clients: Clients) -> None:
    """By another worker: nobody waits for a successor."""
    made = clients.mixed(chat, 6)
    sids = [client.sid() for client in made]
    count = moved(chat)
    (before,) = (row["taken_over"] for row in chat.workers() if row["name"] == FIRST)
    assert chat.ctl("sio", "scale", "workers", "1").returncode == 0
    wait_moved(chat, count + 3)
    say_and_hear(made, "scaled")
    assert [client.sid() for client in made] == sids
    assert not [client.name for client in made if client.disconnects]
    figures = [(FIRST, 6, before + 3)]
    wait_until(
        lambda: [(r["name"], r["sessions"], r["taken_over"]) for r in chat.workers()] == figures,
        5,
        "the worker's figures",
    )
    assert chat.ctl("sio", "scale", "workers", "2").returncode == 0


@pytest.mark.long
def test_who_is_drained_and_stopped_is_taken_over_at_once(chat: Cluster, clients: Clients) -> None:
    made = clients.mixed(chat, 6)
    count = moved(chat)
    assert chat.ctl("sio", "drain", SECOND).returncode == 0
    assert chat.ctl("stop", SECOND).returncode == 0
    wait_moved(chat, count + 3)
    say_and_hear(made, "drained")
    assert not [client.name for client in made if client.disconnects]
    assert chat.ctl("start", SECOND).returncode == 0
    chat.wait_ready(2)
    wait_until(lambda: sessions(chat) == [6, 0], 5, "nobody has moved back")
