"""What clients cost that never acknowledge what they got."""

from __future__ import annotations

from pathlib import Path

from cluster.conftest import Clients, ClusterFactory
from cluster.modes import ANY_MODE

from ledger.pairs import connect_pair
from ledger.victim import MB, PeakMemory

ASKED = 30


@ANY_MODE
def test_an_unanswered_message_is_not_kept(make_cluster: ClusterFactory, clients: Clients) -> None:
    """By the worker of the client, which another worker asks through."""
    cluster = make_cluster(
        here=Path(__file__).parent, command="supervisor-sio worker manager_app:app"
    ).start()
    emitter, silent = connect_pair(clients, cluster)
    text = "x" * 500_000

    def ask(first: int, last: int) -> None:
        for number in range(first, last):
            emitter.call("ask", silent.sid(), "silent", [silent.name], text)
            silent.wait_for("silent", number + 1)

    ask(0, 5)
    with PeakMemory(silent.whoami()["pid"]) as peak:
        ask(5, 5 + ASKED)
    assert peak.grown < 10 * MB
    assert silent.call("echo", 1) == 1
