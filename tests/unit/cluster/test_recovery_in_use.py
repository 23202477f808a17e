"""Several clients with one ``pid``: one has the session, the others get new sessions."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, List

import pytest

from supervisor_sio.cluster import recovery_base
from supervisor_sio.common import reasons

from .recovering import Client, Cluster, Worker, until


def copy_of(client: Client) -> Client:
    """A second tab of a page, with everything that the first one knows."""
    other = Client()
    other.pid, other.offset = client.pid, client.offset
    return other


async def check_apart(worker: Worker, *clients: Client) -> None:
    """Each client gets once what is sent to its session id, and nothing else."""
    name = f"{worker.tag} alone"
    expected = {client: client.events.get(name, [])[:] for client in clients}
    for _ in range(2):
        for client in clients:
            await worker.emit_to(client.sid)
            expected[client].append(worker.sent_alone)

    def have_the_last() -> bool:
        for client in clients:
            client.take()
        return all(client.events.get(name, [0])[-1] >= expected[client][-1] for client in clients)

    await until(have_the_last)
    assert all(client.events[name] == expected[client] for client in clients)


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_one_that_is_connected_keeps_its_session(run: Any, where: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        home, other = await cluster.start(2)
        worker = home if where == "here" else other
        client = Client()
        await home.connect(client)
        sid, pid = client.sid, client.pid
        second, third = copy_of(client), copy_of(client)
        for copy in (second, third):
            await worker.connect(copy)
            assert copy.reason == reasons.IN_USE
            assert copy.sid != sid and copy.pid != pid
        assert not home.closed and not home.manager.lost
        await check_apart(worker, client, second, third)

    run(scenario)


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_one_that_does_not_answer_has_lost_it(
    run: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The server notices later than the client that a connection is dead."""
    monkeypatch.setattr(recovery_base, "CLIENT_ANSWERS", 0.02)

    async def scenario(cluster: Cluster) -> None:
        home, other = await cluster.start(2)
        worker = home if where == "here" else other
        client = Client()
        await home.connect(client)
        old = client.eio_sid
        home.silent.add(old)
        await worker.connect(client)
        assert client.recovered, client.reason
        assert home.closed == [old] and home.questions == 1
        await check_apart(other, client)

    run(scenario)


def test_one_that_has_lost_its_connection_is_not_asked(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        home, other = await cluster.start(2)
        client = Client()
        await home.connect(client)
        for worker in (home, other, home):
            client.lose()
            await worker.connect(client)
            assert client.recovered, client.reason
        assert home.questions == other.questions == 0

    run(scenario)


@pytest.mark.parametrize("state", ["connected", "lost", "lost elsewhere"])
@pytest.mark.parametrize("where", [(0, 0), (0, 1), (1, 2), (1, 2, 0)])
def test_at_the_same_time(
    run: Any, monkeypatch: pytest.MonkeyPatch, where: tuple[int, ...], state: str
) -> None:
    """At the worker that has it, at others, or both; the first client's connection is dead."""
    monkeypatch.setattr(recovery_base, "CLIENT_ANSWERS", 0.2)

    async def scenario(cluster: Cluster) -> None:
        workers = await cluster.start(3)
        for _ in range(3):
            client = Client()
            await workers[0].connect(client)
            if state == "lost elsewhere":
                client.lose()
                await workers[1].connect(client)
            if state == "connected":
                client.worker.silent.add(client.eio_sid)
            else:
                client.lose()
            copies: List[Client] = [copy_of(client) for _ in where]
            await asyncio.gather(*[workers[at].connect(copy) for at, copy in zip(where, copies)])
            recovered = [copy for copy in copies if copy.recovered]
            assert len(recovered) == 1 and recovered[0].sid == client.sid
            found = {copy.reason for copy in copies if not copy.recovered}
            assert found == {reasons.IN_USE}
            assert len({copy.sid for copy in copies}) == len(copies)
            await check_apart(workers[2], *copies)
            assert not any(copy.eio_sid in copy.worker.closed for copy in copies)
            assert not any(worker.manager.lost for worker in workers)

    run(scenario)


@pytest.mark.parametrize("where", range(3))
def test_while_the_first_one_is_on_its_way(run: Any, where: int) -> None:
    """The worker that had the client has given it away, and the next one does not have it yet."""

    async def scenario(cluster: Cluster) -> None:
        workers = await cluster.start(3)
        home, there, _ = workers
        client = Client()
        await home.connect(client)
        client.lose()
        second = copy_of(client)

        async def ask(tag: str, question: Any, packets: Any = ()) -> Any:
            answer = await cluster.ask(tag, question, packets)
            if question["do"] == "taken":
                assert client.sid in home.manager._moved
                there.cluster = cluster
                await workers[where].connect(second)
            return answer

        there.cluster = SimpleNamespace(ask=ask, numbers=cluster.numbers)  # type: ignore
        await there.connect(client)
        assert client.recovered, client.reason
        assert second.reason == reasons.IN_USE
        await check_apart(home, client, second)

    run(scenario)
