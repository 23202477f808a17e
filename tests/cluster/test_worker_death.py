"""A killed worker costs its clients a reconnection, and the others nothing."""

from __future__ import annotations

import os
import signal
import time

from .conftest import Clients
from .harness import Cluster, wait_until
from .modes import NO_HANDLER

pytestmark = NO_HANDLER


def test_clients_of_a_killed_worker_come_back(shared_cluster: Cluster, clients: Clients) -> None:
    made = clients.mixed(shared_cluster, 20)
    pids = {client.name: client.whoami()["pid"] for client in made}
    by_pid = {pid: [c for c in made if pids[c.name] == pid] for pid in pids.values()}
    # A worker that has clients of both transports.
    orphans = max(by_pid.values(), key=lambda own: len({client.transport for client in own}))
    assert len({client.transport for client in orphans}) == 2
    victim = orphans[0].whoami()
    others = [client for client in made if client not in orphans]

    os.kill(victim["pid"], signal.SIGKILL)
    for client in orphans:
        client.wait_disconnected()
        client.wait_talking()

    def successor() -> bool:
        rows = {row["name"]: row for row in shared_cluster.workers()}
        row = rows.get(f"workers:{victim['name']}")
        return row is not None and row["pid"] != victim["pid"]

    wait_until(successor, 15, "a successor in the status")
    assert not [client.name for client in others if client.disconnects]

    # Emits reach those who came back, and the successor's as everybody.
    made.append(clients.connect(shared_cluster))
    made[1].call("emit_all", "all-again", 1, {})
    for client in made:
        assert client.wait_for("all-again") == [[1]]


def test_no_call_waits_for_a_killed_worker(shared_cluster: Cluster, clients: Clients) -> None:
    shared_cluster.wait_ready()
    made = [clients.connect(shared_cluster, "python", ["websocket"]) for _ in range(8)]
    asker = made[0]
    pid = asker.whoami()["pid"]
    victim = next(client for client in made if client.whoami()["pid"] != pid)
    sid = victim.sid()
    victim.emit("kill_me")
    victim.wait_disconnected()
    began = time.monotonic()
    asker.call("emit_all", "to-the-dead", 1, {"to": sid})
    asker.call("emit_all", "to-all", 1, {})
    assert asker.wait_for("to-all") == [[1]]
    assert time.monotonic() - began < 10
    victim.wait_talking()
    shared_cluster.wait_ready()
