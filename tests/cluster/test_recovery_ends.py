"""Who does not come back in time is told of, once, by a worker that lives."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import ClusterFactory
from .harness import Cluster, wait_until
from .recovery_clients import Connect, Returning, tag_of
from .takeover_ledger import Ledger, wait_until_balanced
from .test_takeover import row_of

FIRST, SECOND = "workers:workers_00", "workers:workers_01"

#: Seconds to come back in.
RECOVERY = 3


def start(make: ClusterFactory, ledger: Ledger, variables: str = "", **options: Any) -> Cluster:
    made = make(workers=0, **options)
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
    return start(make_module_cluster, ledger, "PING_INTERVAL=1 PING_TIMEOUT=4")


def kill(cluster: Cluster, name: str) -> None:
    """And wait until there is another one of its name."""
    before = row_of(cluster, name)["pid"]
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: before not in [row["pid"] for row in cluster.workers()], 20, "its end")
    cluster.wait_ready(2)


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


def test_its_time_is_over(cluster: Cluster, ledger: Ledger) -> None:
    connect = Connect(cluster.port)
    client = connect()
    began = time.monotonic()
    client.close()
    wait_until(lambda: cluster.status()["recovery"]["lost"] == 1, 5, "lost")
    line = is_told_once(client, ledger, "transport close")
    assert line["at"] - began > RECOVERY - 0.1
    late = client.again(cluster.port)
    assert not late.recovered and late.sid != client.sid
    wait_until(
        lambda: cluster.status()["recovery"]["not_recovered"].get("unknown-pid"), 5, "its count"
    )
    wait_until(lambda: cluster.status()["recovery"]["lost"] == 0, 5, "none lost")
    assert is_told_once(client, ledger, "transport close") == line
    late.close()
    connect.close()


def test_it_answers_no_ping(cluster: Cluster, ledger: Ledger) -> None:
    client = Connect(cluster.port)()
    is_told_once(client, ledger, "ping timeout")
    client.close()


def test_its_worker_is_killed(cluster: Cluster, ledger: Ledger) -> None:
    """Those that come back in time are not told of."""
    here = tag(cluster, SECOND)
    connect = Connect(cluster.port)
    made = [connect() for _ in range(40)]  # quickly: they answer no pings meanwhile
    clients = [client for client in made if tag_of(client.sid) == here]
    bystander = next(client for client in made if client not in clients)
    assert len(clients) >= 10
    for client in clients:
        client.call("remember", "n", 1)
    kill(cluster, SECOND)
    back = [client.again(cluster.port) for client in clients[::2]]
    assert all(client.recovered for client in back)
    for client in clients[1::2]:
        is_told_once(client, ledger, "server error")
    for client in back:
        ledger.expect(client.sid, "connect", "recovery")
        client.close()
    ledger.expect(bystander.sid, "connect")
    connect.close()
    wait_until_balanced(ledger)


def test_its_heir_is_killed_too(cluster: Cluster, ledger: Ledger) -> None:
    connect = Connect(cluster.port)
    client = connect(at=tag(cluster, FIRST))
    for name in (FIRST, SECOND):
        os.kill(row_of(cluster, name)["pid"], signal.SIGKILL)
        wait_until(lambda: len(cluster.workers()) < 2, 5, "its end")
    is_told_once(client, ledger, "server error")
    connect.close()
    cluster.wait_ready(2)
    wait_until_balanced(ledger)


def test_what_is_shown(cluster: Cluster) -> None:
    client = Connect(cluster.port)()
    status = cluster.status()["recovery"]
    assert status["state"] == "on" and status["kept_bytes"] > 0
    assert all(row["recovery"] for row in cluster.workers())
    (line,) = [
        line
        for line in cluster.ctl("sio", "status").stdout.splitlines()
        if line.startswith("recovery")
    ]
    assert line.startswith(f"recovery recovered {status['recovered']}, lost ")
    client.close()


def test_supervisord_stops(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    """Nobody could tell of them afterwards."""
    ledger = Ledger(tmp_path / "happened")
    cluster = start(make_cluster, ledger)
    connect = Connect(cluster.port)
    lost, there = connect(), connect()
    lost.close()
    wait_until(lambda: cluster.status()["recovery"]["lost"] == 1, 5, "lost")
    cluster.stop()
    for client in (lost, there):
        ledger.expect(client.sid, "connect", "disconnect")
    connect.close()


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
