"""Events of one turn of another worker arrive together: each has its own offset, and comes once."""

from __future__ import annotations

from typing import Any, List

import pytest

from .recovering import Client, Cluster, Worker, until

COUNT = 10


async def emit_at_once(worker: Worker, **options: Any) -> None:
    for _ in range(COUNT):
        await worker.emit(**options)


def note_together(worker: Worker) -> List[int]:
    """Note how many events arrive together, each time."""
    counts: List[int] = []
    journal = worker.manager._journal
    events = journal.events

    def count(message: Any, scope: Any) -> Any:
        counts.append(len(message.run))
        return events(message, scope)

    journal.events = count
    return counts


async def start(cluster: Cluster, client: Client, at: Worker, other: Worker) -> None:
    """The other worker is placed, so that its messages are delivered at once."""
    await at.connect(client)
    await other.emit()
    await until(lambda: client.take() or client.events.get(other.tag))


def has_all(client: Client, worker: Worker) -> bool:
    client.take()
    return client.events[worker.tag][-1] == worker.sent


@pytest.mark.parametrize("taken", [1, 4, COUNT])
def test_a_client_that_has_got_some_of_them(run: Any, taken: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        first, second, third = await cluster.start(3)
        client, stays = Client(), Client()
        await start(cluster, client, first, second)
        await start(cluster, stays, first, second)
        client.take()
        together = note_together(first)
        await emit_at_once(second)
        await until(lambda: has_all(stays, second))
        assert max(together) > 1
        client.take(most=taken)
        client.lose(take=False)
        await third.connect(client)
        assert client.recovered, client.reason
        await until(lambda: has_all(client, second) and has_all(stays, second))
        client.assert_whole()
        stays.assert_whole()

    run(scenario)


def test_a_client_that_is_about_to_come(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        first, second, third = await cluster.start(3)
        client, stays = Client(), Client()
        await start(cluster, client, third, second)
        await start(cluster, stays, first, second)
        await until(lambda: has_all(client, second))
        client.lose()
        ask = cluster.ask

        async def emit_meanwhile(tag: str, question: Any, packets: Any = ()) -> Any:
            answer = await ask(tag, question, packets)
            if question["do"] in ("fetch", "taken"):
                await emit_at_once(second)
                await until(lambda: has_all(stays, second))
            return answer

        cluster.ask = emit_meanwhile  # type: ignore[method-assign]
        await first.connect(client)
        assert client.recovered, client.reason
        await until(lambda: has_all(client, second))
        client.assert_whole()

    run(scenario)


def test_the_worker_of_a_client_is_killed(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        dead, second, third = await cluster.start(3)
        client = Client()
        await start(cluster, client, dead, second)
        await emit_at_once(second)
        await until(lambda: len(dead.got.get(client.eio_sid, ())) == COUNT)
        client.take(most=3)
        await dead.kill()
        await emit_at_once(second)
        await cluster.inherit(dead, third)
        await third.connect(client)
        assert client.recovered, client.reason
        await until(lambda: has_all(client, second))
        client.assert_whole()

    run(scenario)
