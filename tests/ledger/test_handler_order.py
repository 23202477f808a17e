"""Handlers start in the order of the events, of whatever kind, on each transport."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.conftest import Clients, ClusterFactory
from cluster.harness import Cluster


@pytest.fixture(scope="module")
def cluster(make_module_cluster: ClusterFactory) -> Iterator[Cluster]:
    command = "supervisor-sio worker session_app:app"
    yield make_module_cluster(here=Path(__file__).parent, workers=1, command=command).start()


@pytest.mark.parametrize("transports", [["websocket"], ["polling"], None])
@pytest.mark.parametrize("kind", ["node", "python"])
def test_text_and_binary_events(
    cluster: Cluster, clients: Clients, kind: str, transports: list[str] | None
) -> None:
    seed = time.time_ns()
    print(f"seed {seed}")
    dice = random.Random(seed)
    client = clients.connect(cluster, kind, transports)
    for number in range(200):
        attachments = [dice.randbytes(dice.randrange(1, 50)) for _ in range(dice.randrange(3))]
        client.emit("number", number, *attachments)
    assert client.call("numbers") == list(range(200))
