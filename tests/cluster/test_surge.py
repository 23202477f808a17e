"""``supervisorctl sio reload --surge``: one process more while the others restart."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .conftest import ClusterFactory
from .harness import BIN, Cluster, environment, wait_until
from .modes import NO_WORKER

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


@NO_WORKER
def test_there_are_never_fewer_workers_than_usual(cluster: Cluster) -> None:
    before = pids(cluster)
    with watched(cluster) as counts:
        done = cluster.ctl("sio", "reload", "--surge")
    assert done.returncode == 0, done.stdout
    added, first, second, removed = done.stdout.splitlines()
    assert re.fullmatch(rf"{ADDED}: added \(pid \d+, [\d.]+ s\)", added)
    for line, name in ((first, FIRST), (second, SECOND)):
        assert line.startswith(f"{name}: reloaded (pid {before[name]} -> "), line
    assert removed == f"{ADDED}: removed"
    assert min(counts) == 2 and max(counts) == 3
    after = pids(cluster)
    assert after.keys() == before.keys() and not set(after.values()) & set(before.values())
    assert cluster.ctl("reread").stdout == "No config updates to processes\n"

    done = cluster.ctl("sio", "reload", "--surge", SECOND, "--json")
    (worker,) = json.loads(done.stdout)["workers"]
    assert (worker["name"], worker["pid"]) == (SECOND, pids(cluster)[SECOND])
    assert pids(cluster)[FIRST] == after[FIRST]


@NO_WORKER
def test_new_code_that_does_not_start_stops_nobody(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(startsecs=1, startretries=0)
    broken = cluster.directory / "broken"
    cluster.command = (
        f"/bin/sh -c 'test ! -e {broken} && exec supervisor-sio worker cluster_app:app'"
    )
    cluster.start()
    before = pids(cluster)
    broken.touch()
    done = cluster.ctl("sio", "reload", "--surge")
    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"{ADDED}: ERROR (the new process is not ready: it ended)")
    assert line.endswith(f"; supervisorctl sio scale workers 2 removes {ADDED} again")
    assert pids(cluster) == before
    assert cluster.ctl("sio", "scale", "workers", "2").returncode == 0
    assert [row["name"] for row in cluster.status()["workers"]] == [FIRST, SECOND]


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
    assert done.returncode == 0 and done.stdout.startswith(f"{ADDED}: removed"), done.stdout
    cluster.wait_ready(2)


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
