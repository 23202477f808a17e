"""A worker whose threads are behind by far more than ``drain_timeout`` is replaced."""

from __future__ import annotations

from pathlib import Path

from .conftest import ClusterFactory
from .harness import wait_until
from .modes import THREADING
from .takeover_clients import OverWebSocket
from .test_takeover import ctl
from .test_takeover_failures import FIRST, Setting

pytestmark = THREADING

CLIENTS, EVENTS, THREADS, DRAIN_TIMEOUT = 100, 5, 2, 4


def test_what_no_thread_has_begun_moves_along(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    """Else: nearly all clients are closed, as all but a few have an event that waits."""
    setting = Setting(make_cluster, tmp_path, workers=0, drain_timeout=str(DRAIN_TIMEOUT))
    cluster, ledger = setting.cluster, setting.ledger
    command = ledger.command().replace(" worker ", f" worker --threads={THREADS} ")
    cluster.extra = cluster.program("workers", command)
    cluster.spawn()
    cluster.wait_ready(1)
    scene = setting.scene(FIRST)
    clients: list[OverWebSocket] = [scene.websocket() for _ in range(CLIENTS)]
    asked = [[client.ask("slow_number", n) for client in clients] for n in range(EVENTS)]
    wait_until(lambda: any(ledger.numbers(client.sid) for client in clients), 10, "a handler")
    ctl(cluster, "restart", FIRST)
    for numbers in asked:
        for client, number in zip(clients, numbers):
            client.answer(number)
    setting.wait_not_moved()
    for client in clients:
        scene.is_taken_over(client.sid)
        scene.handled_once(client, EVENTS)
        lines = [line for line in ledger.lines(client.sid) if line["what"] == "number"]
        assert all(
            one["number"] < other["number"]
            for one in lines
            for other in lines
            if one["pid"] != other["pid"] and one["at"] < other["at"]
        )
    scene.close()
