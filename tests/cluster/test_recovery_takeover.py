"""With both options: what has moved may come back, and what is away moves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .conftest import ClusterFactory
from .harness import Cluster, wait_until
from .recovery_clients import Connect, Returning
from .takeover_ledger import Ledger, wait_until_balanced
from .test_recovery_ends import SECOND, kill, tag
from .test_takeover import ctl


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return Ledger(tmp_path_factory.mktemp("ledger") / "happened")


@pytest.fixture(scope="module")
def cluster(make_module_cluster: ClusterFactory, ledger: Ledger) -> Cluster:
    made = make_module_cluster(workers=0)
    command = ledger.command(variables="RECOVERY=12 TAKEOVER=1")
    made.extra = made.program("workers", command, 2) + "autorestart = true\n"
    made.spawn()
    made.wait_ready(2)
    return made


@pytest.fixture(scope="module")
def gone(cluster: Cluster) -> Returning:
    """One that is lost before all else, and does not come back, whatever becomes of its worker."""
    client = Connect(cluster.port)(at=tag(cluster, SECOND))
    client.close()
    wait_until(lambda: cluster.status()["recovery"]["lost"] == 1, 5, "lost")
    return client


@pytest.fixture
def connect(cluster: Cluster, gone: Returning) -> Iterator[Connect]:
    cluster.wait_ready(2)
    made = Connect(cluster.port)
    yield made
    made.close()


def numbers(other: Returning, sid: str, room: str, begin: int) -> None:
    """To it, to its room and to all."""
    for number, to in enumerate((sid, room, None), begin):
        other.call("emit_to", to, "number", number)


def test_a_client_that_is_away_while_its_worker_restarts(
    cluster: Cluster, connect: Connect, ledger: Ledger
) -> None:
    client = connect(at=tag(cluster, SECOND))
    other = connect(apart_from=tag(cluster, SECOND))
    room = f"room of {client.sid}"
    client.call("join", room)
    client.close()
    wait_until(lambda: cluster.status()["recovery"]["lost"] == 2, 5, "lost")
    numbers(other, client.sid, room, 0)
    ctl(cluster, "restart", SECOND)
    numbers(other, client.sid, room, 3)
    again = client.again(cluster.port)
    assert again.recovered and again.sid == client.sid
    assert again.wait_for("number", 6) == [*range(6)]
    ledger.expect(client.sid, "connect", "recovery")
    again.leave()


@pytest.mark.parametrize("then_killed", [False, True])
def test_a_client_that_has_moved(
    cluster: Cluster, connect: Connect, ledger: Ledger, then_killed: bool
) -> None:
    """Its last offset is of the worker that it was at before."""
    client = connect(at=tag(cluster, SECOND))
    other = connect(apart_from=tag(cluster, SECOND))
    room = f"room of {client.sid}"
    client.call("join", room)
    numbers(other, client.sid, room, 0)
    client.wait_for("number", 3)
    ctl(cluster, "restart", SECOND)
    cluster.wait_ready(2)
    ledger.wait_for(client.sid, "takeover")
    if then_killed:
        numbers(other, client.sid, room, 3)
        kill(cluster, SECOND)
    else:
        client.close()
        numbers(other, client.sid, room, 3)
    again = client.again(cluster.port)
    assert again.recovered and again.sid == client.sid
    assert again.wait_for("number", 3) == [3, 4, 5]
    assert room in again.call("about")["rooms"]
    ledger.expect(client.sid, "connect", "takeover", "recovery")
    again.leave()


def test_nobody_is_told_of_twice(ledger: Ledger, gone: Returning) -> None:
    wait_until_balanced(ledger, 40)
    assert ledger.wait_for(gone.sid, "disconnect")["reason"] == "transport close"
