"""Clients of a manager that has ended come back to other managers."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor_sio.common import reasons
from supervisor_sio.common.blocking import settle
from supervisor_sio.common.limits import RECOVERY_WAIT
from supervisor_sio.engine.saved import Saved
from supervisor_sio.relay.stand_in import StandIn

from .recovering import CLUSTER, Client, Cluster, Worker, until

# --- of a worker that has died ----------------------------------------------------------------


@pytest.mark.parametrize("seed", [random.randrange(2**32) for _ in range(3)], ids=range(3))
def test_clients_of_a_dead_worker(run: Any, seed: int) -> None:
    print("seed", seed)
    random.seed(seed)

    async def scenario(cluster: Cluster) -> None:
        workers = await cluster.start(3)
        dead, heir, other = workers
        clients = [Client() for _ in range(6)]
        for client in clients:
            await dead.connect(client)
            await dead.manager.enter_room(client.sid, "/", "red")
        stopped = asyncio.Event()

        async def emit(worker: Worker) -> None:
            while not stopped.is_set() and worker in cluster.workers:
                await worker.emit(room=random.choice([None, "red"]))
                await asyncio.sleep(random.random() / 500)

        emitting = [asyncio.create_task(emit(worker)) for worker in workers]
        await asyncio.sleep(0.2)
        for client in clients:
            client.take(most=random.choice([0, 5, 50, math.inf]))
        await dead.kill()
        gone = clients.pop()
        await cluster.inherit(dead, heir)
        assert heir.manager.lost == 6
        for client in clients:
            await random.choice([heir, other]).connect(client)
            assert client.recovered, client.reason
            await asyncio.sleep(random.random() / 20)
        await asyncio.sleep(0.1)
        stopped.set()
        await asyncio.gather(*emitting)
        for client in clients:
            for one in (heir, other):

                def has(one: Worker = one, client: Client = client) -> bool:
                    client.take()
                    return client.events.get(one.tag, [0])[-1] == one.sent

                await until(has)
            assert client.events[dead.tag][-1] == dead.sent
            client.assert_whole()
        ((eio_sid, sid, _, reason),) = heir.manager.expire(math.inf)
        assert (sid, reason) == (gone.sid, "server error")
        assert heir.manager.lost_session(sid) == {}
        await settle(heir.manager.disconnect(sid, "/", ignore_queue=True))
        assert heir.manager.lost == 0

    run(scenario)


def test_one_that_comes_back_before_the_heir_has_it(run: Any) -> None:
    """By then the heir is the worker that asks."""

    async def scenario(cluster: Cluster) -> None:
        dead, heir = await cluster.start(2)
        client = Client()
        await dead.connect(client)
        await dead.kill()
        has_it = asyncio.Event()

        async def ask(*question: Any) -> Any:
            await has_it.wait()
            return await cluster.ask(*question)

        heir.cluster = SimpleNamespace(ask=ask, numbers=cluster.numbers)  # type: ignore
        coming = asyncio.create_task(heir.connect(client))
        await asyncio.sleep(0)
        await cluster.inherit(dead, heir)
        has_it.set()
        await coming
        assert client.recovered, client.reason

    run(scenario)


def test_one_that_comes_back_before_the_heir_has_given_it_what_was_kept(run: Any) -> None:
    """The heir's position counts what the router had kept for the client. The worker to which the
    client comes back drops it, so the heir must have written it first."""

    async def scenario(cluster: Cluster) -> None:
        dead, heir, other = await cluster.start(3)
        client = Client()
        await dead.connect(client)
        await other.emit_to(client.sid)
        await until(lambda: client.take() or client.events)
        position = dead.reader().position(CLUSTER.channel, [dead.tag])
        await dead.kill()
        stand_in = StandIn(cluster.run_dir, CLUSTER, position)
        await other.emit_to(client.sid)
        await until(lambda: any(stand_in._kept))
        held = await asyncio.to_thread(stand_in.stop)
        given = asyncio.Event()
        deliver_pending = heir.manager._subscriber._deliver_pending

        def deliver_later(deliver: Any) -> Any:
            if given.is_set():
                yield from deliver_pending(deliver)

        heir.manager._subscriber._deliver_pending = deliver_later
        heir.manager.expect([dead.tag])
        await heir.manager.inherit([(dead.reader(), time.monotonic())], asyncio.sleep)
        heir.manager.adopt(held)
        cluster.set_members()
        coming = asyncio.create_task(other.connect(client))
        await until(lambda: (dead.tag, "fetch") in cluster.asked)
        await asyncio.sleep(0.1)  # it would be answered by then
        assert not coming.done()
        given.set()
        await coming
        assert client.recovered, client.reason
        await until(lambda: client.take() or client.events[f"{other.tag} alone"] == [1, 2])

    run(scenario)


def test_the_home_of_a_guest_comes_to_where_it_is(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        home, there, other = await cluster.start(3)
        client = Client()
        await home.connect(client)
        client.lose()
        await there.connect(client)
        await home.kill()
        await cluster.inherit(home, there)
        for number in range(3):
            await other.emit_to(client.sid)
            await there.manager.enter_room(client.sid, "/", number)
            await other.manager.enter_room(client.sid, "/", f"{number}")

        def has_all() -> bool:
            client.take()
            return client.events.get(f"{other.tag} alone") == [1, 2, 3]

        await until(has_all)
        rooms = {client.sid, 0, 1, 2, "0", "1", "2"}
        await until(lambda: set(there.manager.get_rooms(client.sid, "/")) == rooms)
        client.lose()
        await other.emit_to(client.sid)
        await other.emit()
        await other.connect(client)
        assert client.recovered, client.reason
        assert client.events[f"{other.tag} alone"] == [1, 2, 3, 4]
        client.assert_whole()

    run(scenario)


# --- of a worker that has passed its clients on -------------------------------------------------


def test_a_client_that_was_taken_over(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        old, new, other = await cluster.start(3)
        client = Client()
        await old.connect(client)
        await old.manager.enter_room(client.sid, "/", "red")
        for _ in range(3):
            await other.emit(room="red")
        await until(lambda: len(old.got.get(client.eio_sid, ())) == 3)
        client.take(most=2)
        sid, eio_sid = client.sid, client.eio_sid

        position = old.manager.detach()
        with old.manager._tables:
            state = json.loads(json.dumps(old.manager.save_recovery(sid)))
            old.manager.forget_recovery(sid)
            old.manager._take_out(sid, "/")
        stand_in = StandIn(cluster.run_dir, CLUSTER, position)
        await other.emit(room="red")
        held = await asyncio.to_thread(stand_in.stop)
        new.manager.expect([old.tag])
        await new.manager.inherit([(old.reader(), time.monotonic())], asyncio.sleep)
        assert new.manager.lost == 0
        new.sessions[eio_sid] = {}
        with new.manager._tables:
            new.manager._take_in(sid, eio_sid, "/", [sid, "red"])
            new.manager.restore_recovery(Saved(state, "recovery"), eio_sid)
        new.manager.adopt(held)
        await old.kill()
        cluster.set_members()
        await other.emit(room="red")
        await until(lambda: len(new.got.get(eio_sid, ())) == 2)
        client.worker = new
        client.lose(take=False)  # it has got nothing of all that
        await other.emit(room="red")
        await other.connect(client)
        assert client.recovered, client.reason
        assert client.events == {other.tag: [1, 2, 3, 4, 5, 6]}

    run(scenario)


@pytest.mark.parametrize("at", ["claim", "fetch", "taken"])
def test_its_worker_dies_while_it_is_asked_about_it(run: Any, at: str) -> None:
    """The asking worker inherits it, with all other clients of the dead one."""

    async def scenario(cluster: Cluster) -> None:
        first, second = await cluster.start(2)
        clients = [Client() for _ in range(5)]
        for client in clients:
            await first.connect(client)
            await first.emit_to(client.sid)
        ask = cluster.ask

        async def ask_the_heir(tag: str, question: Any, packets: Any = ()) -> Any:
            if question["do"] == at and first in cluster.workers:
                await first.kill()
                cluster.set_members()
                await cluster.inherit(first, second)
            return await ask(tag, question, packets)

        cluster.ask = ask_the_heir  # type: ignore[method-assign]
        clients[0].lose()
        for client in clients:
            client.take()
            sid = client.sid
            began = time.monotonic()
            await second.connect(client)
            assert client.recovered and client.sid == sid, client.reason
            assert len(client.events) == 1
            # It does not wait for what the dead one would have heard.
            assert time.monotonic() - began < RECOVERY_WAIT
        assert len(second.manager._known) == len(clients) and not second.manager.lost

    run(scenario)


@pytest.mark.parametrize("at", ["fetch", "taken"])
@pytest.mark.parametrize("adopted", [True, False])
def test_its_worker_dies_while_it_comes_back_to_its_first_one(
    run: Any, adopted: bool, at: str
) -> None:
    """The first worker knows it from before, and inherits it now, unless another worker does."""

    async def scenario(cluster: Cluster) -> None:
        home, dead = await cluster.start(2)
        client = Client()
        await home.connect(client)
        client.lose()
        await dead.connect(client)
        await home.manager.confirm(cluster.ask)
        await dead.emit_to(client.sid)
        await until(lambda: dead.got.get(client.eio_sid))
        client.lose()
        sid = client.sid
        ask = cluster.ask

        async def ask_the_heir(tag: str, question: Any, packets: Any = ()) -> Any:
            if question["do"] == at and dead in cluster.workers:
                await dead.kill()
                if adopted:
                    await cluster.inherit(dead, home)
                else:
                    home.manager.expect([dead.tag])
                    await home.manager.inherit([(dead.reader(), time.monotonic())], asyncio.sleep)
                assert home.manager.lost == 1
                if not adopted:
                    home.manager.not_adopted([dead.tag])
            return await ask(tag, question, packets)

        cluster.ask = ask_the_heir  # type: ignore[method-assign]
        await home.connect(client)
        if adopted:
            assert client.recovered and client.sid == sid, client.reason
            assert sid in home.manager._known and sid not in home.manager._moved
        else:
            assert client.sid != sid
            assert sid not in home.manager._known and home.manager._moved[sid].tag == dead.tag
        assert not home.manager.lost and not home.manager._returning

    run(scenario)


def test_who_had_it_dies_while_it_comes_back_to_its_first_one(run: Any) -> None:
    """It comes from a third worker, which keeps it: the dead one's journal says where it is."""

    async def scenario(cluster: Cluster) -> None:
        home, dead, there = await cluster.start(3)
        client = Client()
        for worker in (home, dead, there):
            await worker.connect(client)
            client.lose()
        sid = client.sid
        ask = cluster.ask

        async def refuse(tag: str, question: Any, packets: Any = ()) -> Any:
            if question["do"] == "fetch":
                await dead.kill()
                await cluster.inherit(dead, home)
                return {"reason": reasons.NO_OWNER}, []
            return await ask(tag, question, packets)

        cluster.ask = refuse  # type: ignore[method-assign]
        await home.connect(client)
        assert client.sid != sid
        assert home.manager._moved[sid].tag == there.tag
        await home.manager.confirm(ask)
        assert not home.manager.lost and there.manager.lost == 1

    run(scenario)
