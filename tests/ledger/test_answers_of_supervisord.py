"""A long answer to one caller keeps supervisord from nothing else."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from cluster.conftest import ClusterFactory
from cluster.harness import HERE as CLUSTER
from cluster.harness import Cluster
from cluster.modes import NO_WORKER

pytestmark = NO_WORKER

HERE = Path(__file__).parent

#: As rows_app has them.
COUNT = 10_000
ROOMS = ["news", "a room of böse <people> & others", "x" * 40]


def longest_wait(cluster: Cluster) -> tuple[float, float]:
    """Seconds that supervisord kept others waiting while it made an answer of 10,000 rows, and
    seconds that the answer took; where it is made in one go, that is most of them."""
    waits = []
    ended = threading.Event()

    def ask() -> None:
        other = cluster.rpc
        while not ended.is_set():
            began = time.monotonic()
            other.supervisor.getState()
            waits.append(time.monotonic() - began)

    thread = threading.Thread(target=ask)
    thread.start()
    asked = time.monotonic()
    try:
        answer = cluster.rpc.sio.getSockets("", "/", COUNT)
    finally:
        took = time.monotonic() - asked
        ended.set()
        thread.join()
    assert (answer["total"], answer["missing"]) == (COUNT, 0)
    sockets = answer["sockets"]
    assert len({socket["sid"] for socket in sockets}) == len(sockets) > COUNT // 2
    assert all(socket["rooms"] == ROOMS for socket in sockets)
    return max(waits), took


def test_others_do_not_wait_for_an_answer_of_10_000_rows(make_cluster: ClusterFactory) -> None:
    path = f"PYTHONPATH={HERE}:{CLUSTER}"
    cluster = make_cluster(
        workers=1, here=HERE, command=f"env {path} supervisor-sio worker rows_app:app"
    ).start()
    for _ in range(12):  # once, because the machine may be busy with something else
        wait, took = longest_wait(cluster)
        print(f"longest wait: {wait * 1000:.0f} ms of {took * 1000:.0f} ms")
        if wait < max(0.08, took / 10):
            return
    raise AssertionError("others waited each time")
