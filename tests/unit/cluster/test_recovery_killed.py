"""A worker is killed while a client comes back to it: what its journal says then."""

from __future__ import annotations

import asyncio
from typing import Any, List

from supervisor_sio.cluster.lost import decode

from .test_recovery import Client, Cluster, until
from .test_recovery import run as run  # noqa: F401
from .test_recovery import run_dir as run_dir  # noqa: F401


def test_what_was_missed_is_not_written_twice(run: Any) -> None:  # noqa: F811
    """Until all of it is written anew, nobody else may send it from there."""

    async def scenario(cluster: Cluster) -> None:
        dead, heir = await cluster.start(2)
        client = Client()
        await dead.connect(client)
        await dead.emit()
        client.take()
        dead.disconnect(client.eio_sid)
        for _ in range(3):
            await dead.emit()
        await dead.kill()
        await cluster.inherit(dead, heir)
        said: List[str] = []
        send_alone = heir.manager._send_alone

        def killed_here(*args: Any) -> None:
            state = dict(heir.reader().states())[client.pid]
            said.append(dict(decode(state).pairs())["not"])
            send_alone(*args)

        heir.manager._send_alone = killed_here
        await heir.connect(client)
        assert client.recovered, client.reason
        assert len(said) == 3 and all(said)
        state = dict(heir.reader().states())[client.pid]
        assert dict(decode(state).pairs())["not"] == ""
        assert client.events[dead.tag] == [1, 2, 3, 4]

    run(scenario)


def test_who_had_a_client_before_inherits_it(run: Any) -> None:  # noqa: F811
    async def scenario(cluster: Cluster) -> None:
        home, dead, other = await cluster.start(3)
        client = Client()
        await home.connect(client)
        client.lose()
        await dead.connect(client)
        await dead.emit()
        await dead.kill()
        over = False

        async def emit() -> None:
            while not over:
                for one in (home, other):
                    await one.emit_to(client.sid)
                await asyncio.sleep(0.001)

        emitting = asyncio.create_task(emit())
        await cluster.inherit(dead, home)
        assert home.manager.lost == 1
        await asyncio.sleep(0.05)
        await other.connect(client)
        assert client.recovered, client.reason
        over = True
        await emitting

        def has_all() -> bool:
            client.take()
            return all(
                client.events.get(f"{one.tag} alone", [0])[-1] == one.sent_alone
                for one in (home, other)
            )

        await until(has_all)
        client.assert_whole()
        assert all(numbers[0] == 1 for numbers in client.events.values())

    run(scenario)


def test_it_goes_on_where_it_is_when_the_heir_is_another_one(run: Any) -> None:  # noqa: F811
    async def scenario(cluster: Cluster) -> None:
        home, dead, _ = await cluster.start(3)
        client = Client()
        await home.connect(client)
        client.lose()
        await dead.connect(client)
        await dead.kill()
        home.manager.expect([dead.tag])
        await home.manager.inherit([(dead.reader(), 0.0)], asyncio.sleep)
        assert home.manager.lost == 1 and not home.manager._moved
        home.manager.not_adopted([dead.tag])
        assert home.manager.lost == 0 and home.manager._moved[client.sid].tag == dead.tag

    run(scenario)
