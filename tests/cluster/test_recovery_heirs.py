"""The heir of a worker that was killed is killed, too, before it receives for what it inherits."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import ClusterFactory
from .harness import Cluster, wait_until
from .numbered import numbers
from .recovery_clients import Connect
from .takeover_ledger import Ledger, wait_until_balanced
from .test_recovery_ends import kill, tag

WORKERS = [f"workers:workers_{number:02}" for number in range(3)]
FIRST = WORKERS[0]


def heir_of(cluster: Cluster, name: str) -> str:
    """Wait until a worker owns the clients of another one."""

    def found() -> str | None:
        log = cluster.log("router")
        said = {one: f"worker {one} has adopted the clients of worker {name}" for one in WORKERS}
        return next((one for one, line in said.items() if line in log), None)

    heir = wait_until(found, 20, f"heir of {name}")
    assert heir is not None
    return heir


@pytest.mark.long  # unit/router/test_journals.py has it without clients
@pytest.mark.parametrize("receives", [False, True])
def test_the_heir_is_killed(make_cluster: ClusterFactory, tmp_path: Path, receives: bool) -> None:
    """While it writes the clients that it has inherited into its journal; or after it has begun to
    receive for them, and has given them its own events. Nobody misses an event of a process that
    lives, or of the heir itself, or gets one twice."""
    ledger, slowly = Ledger(tmp_path / "happened"), tmp_path / "write-slowly"
    cluster = make_cluster(workers=0)
    command = ledger.command("takeover_faults", "RECOVERY=60")
    cluster.extra = cluster.program("workers", command, len(WORKERS)) + "autorestart = false\n"
    cluster.spawn()
    cluster.wait_ready(len(WORKERS))
    connect = Connect(cluster.port)
    clients = [connect(at=tag(cluster, FIRST)) for _ in range(5)]
    others = {name: connect(at=tag(cluster, name)) for name in WORKERS[1:]}
    with numbers(cluster) as sent:
        for client in clients:
            client.wait_for("number", 5)
        slowly.touch()
        kill(cluster, FIRST)
        heir = heir_of(cluster, FIRST)
        emitter = others[heir]
        for number in range(20):
            emitter.call("emit_to", None, "own", number)
        before = len(sent)
        wait_until(lambda: len(sent) > before + 20, 20, "numbers meanwhile")
        if receives:
            slowly.unlink()
            wait_until((tmp_path / "heard").exists, 20, "it receives")
        kill(cluster, heir)
        slowly.unlink(missing_ok=True)
        third = heir_of(cluster, heir)
        assert third not in (FIRST, heir)
        back = [client.again(cluster.port) for client in (*clients, emitter)]
    lives = others[third]
    lives.call("emit_to", None, "end", 1)
    for former, client in zip((*clients, emitter), back):
        client.wait_for("end")
        assert client.recovered and client.sid == former.sid
        for event, count in (("number", len(sent)), ("own", 20)):
            assert former.events[event] + client.events[event] == [*range(count)]
    lives.wait_for("end")
    connect.close()
    for client in back:
        client.leave()
    wait_until_balanced(ledger)
