"""The application disconnects a client that is moving from one worker to another."""

from __future__ import annotations

import asyncio
from typing import Any, List, Tuple

import pytest

from .recovering import Client, Cluster, Worker, until


def note_ends(cluster: Cluster) -> List[Tuple[str, str]]:
    """Note the calls of ``disconnect`` handlers, by worker and sid."""
    told: List[Tuple[str, str]] = []
    for worker in cluster.workers:

        def note(sid: str, reason: str, tag: str = worker.tag) -> None:
            told.append((tag, sid))

        worker.server.on("disconnect", note)
    return told


@pytest.mark.parametrize("guest, before", [(False, "fetch"), (True, "taken")])
@pytest.mark.parametrize(
    "by, how", [("owner", "all"), ("new one", "all"), ("other", "all"), ("new one", "server")]
)
def test_its_handler_is_called_once(run: Any, by: str, how: str, guest: bool, before: str) -> None:
    """By whichever of the two has it: it is in the tables of both.

    :param guest: whether it comes back to the worker that its session id names.
    """

    async def scenario(cluster: Cluster) -> None:
        owner, there, other = await cluster.start(3)
        client = Client()
        if guest:
            await there.connect(client)
            client.lose()
        await owner.connect(client)
        sid = client.sid
        await owner.manager.enter_room(sid, "/", "red")
        client.lose()
        told = note_ends(cluster)
        ask = cluster.ask

        async def disconnect_first(tag: str, question: Any, packets: Any = ()) -> Any:
            if question["do"] == before:
                await disconnect(by_whom, how, sid)
                await asyncio.sleep(0.1)
            return await ask(tag, question, packets)

        by_whom = {"owner": owner, "new one": there, "other": other}[by]
        cluster.ask = disconnect_first  # type: ignore[method-assign]
        await there.connect(client)
        managers = [worker.manager for worker in cluster.workers]
        await until(lambda: told and not any(sid in one._known for one in managers))
        await owner.manager.confirm(ask)
        await asyncio.sleep(0.05)
        assert [one for _, one in told] == [sid]
        assert not any(one.lost or sid in one._known for one in managers)

    run(scenario)


async def disconnect(worker: Worker, how: str, sid: str) -> None:
    if how == "all":
        await worker.manager.disconnect_sockets(room="red")
    else:
        await worker.server.disconnect(sid)


@pytest.mark.parametrize("how", ["all", "server"])
def test_it_is_disconnected_where_it_comes(run: Any, how: str) -> None:
    """The disconnect reaches the new worker before the client, and its owner after it."""

    async def scenario(cluster: Cluster) -> None:
        owner, there = await cluster.start(2)
        client = Client()
        await owner.connect(client)
        await owner.manager.enter_room(client.sid, "/", "red")
        client.lose()
        told = note_ends(cluster)
        ask = cluster.ask

        async def disconnect_then(tag: str, question: Any, packets: Any = ()) -> Any:
            answer = await ask(tag, question, packets)
            if question["do"] == "taken":
                await disconnect(there, how, client.sid)
                await asyncio.sleep(0.05)
                assert not told
            return answer

        cluster.ask = disconnect_then  # type: ignore[method-assign]
        await there.connect(client)
        assert client.recovered
        await until(lambda: told and not there.manager._known)
        assert told == [(there.tag, client.sid)]

    run(scenario)
