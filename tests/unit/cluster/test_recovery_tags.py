"""Workers die one after another: which one answers for a client by the tag in its ``pid``."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from .recovering import Client, Cluster, Worker, until


async def die(cluster: Cluster, dead: Worker, heir: Worker) -> None:
    await dead.kill()
    await cluster.inherit(dead, heir)
    heir.give_up_tags()


async def come_back(client: Client, worker: Worker) -> None:
    if client.eio_sid in client.worker.sessions:
        client.lose()
    sid = client.sid
    await worker.connect(client)
    assert client.recovered and client.sid == sid, client.reason


async def until_known_at(home: Worker, client: Client, worker: Worker) -> None:
    await until(lambda: home.manager._moved[client.sid].tag == worker.tag)


def test_the_heir_of_both_workers_where_it_was(run: Any) -> None:
    """Both its session id and its ``pid`` name the first worker."""

    async def scenario(cluster: Cluster) -> None:
        home, there, heir, other = await cluster.start(4)
        client = Client()
        await home.connect(client)
        await come_back(client, there)
        await die(cluster, home, heir)
        await die(cluster, there, heir)
        await come_back(client, other)
        heir.give_up_tags()
        assert home.tag in heir.manager.tags
        for worker in (heir, other, heir, other):
            await come_back(client, worker)
            heir.give_up_tags()
        await other.manager.disconnect(client.sid, "/", ignore_queue=True)
        await until(lambda: heir.give_up_tags() or heir.manager.tags == {heir.tag})
        assert not heir.manager._moved

    run(scenario)


def test_its_home_hears_where_it_has_come(run: Any) -> None:
    """From the heir of another worker, and back to that heir, which then gives the tag up."""

    async def scenario(cluster: Cluster) -> None:
        home, there, heir, other = await cluster.start(4)
        client = Client()
        await home.connect(client)
        await come_back(client, there)
        await die(cluster, there, heir)
        for worker in (other, heir, other, heir):
            await come_back(client, worker)
            await until_known_at(home, client, worker)
            # Those where it was meanwhile need not know it any more.
            others = {heir, other} - {worker}
            await until(lambda others=others: not any(one.manager._moved for one in others))
            for one in (heir, other):
                one.give_up_tags()
        assert heir.manager.tags == {heir.tag}
        await come_back(client, other)

    run(scenario)


def test_who_arrived_before_is_told_of_late(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        home, there, other = await cluster.start(3)
        client = Client()
        await home.connect(client)
        await come_back(client, there)
        moved = home.manager._moved[client.sid]
        there.manager._say_arrived(client.sid)
        other.manager._say_arrived(client.sid)
        await until_known_at(home, client, other)
        late = {"method": "arrived", "to_tag": home.tag, "sid": client.sid, "worker": there.tag}
        there.manager._send_to([home.tag], {**late, "at": moved.at})
        heard = home.manager._subscriber.received
        await there.emit()  # behind it
        await until(lambda: home.manager._subscriber.received > heard)
        assert home.manager._moved[client.sid].tag == other.tag

    run(scenario)


def test_what_is_said_to_another_worker_and_went_to_all(run: Any) -> None:
    """The sender did not know the worker yet."""

    async def scenario(cluster: Cluster) -> None:
        home, there, other = await cluster.start(3)
        client = Client()
        await home.connect(client)
        await come_back(client, there)
        moved = home.manager._moved[client.sid]
        unknown = "ffffffff"
        other.manager._say_gone(client.sid, unknown)
        arrived = {"method": "arrived", "to_tag": unknown, "sid": client.sid, "worker": other.tag}
        other.manager._send_to([unknown], {**arrived, "at": moved.at + 1})
        heard = home.manager._subscriber.received
        await until(lambda: home.manager._subscriber.received >= heard + 2)
        assert home.manager._moved[client.sid] == moved

    run(scenario)


@pytest.mark.parametrize("left", [True, False])
def test_what_its_home_is_told_when_it_is_dead(run: Any, left: bool) -> None:
    """The heir of its home receives the message."""

    async def scenario(cluster: Cluster) -> None:
        home, there, heir, other = await cluster.start(4)
        client = Client()
        await home.connect(client)
        await come_back(client, there)
        await home.kill()
        if left:
            await there.manager.disconnect(client.sid, "/", ignore_queue=True)
        else:
            other.manager._say_arrived(client.sid)
        await cluster.inherit(home, heir)
        if left:
            await until(lambda: not heir.manager._moved)
        else:
            await until_known_at(heir, client, other)

    run(scenario)


@pytest.mark.long
def test_one_after_the_other_dies(run: Any) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    random.seed(seed)

    async def scenario(cluster: Cluster) -> None:
        await cluster.start(3)
        clients = [Client() for _ in range(4)]
        for client in clients:
            await random.choice(cluster.workers).connect(client)
        for _ in range(12):
            dead = random.choice(cluster.workers)
            await dead.kill()
            await cluster.start(1)
            await cluster.inherit(dead, random.choice(cluster.workers))
            for client in clients:
                if client.worker is dead or random.random() < 0.5:
                    await come_back(client, random.choice(cluster.workers))
            await asyncio.sleep(0.02)
            for worker in cluster.workers:
                worker.give_up_tags()

    run(scenario)
