"""Events that are not kept any more are skipped only when the client has certainly received
them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from supervisor_sio.cluster import keeping
from supervisor_sio.cluster.lost import decode
from supervisor_sio.common.reasons import NOT_KEPT

from .recovering import Client, Cluster, Worker

#: More than the journals here keep.
MANY = 100


@pytest.fixture(autouse=True)
def soon_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "_SENT_LATER", 0.0)


async def drop_some(worker: Worker) -> None:
    """Drop events that are older than what a lost client usually lacks."""
    eio = worker.server.eio
    eio.ping_interval = eio.ping_timeout = 0.01
    for _ in range(MANY):
        await worker.emit()
    worker.manager.send_collected()
    assert worker.manager.journal.dropped[0] > 1
    await asyncio.sleep(0.1)


async def connect(worker: Worker) -> Client:
    client = Client()
    await worker.connect(client)
    await worker.emit()
    client.take()
    return client


def test_a_client_with_a_backlog_is_lost(run: Any) -> None:
    """It has answered no ping since; the output that it had yet to take is gone."""

    async def scenario(cluster: Cluster) -> None:
        (worker,) = await cluster.start(1, recovery_messages=16)
        client = await connect(worker)
        worker.pings[client.eio_sid] = time.monotonic(), False
        await drop_some(worker)
        client.lose(take=False)
        await worker.connect(client)
        assert not client.recovered and client.reason == NOT_KEPT

    run(scenario)


@pytest.mark.parametrize("behind", [False, True])
def test_the_worker_of_a_client_dies(run: Any, behind: bool) -> None:
    """A client that answers pings late has that in its state; any other had received such old
    events."""

    async def scenario(cluster: Cluster) -> None:
        dead, heir = await cluster.start(2, recovery_messages=16)
        client = await connect(dead)
        if behind:
            dead.pings[client.eio_sid] = time.monotonic(), True
            dead.manager.note_behind(client.eio_sid, True)
        await drop_some(dead)
        heir.server.eio.ping_interval = heir.server.eio.ping_timeout = 0.01
        if not behind:
            client.take()
            client.offset = f"{dead.tag}.1"  # as if all the others had been for others
        dead.sessions.clear()
        await dead.kill()
        await cluster.inherit(dead, heir)
        await heir.connect(client)
        assert client.recovered is not behind
        assert client.reason == (NOT_KEPT if behind else None)

    run(scenario)


def test_a_client_catches_up(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        (worker,) = await cluster.start(1)
        client = await connect(worker)
        worker.pings[client.eio_sid] = 5.0, True
        worker.manager.note_behind(client.eio_sid, True)
        for behind in (True, False):
            worker.manager.note_behind(client.eio_sid, behind)
            state = decode(dict(worker.reader().states())[client.pid])
            assert state.flag("behind") is behind and state.seconds("known") == 5.0

    run(scenario)


def test_pings_from_before_it_came_back_say_nothing(run: Any) -> None:
    """The missed events are sent only then, so the earlier time still counts."""

    async def scenario(cluster: Cluster) -> None:
        (worker,) = await cluster.start(1, recovery_messages=16)
        client = await connect(worker)
        client.lose()
        known = worker.manager._known[client.sid].known
        await worker.connect(client)
        assert client.recovered
        worker.pings[client.eio_sid] = worker.manager._known[client.sid].back - 0.001, False
        client.lose(take=False)
        assert worker.manager._known[client.sid].known == known
        await worker.connect(client)
        assert client.recovered
        later = time.monotonic()
        worker.pings[client.eio_sid] = later, False
        client.lose(take=False)
        assert worker.manager._known[client.sid].known == later

    run(scenario)
