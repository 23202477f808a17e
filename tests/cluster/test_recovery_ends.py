"""Who does not come back in time is told of, once, by a worker that lives."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .conftest import ClusterFactory
from .harness import Cluster, wait_until
from .recovery_clients import Connect, Returning, tag_of
from .takeover_ledger import Ledger, wait_until_balanced
from .test_takeover import row_of

FIRST, SECOND = "workers:workers_00", "workers:workers_01"

#: Seconds to come back in: a busy machine takes longer than it seems.
RECOVERY = 5


def start(make: ClusterFactory, ledger: Ledger, variables: str = "") -> Cluster:
    made = make(workers=0)
    variables = f"RECOVERY={RECOVERY} {variables}"  # the last one counts
    made.extra = made.program("workers", ledger.command(variables=variables), 2)
    made.extra += "autorestart = true\n"
    made.spawn()
    made.wait_ready(2)
    return made


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return Ledger(tmp_path_factory.mktemp("ledger") / "happened")


@pytest.fixture(scope="module")
def cluster(make_module_cluster: ClusterFactory, ledger: Ledger) -> Cluster:
    return start(make_module_cluster, ledger)


@pytest.fixture
def connect(cluster: Cluster) -> Iterator[Connect]:
    cluster.wait_ready(2)
    made = Connect(cluster.port)
    yield made
    made.close()


def kill(cluster: Cluster, name: str) -> None:
    """And wait until it is known to be gone."""
    before = row_of(cluster, name)["pid"]
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: before not in [row["pid"] for row in cluster.workers()], 20, "its end")


def tag(cluster: Cluster, name: str) -> str:
    return str(row_of(cluster, name)["tag"])


def is_told_once(client: Returning, ledger: Ledger, reason: str) -> dict[str, Any]:
    """The handler had all that handlers of ``disconnect`` ever have."""
    line = ledger.wait_for(client.sid, "disconnect")
    ledger.expect(client.sid, "connect", "disconnect")
    assert line["reason"] == reason
    assert line["user"] == f"user {client.sid}"
    # Of a worker that was killed nobody has the environments.
    assert reason == "server error" or "EIO=4" in line["query"]
    return line


@dataclass
class Lost:
    """Clients that are lost at the same time: one wait is enough for all.

    :ivar away: of a worker that lives, as the bystander is; all others are of one that is killed.
    :ivar began: when ``away`` was there yet.
    """

    away: Returning
    bystander: Returning
    back: list[Returning]
    not_back: list[Returning]
    began: float


@pytest.fixture(scope="module")
def lost(cluster: Cluster) -> Iterator[Lost]:
    connect = Connect(cluster.port)
    away, bystander = (connect(at=tag(cluster, FIRST)) for _ in range(2))
    clients = [connect(at=tag(cluster, SECOND)) for _ in range(10)]
    for client in clients:
        client.call("remember", "n", 1)
    began = time.monotonic()
    away.close()
    kill(cluster, SECOND)
    back = [client.again(cluster.port) for client in clients[::2]]
    yield Lost(away, bystander, back, clients[1::2], began)
    connect.close()


def test_its_time_is_over(cluster: Cluster, ledger: Ledger, lost: Lost) -> None:
    client = lost.away
    line = is_told_once(client, ledger, "transport close")
    assert line["at"] - lost.began > RECOVERY - 0.1
    late = client.again(cluster.port)
    assert not late.recovered and late.sid != client.sid
    wait_until(
        lambda: cluster.status()["recovery"]["not_recovered"].get("unknown-pid"), 5, "its count"
    )
    wait_until(lambda: cluster.status()["recovery"]["lost"] == 0, 5, "none lost")
    assert is_told_once(client, ledger, "transport close") == line
    late.leave()


def test_its_worker_is_killed(ledger: Ledger, lost: Lost) -> None:
    """Those that come back in time are not told of."""
    assert all(client.recovered for client in lost.back)
    for client in lost.not_back:
        is_told_once(client, ledger, "server error")
    for client in lost.back:
        ledger.expect(client.sid, "connect", "recovery")
    ledger.expect(lost.bystander.sid, "connect")
    for client in (*lost.back, lost.bystander):
        client.leave()


def test_its_heir_is_killed_too(cluster: Cluster, connect: Connect, ledger: Ledger) -> None:
    client = connect(at=tag(cluster, FIRST))
    logged = len(cluster.log("router"))
    kill(cluster, FIRST)
    inherited = f"worker {SECOND} has adopted the clients of worker {FIRST}"
    wait_until(lambda: inherited in cluster.log("router")[logged:], 20, "its heir")
    kill(cluster, SECOND)
    is_told_once(client, ledger, "server error")


def test_what_is_shown(cluster: Cluster, connect: Connect) -> None:
    client = connect()
    wait_until(lambda: cluster.status()["recovery"]["kept_bytes"], 5, "what is kept")
    assert cluster.status()["recovery"]["state"] == "on"
    assert all(row["recovery"] for row in cluster.workers())
    client.close()
    again = client.again(cluster.port)
    assert again.recovered

    def shows() -> bool:
        recovered = cluster.status()["recovery"]["recovered"]
        line = f"\nrecovery recovered {recovered}, lost 0"
        return recovered > 0 and line in cluster.ctl("sio", "status").stdout

    wait_until(shows, 5, "its line")
    again.leave()


def test_each_is_told_of_once(ledger: Ledger) -> None:
    """Of the tests before, which have all left."""
    wait_until_balanced(ledger)


def test_supervisord_stops(cluster: Cluster, connect: Connect, ledger: Ledger) -> None:
    """Nobody could tell of them afterwards. The last test of this cluster."""
    lost, there = connect(), connect()
    lost.close()

    def is_known() -> bool:
        over = "disconnect" in ledger.of(lost.sid)  # on a machine that is very busy
        return over or cluster.status()["recovery"]["lost"] == 1

    wait_until(is_known, 5, "lost")
    cluster.stop()
    for client in (lost, there):
        ledger.expect(client.sid, "connect", "disconnect")


@pytest.mark.long
def test_more_than_is_kept(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    """It is a new session: ``recovered`` means that nothing is missing."""
    ledger = Ledger(tmp_path / "happened")
    cluster = start(make_cluster, ledger, "RECOVERY=60 RECOVERY_MAXBYTES=3000000")
    connect = Connect(cluster.port)
    client = connect()
    other = connect(at=tag_of(client.session))
    client.close()
    other.call("count", client.sid, "long", 100, 60_000)
    late = client.again(cluster.port)
    assert not late.recovered and late.call("echo", 1) == 1
    wait_until(
        lambda: cluster.status()["recovery"]["not_recovered"] == {"not-kept": 1}, 5, "its count"
    )
    assert cluster.status()["recovery"]["kept_bytes"] < 8_000_000
    connect.close()
