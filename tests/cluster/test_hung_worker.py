"""A worker that hangs gets nothing new; the others serve."""

from __future__ import annotations

import json
import os
import signal

from .harness import Cluster, wait_until
from .modes import NO_HANDLER
from .raw import Poller

pytestmark = NO_HANDLER


def test_a_hung_worker_gets_no_new_sessions(cluster: Cluster) -> None:
    stopped, other = cluster.workers()
    os.kill(stopped["pid"], signal.SIGSTOP)
    try:
        wait_until(lambda: cluster.workers("hung"), 15, "the worker hangs")
        status = cluster.ctl("sio", "status", "--json")
        assert status.returncode == 3
        states = {row["name"]: row["state"] for row in json.loads(status.stdout)["workers"]}
        # The other one has been as idle for as long.
        assert (states[stopped["name"]], states[other["name"]]) == ("hung", "ready")
        for _ in range(10):
            session = Poller(cluster.port)
            session.open()
            assert session.sid.startswith(other["tag"] + ".")
    finally:
        os.kill(stopped["pid"], signal.SIGCONT)
    wait_until(lambda: not cluster.workers("hung"), 10, "it is back")
    cluster_tags = set()

    def placed_again() -> bool:
        session = Poller(cluster.port)
        session.open()
        cluster_tags.add(session.sid.partition(".")[0])
        return stopped["tag"] in cluster_tags

    wait_until(placed_again, 10, "a session at the worker that is back")
    line = f"worker {stopped['name']} hangs"
    wait_until(lambda: line in cluster.log("router"), 5, "the router's line")
