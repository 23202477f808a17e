"""Many clients come back at once: their missed events are not all in memory at a time."""

from __future__ import annotations

import asyncio
from typing import Any, List

import pytest

from supervisor_sio.cluster import budget, recovery, recovery_base
from supervisor_sio.cluster.budget import Budget, Share
from supervisor_sio.common.reasons import CLAIMS_FULL

from .recovering import Client, Cluster, Worker

CLIENTS, EVENTS = 12, 20
#: Each event counts for more than 200 bytes: there is room for two of them and a half.
MOST = 10_000


async def lose_all(worker: Worker) -> List[Client]:
    clients = [Client() for _ in range(CLIENTS)]
    for client in clients:
        await worker.connect(client)
        client.lose()
    for _ in range(EVENTS):
        await worker.emit()
    return clients


def note_sizes(monkeypatch: pytest.MonkeyPatch) -> List[int]:
    """Note the size of all budgets together at each change."""
    sizes: List[int] = []
    has_read = Budget.has_read

    def note(self: Budget, share: Share, size: int) -> None:
        has_read(self, share, size)
        sizes.append(self.size)

    monkeypatch.setattr(Budget, "has_read", note)
    return sizes


def check_all_came(worker: Worker, clients: List[Client]) -> None:
    for client in clients:
        client.take()
        assert client.recovered, client.reason
        assert client.events == {worker.tag: list(range(1, EVENTS + 1))}


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_all_come_back_in_turn(run: Any, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.setattr(budget, "MISSED_BYTES", MOST)
    monkeypatch.setattr(recovery_base, "LOOK_AT_OUTPUT", 0.01)
    sizes = note_sizes(monkeypatch)

    async def scenario(cluster: Cluster) -> None:
        home, other = await cluster.start(2)
        worker = home if where == "here" else other
        clients = await lose_all(home)
        served = asyncio.create_task(worker.connect(Client()))
        await asyncio.gather(*map(worker.connect, clients), served)
        check_all_came(home, clients)
        one = max(sizes[:1])
        assert one > EVENTS * 200 and max(sizes) < MOST + one
        for manager in (home.manager, other.manager):
            manager._look_what_is_taken()
            assert not manager._reading.size and not manager._arriving.size

    run(scenario)


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_who_takes_nothing_does_not_keep_the_others(
    run: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(budget, "MISSED_BYTES", MOST)
    monkeypatch.setattr(budget, "MISSED_HELD", 0.1)
    monkeypatch.setattr(recovery_base, "LOOK_AT_OUTPUT", 0.01)

    async def scenario(cluster: Cluster) -> None:
        home, other = await cluster.start(2)
        worker = home if where == "here" else other
        clients = await lose_all(home)
        monkeypatch.setattr(worker, "waiting", lambda eio_sid: 10 * MOST)
        await asyncio.gather(*map(worker.connect, clients))
        check_all_came(home, clients)

    run(scenario)


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_threads_wait_for_a_moment(run: Any, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """There are few threads, and others need them."""
    monkeypatch.setattr(budget, "MISSED_BYTES", MOST)
    monkeypatch.setattr(budget, "MISSED_HELD", 1000.0)
    monkeypatch.setattr(recovery_base, "MISSED_THREAD_WAIT", 0.05)
    monkeypatch.setattr(Worker, "concurrent", True)

    async def scenario(cluster: Cluster) -> None:
        home, other = await cluster.start(2)
        worker = home if where == "here" else other
        clients = await lose_all(home)
        monkeypatch.setattr(worker, "waiting", lambda eio_sid: 10 * MOST)
        await asyncio.gather(*map(worker.connect, clients))
        check_all_came(home, clients)

    run(scenario)


def test_they_wait_for_so_long(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MISSED_BYTES", MOST)
    monkeypatch.setattr(budget, "MISSED_HELD", 1000.0)
    monkeypatch.setattr(recovery, "RECOVERY_WAIT", 0.5)

    async def scenario(cluster: Cluster) -> None:
        (worker,) = await cluster.start(1)
        clients = await lose_all(worker)
        pids = {client: client.pid for client in clients}
        monkeypatch.setattr(worker, "waiting", lambda eio_sid: 10 * MOST)  # they take nothing
        await asyncio.gather(*map(worker.connect, clients))
        came = [client for client in clients if client.recovered]
        assert 0 < len(came) <= 3
        assert {client.reason for client in clients if not client.recovered} == {CLAIMS_FULL}
        check_all_came(worker, came)
        assert worker.manager.lost == CLIENTS - len(came)
        # Those that have given up wait no more.
        monkeypatch.setattr(worker, "waiting", lambda eio_sid: 0)
        late = Client()
        late.pid = pids[clients[-1]]
        await worker.connect(late)
        assert late.recovered, late.reason

    run(scenario)
