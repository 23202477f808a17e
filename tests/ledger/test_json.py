"""What only Python takes for JSON ends no browser's connection."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.conftest import Clients, ClusterFactory
from cluster.harness import Cluster, wait_until
from cluster.modes import ANY_MODE

from ledger.stranger import CLOSED, Stranger

pytestmark = ANY_MODE

NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" * 400 + ".0"]


@pytest.fixture(scope="module")
def cluster(make_module_cluster: ClusterFactory) -> Iterator[Cluster]:
    command = "supervisor-sio worker session_app:app"
    yield make_module_cluster(here=Path(__file__).parent, workers=1, command=command).start()


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("packet", ['42["emit","news",%s]', '421["echo",[%s]]', "40/x,[%s]"])
def test_from_a_client_it_is_malformed(cluster: Cluster, number: str, packet: str) -> None:
    before = cluster.status()["clients"]["protocol_errors"]
    with Stranger(cluster.port) as stranger:
        stranger.text(packet % number, '422["echo",1.5]')
        came = stranger.until(CLOSED)
        assert b"news" not in came and b"431" not in came and b"432" not in came
    wait_until(lambda: cluster.status()["clients"]["protocol_errors"] == before + 1, 5, "counted")


def test_from_the_application_it_is_an_error_in_the_caller(
    cluster: Cluster, clients: Clients
) -> None:
    listeners = [clients.connect(cluster, kind) for kind in ("node", "python")]
    caller = clients.connect(cluster, "python", ["websocket"])
    for number in ("nan", "inf", "-inf"):
        assert caller.call("emit_number", number).startswith("ValueError: ")
    assert caller.call("emit_number", "1.5") is None
    for listener in listeners:
        assert listener.wait_for("number") == [[{"is": 1.5}]]
        assert not listener.disconnects
