"""Names of rooms that reach the wrong clients, at whichever worker those are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.conftest import Clients, ClusterFactory
from cluster.harness import Cluster
from cluster.recorder import TestClient

from ledger.pairs import connect_pair


@pytest.fixture(scope="module")
def shared(make_module_cluster: ClusterFactory) -> Cluster:
    return make_module_cluster(
        here=Path(__file__).parent, command="supervisor-sio worker manager_app:app"
    ).start()


@pytest.fixture
def pair(shared: Cluster, clients: Clients) -> Iterator[tuple[TestClient, TestClient]]:
    """Two clients of different workers."""
    yield connect_pair(clients, shared)


def test_a_room_named_like_a_sid_of_another_worker(pair: tuple[TestClient, TestClient]) -> None:
    stranger, victim = pair
    sid, theirs = stranger.sid(), victim.sid()
    refused = f"ValueError: cannot enter {theirs!r}: it is another client's sid"
    for answer in (
        stranger.call("server_call", "enter_room", [sid, theirs], {}),
        victim.call("server_call", "enter_room", [sid, theirs], {}),  # where it is known
        stranger.call("manager_call", "sockets_join", [theirs], {"room": sid}),
        stranger.call("manager_call", "sockets_join", [[theirs]], {"local": True}),
    ):
        assert answer == refused
    assert "ValueError" in stranger.call("server_call", "close_room", [theirs], {})
    answer = stranger.call("server_call", "call", ["secret", 1], {"to": theirs})
    assert answer == {"from": victim.name, "got": [1]}
    victim.call("server_call", "emit", ["secret", 2], {"to": theirs})
    victim.call("server_call", "emit", ["end", None], {})
    for client in pair:
        client.wait_for("end")
    assert victim.received("secret") == [[1], [2]]
    assert stranger.received("secret") == []


@pytest.mark.parametrize("room", [1.0, True, None])
def test_a_room_that_is_none(pair: tuple[TestClient, TestClient], room: Any) -> None:
    """The error comes where the name does, also for a client of another worker."""
    first, second = pair
    for client in pair:
        for method in ("enter_room", "leave_room"):
            answer = first.call("server_call", method, [client.sid(), room], {})
            assert answer.startswith("TypeError: ") and "is not the name of a room" in answer
    assert second.call("server_call", "rooms", [second.sid()], {}) == [second.sid()]
    first.call("server_call", "emit", ["still", "there"], {"to": second.sid()})
    assert second.wait_for("still") == [["there"]]
