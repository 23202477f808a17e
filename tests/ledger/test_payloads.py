"""Any number of packets in a POST, and as many in an answer to a poll as a client takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.conftest import Clients, ClusterFactory
from cluster.harness import Cluster
from cluster.raw import Poller

from ledger.victim import MB, Echoes, PeakMemory


@pytest.fixture(scope="module")
def cluster(make_module_cluster: ClusterFactory) -> Iterator[Cluster]:
    command = "supervisor-sio worker session_app:app"
    yield make_module_cluster(here=Path(__file__).parent, workers=1, command=command).start()


@pytest.fixture
def poller(cluster: Cluster) -> Poller:
    made = Poller(cluster.port)
    made.open()
    made.join()
    return made


def test_a_client_that_emits_500_times_on_connect(poller: Poller) -> None:
    poller.must("POST", "\x1e".join(f'42["number",{n}]' for n in range(500)))
    assert poller.call("numbers") == list(range(500))


@pytest.mark.tries(4)
@pytest.mark.parametrize(
    "packet",
    [
        *("4", "3", '42["number",1]'),
        # Answers as long as the questions: ten seconds of CPU.
        pytest.param('421["echo"]', marks=pytest.mark.long),
    ],
)
def test_a_post_with_as_many_packets_as_there_are(
    cluster: Cluster, poller: Poller, packet: str
) -> None:
    worker = int(cluster.workers()[0]["pid"])
    body = "\x1e".join([packet] * (999_000 // (len(packet) + 1)))
    with Echoes(cluster.port) as others, PeakMemory(worker) as memory:
        poller.request("POST", body)
    assert memory.grown < 20 * MB
    assert others.percentile(0.99) < 0.5


@pytest.mark.parametrize("kind", ["python", "node"])
def test_100_emits_in_a_row_to_a_client_that_polls(
    cluster: Cluster, clients: Clients, kind: str
) -> None:
    client = clients.connect(cluster, kind, ["polling"])
    client.emit("emit_often", "often", 100)
    client.expect_numbers("often", 100)
    assert not client.disconnects


def test_an_answer_has_16_packets_at_most(poller: Poller) -> None:
    poller.must("POST", '42["emit_often","often",100]')
    got: list[int] = []
    while len(got) < 100:
        packets = poller.must("GET").split("\x1e")
        assert len(packets) <= 16
        got += [json.loads(packet[2:])[1] for packet in packets if packet.startswith("42")]
    assert got == list(range(100))
