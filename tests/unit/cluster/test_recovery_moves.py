"""Clients that lose their connection and come back to another manager."""

from __future__ import annotations

import asyncio
import math
import random
from types import SimpleNamespace
from typing import Any, List

import pytest

from supervisor_sio.common import reasons

from .recovering import Client, Cluster, Worker, room_of, until

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
                    to_all = client.events.get(one.tag, [0])  # the first may be on its way yet
                    alone = client.events.get(f"{one.tag} alone", [0])
                    return to_all[-1] == one.sent and alone[-1] == one.sent_alone

                await until(has)
        client.assert_whole()
        assert all(numbers[0] == 1 for numbers in client.events.values())
        assert await client.worker.server.get_session(sid) == {"name": "x"}
        assert set(client.worker.manager.get_rooms(sid, "/")) == {sid, "red"}

    run(scenario)


def test_to_one_that_has_heard_less(run: Any) -> None:
    """The new worker receives only now what the client has received already."""

    async def scenario(cluster: Cluster) -> None:
        first, second, third = await cluster.start(3)
        client = Client()
        await first.connect(client)
        subscriber = second.manager._subscriber
        hear = subscriber._take_frame
        subscriber._take_frame = lambda data, now: ()
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
        subscriber._take_frame = hear
        await connecting
        assert client.recovered, client.reason
        await third.emit()
        await until(lambda: client.take() or client.events[third.tag][-1] == third.sent)
        assert client.events == {third.tag: [1, 2, 3, 4, 5, 6, 7]}

    run(scenario)


def test_to_one_that_had_nobody_in_its_room(run: Any) -> None:
    """Messages that the new worker passed over count as received all the same."""

    async def scenario(cluster: Cluster) -> None:
        first, second, third = await cluster.start(3)
        client = Client()
        await first.connect(client)
        room = room_of(client.sid)
        await first.manager.enter_room(client.sid, "/", room)
        for worker in (second, first, second):
            await third.emit(room=room)
            client.lose()
            await third.emit(room=room)
            await third.emit_to(client.sid)
            await third.emit(room=room)
            await worker.connect(client)
            assert client.recovered, client.reason
            await third.emit(room=room)
        await until(lambda: client.take() or client.events[third.tag][-1] == third.sent)
        client.assert_whole()

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


def test_one_that_does_not_come_is_not_waited_for(run: Any) -> None:
    """An emit asks it for an acknowledgement while it is about to arrive."""

    async def scenario(cluster: Cluster) -> None:
        first, second = await cluster.start(2)
        client = Client()
        await first.connect(client)
        client.lose()
        asking: List[Any] = []

        async def ask(tag: str, question: Any, packets: Any = ()) -> Any:
            if question["do"] != "fetch":
                return await cluster.ask(tag, question, packets)
            answers = second.manager.emit_with_acks("q", local=True, timeout=60)
            asking.append(asyncio.create_task(answers))
            await until(lambda: second.manager._early[client.sid].emits)
            return {"reason": reasons.NO_OWNER}, []

        second.cluster = SimpleNamespace(ask=ask, numbers=cluster.numbers)  # type: ignore
        await second.connect(client)
        assert client.reason == reasons.NO_OWNER
        answers = await asyncio.wait_for(asking[0], 30)
        assert answers == [] and answers.missing == 1 and not answers.timed_out

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


@pytest.mark.parametrize("seed", [random.randrange(2**32) for _ in range(3)], ids=range(3))
def test_what_is_to_one_and_what_is_to_all_keep_their_order(run: Any, seed: int) -> None:
    """Wherever the client is, and whichever process emits."""
    print("seed", seed)
    random.seed(seed)

    async def scenario(cluster: Cluster) -> None:
        workers = await cluster.start(3)
        clients = [Client() for _ in range(3)]
        for client in clients:
            await random.choice(workers).connect(client)
            await client.worker.manager.enter_room(client.sid, "/", room_of(client.sid))
        sids = [client.sid for client in clients]
        over = asyncio.Event()
        all_series = [*(worker.series for worker in workers), cluster.start_writing()]
        emitting = [asyncio.create_task(one.emit_until(over, sids)) for one in all_series]

        async def move(client: Client) -> None:
            for _ in range(8):
                await asyncio.sleep(random.random() / 20)
                client.take(most=random.choice([0, 1, 5, math.inf]))
                client.lose(take=False)
                await asyncio.sleep(random.random() / 20)
                await random.choice(workers).connect(client)
                assert client.recovered, client.reason

        await asyncio.gather(*map(move, clients))
        over.set()
        await asyncio.gather(*emitting)
        for client in clients:
            for series in all_series:
                await series.has_come_to(client)

    run(scenario)


def test_those_who_have_only_sent_to_it_alone(run: Any) -> None:
    """The new worker has received nothing from these senders, or is one of them."""

    async def scenario(cluster: Cluster) -> None:
        first, second, third = await cluster.start(3)
        client = Client()
        await first.connect(client)
        for worker in (second, third):
            await worker.emit_to(client.sid)
        await until(lambda: client.take() or len(client.events) == 2)
        for wait in (0, 0.5):
            client.lose()
            await second.connect(client)
            assert client.recovered, client.reason
            for worker in (first, second, third):
                await worker.emit_to(client.sid)
            await until(lambda: client.take() or len(client.events) == 3)
            client.lose()
            await first.connect(client)
            assert client.recovered, client.reason
            await asyncio.sleep(wait)
            second.manager.expire(0.0)  # it comes as a guest that is new
        client.assert_whole()

    run(scenario)


def test_another_worker_is_heard_while_guests_of_it_are_here(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        first, second, _ = await cluster.start(3)
        client = Client()
        await first.connect(client)
        subscriber = second.manager._subscriber
        for _ in range(2):
            client.lose()
            await second.connect(client)
            second.manager.expire(0.0)
            assert subscriber.guest_tags == {first.tag}
            client.lose()
            await first.connect(client)
            second.manager.expire(0.0)
            assert not subscriber.guest_tags and subscriber._inbox.tags == (second.tag,)

    run(scenario)


def test_an_emit_to_several_of_whom_some_are_elsewhere(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        first, second, third = workers = await cluster.start(3)
        clients = [Client() for _ in range(4)]
        for client, worker in zip(clients, (first, first, second, third)):
            await worker.connect(client)
        for client, worker in zip(clients, (second, third, first)):
            client.lose()
            await worker.connect(client)
        sids = [client.sid for client in clients]
        for worker in workers:
            await worker.emit(room=sids)
            await worker.emit(room=tuple(sids[1:]))

        def has_all(client: Client) -> bool:
            client.take()
            return sum(map(len, client.events.values())) >= 6 - 3 * (client is clients[0])

        for client in clients:
            await until(lambda client=client: has_all(client))
        await asyncio.sleep(0.05)
        for client in clients:
            has_all(client)
            meant = [1] if client is clients[0] else [1, 2]
            assert client.events == {worker.tag: meant for worker in workers}

    run(scenario)
