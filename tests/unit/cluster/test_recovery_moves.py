"""Clients that lose their connection and come back to another manager."""

from __future__ import annotations

import asyncio
import math
import random
from typing import Any, List

import pytest

from .recovering import Client, Cluster, Worker, until

# --- to another worker ----------------------------------------------------------------------


def test_to_another_worker_and_back(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        workers = await cluster.start(3)
        first, second, third = workers
        client = Client()
        await first.connect(client)
        await first.manager.enter_room(client.sid, "/", "red")
        await first.server.save_session(client.sid, {"name": "x"})
        sid = client.sid
        order = [second, third, second, first, third, first]
        for turn, worker in enumerate(order):
            for one in workers:
                await one.emit(room=random.choice([None, "red"]))
                await one.emit_to(sid)
            client.lose()
            for one in workers:
                await one.emit(room=random.choice([None, "red"]))
                await one.emit_to(sid)
            await worker.connect(client)
            assert client.recovered, (turn, client.reason)
            assert client.sid == sid and client.worker is worker
            for one in workers:
                await one.emit(room=random.choice([None, "red"]))
                await one.emit_to(sid)
            for one in workers:

                def has(one: Worker = one) -> bool:
                    client.take()
                    alone = client.events.get(f"{one.tag} alone", [0])
                    return client.events[one.tag][-1] == one.sent and alone[-1] == one.sent_alone

                await until(has)
        client.assert_whole()
        assert all(numbers[0] == 1 for numbers in client.events.values())
        assert await client.worker.server.get_session(sid) == {"name": "x"}
        assert set(client.worker.manager.get_rooms(sid, "/")) == {sid, "red"}

    run(scenario)


def test_to_one_that_has_heard_less(run: Any) -> None:
    """What the client has got already comes to its new worker only now."""

    async def scenario(cluster: Cluster) -> None:
        first, second, third = await cluster.start(3)
        client = Client()
        await first.connect(client)
        subscriber = second.manager._subscriber
        take = subscriber._take
        subscriber._take = lambda data, now: ()
        for _ in range(5):
            await third.emit()
        await until(lambda: len(first.got.get(client.eio_sid, ())) == 5)
        client.take(most=4)
        client.lose(take=False)
        connecting = asyncio.create_task(second.connect(client))
        await until(lambda: (first.tag, "fetch") in cluster.asked)
        await third.emit()
        await asyncio.sleep(0.1)
        assert not connecting.done()
        subscriber._take = take
        await connecting
        assert client.recovered, client.reason
        await third.emit()
        await until(lambda: client.take() or client.events[third.tag][-1] == third.sent)
        assert client.events == {third.tag: [1, 2, 3, 4, 5, 6, 7]}

    run(scenario)


def test_rooms_and_disconnects_reach_a_guest(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        first, second, third = await cluster.start(3)
        client = Client()
        await first.connect(client)
        client.lose()
        await second.connect(client)
        sid = client.sid
        for number, one in enumerate((first, second, third)):
            await one.manager.enter_room(sid, "/", number)
        await until(lambda: {0, 1, 2} <= set(second.manager.get_rooms(sid, "/")))
        await third.manager.leave_room(sid, "/", 1)
        await until(lambda: 1 not in second.manager.get_rooms(sid, "/"))
        await third.manager.disconnect(sid, "/")
        await until(lambda: second.manager.sid_from_eio_sid(client.eio_sid, "/") is None)
        await until(lambda: not first.manager._moved)

    run(scenario)


def test_an_answer_of_a_guest(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        first, second, third = await cluster.start(3)
        client = Client()
        await first.connect(client)
        client.lose()
        await second.connect(client)
        answers: List[Any] = []
        await third.manager.emit("q", 1, room=client.sid, callback=answers.append)
        await until(lambda: second.got.get(client.eio_sid))
        (packet,) = second.got.pop(client.eio_sid)
        number = int(packet[1 : packet.index("[")])
        await second.manager.trigger_callback(client.sid, number, ["yes"])
        await until(lambda: answers == ["yes"])

    run(scenario)


@pytest.mark.parametrize("seed", [random.randrange(2**32) for _ in range(3)], ids=range(3))
def test_it_moves_around_while_all_emit(run: Any, seed: int) -> None:
    print("seed", seed)
    random.seed(seed)

    async def scenario(cluster: Cluster) -> None:
        workers = await cluster.start(3)
        clients = [Client() for _ in range(4)]
        for client in clients:
            await random.choice(workers).connect(client)
        stopped = asyncio.Event()

        async def emit(worker: Worker) -> None:
            while not stopped.is_set():
                await worker.emit()
                await asyncio.sleep(random.random() / 500)

        async def move(client: Client) -> None:
            for _ in range(10):
                await asyncio.sleep(random.random() / 20)
                client.take(most=random.choice([0, 1, 5, math.inf]))
                client.lose(take=False)
                await asyncio.sleep(random.random() / 20)
                await random.choice(workers).connect(client)
                assert client.recovered, client.reason

        emitting = [asyncio.create_task(emit(worker)) for worker in workers]
        await asyncio.gather(*map(move, clients))
        stopped.set()
        await asyncio.gather(*emitting)
        for client in clients:
            for one in workers:

                def has(one: Worker = one, client: Client = client) -> bool:
                    client.take()
                    return client.events.get(one.tag, [0])[-1] == one.sent

                await until(has)
            client.assert_whole()

    run(scenario)
