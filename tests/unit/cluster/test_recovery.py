"""Clients that lose their connection and come back to the same manager."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace
from typing import Any, Optional

import pytest

from supervisor_sio import AsyncZmqManager
from supervisor_sio.cluster import keeping
from supervisor_sio.cluster.offsets import Asked
from supervisor_sio.common import reasons

from .recovering import Client, Cluster, until

# --- to the same worker ---------------------------------------------------------------------


def test_to_the_same_worker(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        (worker,) = await cluster.start(1)
        client, other = Client(), Client()
        await worker.connect(client)
        await worker.connect(other)
        await worker.manager.enter_room(client.sid, "/", "red")
        await worker.server.save_session(client.sid, {"name": "x"})
        sid, pid = client.sid, client.pid
        await worker.emit()
        client.lose()
        assert worker.manager.lost == 1
        await worker.emit()
        await worker.emit(room="red")
        await worker.emit(room=sid)
        await worker.emit(room="blue")
        await worker.emit(skip_sid=sid)
        await worker.emit(except_room="red")
        await worker.manager.leave_room(sid, "/", "red")
        await worker.emit(room="red")
        await worker.connect(client)
        assert (client.recovered, client.reason, client.sid, client.pid) == (True, None, sid, pid)
        assert client.events == {worker.tag: [1, 2, 3, 4]}
        await worker.emit()
        client.take()
        assert client.events == {worker.tag: [1, 2, 3, 4, 9]}
        assert await worker.server.get_session(sid) == {"name": "x"}
        assert worker.manager.lost == 0
        # Once more, without an event in between.
        client.lose()
        await worker.connect(client)
        assert client.recovered and client.events == {worker.tag: [1, 2, 3, 4, 9]}
        assert worker.manager.recovered == 2

    run(scenario)


def test_before_the_first_event(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        (worker,) = await cluster.start(1)
        client = Client()
        await worker.emit()
        await worker.connect(client)
        client.lose()
        await worker.emit()
        await worker.connect(client)
        assert client.recovered and client.events == {worker.tag: [2]}

    run(scenario)


def test_what_comes_while_a_thread_connects_it(run: Any) -> None:
    """It comes behind the answer to the client, and once."""

    async def scenario(cluster: Cluster) -> None:
        worker, other = await cluster.start(2)
        client, heard = Client(), Client()
        await worker.connect(heard)
        client.eio_sid, client.worker = "eio", worker
        worker.sessions["eio"] = {}
        sid = worker.manager._pre_connect("eio", "/")
        assert sid is not None
        client.sid, client.pid = sid, worker.manager.begin(sid, "/", Asked(True, None, None, None))
        calls: list[Any] = []
        in_loop, worker.threads = (
            worker.threads,
            SimpleNamespace(here=False, run=lambda size, call, *args: calls.append((call, args))),
        )
        worker.concurrent = True
        worker.manager._connect(sid, "/")
        worker.threads, worker.concurrent = in_loop, False
        await other.emit()
        await until(lambda: worker.got.get(heard.eio_sid))
        assert "eio" not in worker.got
        for call, args in calls:
            call(*args)
        await other.emit()
        await until(lambda: len(worker.got["eio"]) == 2)
        client.lose(take=False)
        await worker.connect(client)
        assert client.recovered and client.events == {other.tag: [1, 2]}

    run(scenario)


def test_what_was_on_its_way(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        (worker,) = await cluster.start(1)
        client = Client()
        await worker.connect(client)
        for _ in range(10):
            await worker.emit()
        client.take(most=4)
        client.lose(take=False)
        await worker.connect(client)
        assert client.recovered and client.events == {worker.tag: list(range(1, 11))}

    run(scenario)


def test_a_connection_that_is_open_yet(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        (worker,) = await cluster.start(1)
        client = Client()
        await worker.connect(client)
        old = client.eio_sid
        worker.silent.add(old)
        await worker.emit()
        await worker.connect(client)
        assert client.recovered and client.events == {worker.tag: [1]}
        assert worker.closed == [old]

    run(scenario)


@pytest.mark.parametrize(
    ("pid", "offset", "reason"),
    [
        (None, "00000001.ffff", reasons.UNKNOWN_OFFSET),
        (None, "nonsense", reasons.UNKNOWN_OFFSET),
        (None, "00000007.1", reasons.UNKNOWN_OFFSET),
        ("00000001.aaaaaaaaaaaaaaaaaaaa", None, reasons.UNKNOWN_PID),
        ("00000009.aaaaaaaaaaaaaaaaaaaa", None, reasons.UNKNOWN_PID),
        ("", None, reasons.UNKNOWN_PID),
    ],
)
def test_what_clients_make_up(
    run: Any, pid: Optional[str], offset: Optional[str], reason: str
) -> None:
    async def scenario(cluster: Cluster) -> None:
        (worker,) = await cluster.start(1)
        client = Client()
        await worker.connect(client)
        await worker.emit()
        client.lose()
        sid = client.sid
        if pid is not None:
            client.pid = pid
        client.offset = client.offset if offset is None else offset
        await worker.connect(client)
        assert (client.recovered, client.reason) == (False, reason)
        assert client.sid != sid

    run(scenario)


def test_those_who_do_not_come_back(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        (worker,) = await cluster.start(1)
        client = Client()
        await worker.connect(client)
        eio_sid, sid = client.eio_sid, client.sid
        client.lose()
        now = time.monotonic()
        assert worker.manager.expire(now + 59) == []
        assert worker.manager.expire(now + 61) == [(eio_sid, sid, "/", "transport close")]
        await worker.manager.disconnect(sid, "/", ignore_queue=True)
        assert worker.manager.lost == 0 and not worker.manager._known
        await worker.connect(client)
        assert client.reason == reasons.UNKNOWN_PID

    run(scenario)


def test_data_that_is_not_json(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    keeping._told.clear()

    async def scenario(cluster: Cluster) -> None:
        worker, other = await cluster.start(2)
        for here in (worker, other):
            client = Client()
            await worker.connect(client)
            for _ in range(2):
                await worker.server.save_session(client.sid, {"at": object()})
            assert not worker.manager.lose(client.sid, "/", "transport close")
            worker.manager.basic_disconnect(client.sid, "/")
            sid, pid = client.sid, client.pid
            await here.connect(client)
            assert client.reason == reasons.NOT_SAVED
            assert client.sid != sid and client.pid != pid

    run(scenario)
    assert caplog.text.count("a client cannot come back to its session: session data at is") == 1


def test_so_many_are_known_to_be_gone(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "CLIENTS_GONE", 2)

    async def scenario(cluster: Cluster) -> None:
        (worker,) = await cluster.start(1)
        clients = [Client() for _ in range(3)]
        for client in clients:
            await worker.connect(client)
            await worker.server.save_session(client.sid, {"at": object()})
            assert not worker.manager.lose(client.sid, "/", "transport close")
            worker.manager.basic_disconnect(client.sid, "/")
        for client in clients:
            await worker.connect(client)
        found = [client.reason for client in clients]
        assert found == [reasons.UNKNOWN_PID, reasons.NOT_SAVED, reasons.NOT_SAVED]

    run(scenario)


def test_who_cannot_come_back_gets_no_offset(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        (worker,) = await cluster.start(1)
        client = Client()
        await worker.connect(client)
        sid = worker.manager._pre_connect("plain", "/")
        worker.sessions["plain"] = {}
        assert worker.manager.begin(sid, "/", Asked(False, None, None, None)) is None
        await worker.manager.connect(sid, "/")
        await worker.emit()
        await worker.emit(volatile=True)
        assert worker.got["plain"] == [f'2["n",["{worker.tag}",{n}]]' for n in (1, 2)]
        texts = [f'2["n",["{worker.tag}",{n}],"{worker.tag}.1"]' for n in (1, 2)]
        assert worker.got[client.eio_sid] == texts
        assert not worker.manager.lose(sid, "/", "transport close")

    run(scenario)


@pytest.mark.parametrize(
    "options",
    [
        {"recovery": -1},
        {"recovery": "60"},
        {"recovery": True},
        {"recovery": math.nan},
        {"recovery": 60, "recovery_messages": 0},
        {"recovery": 60, "recovery_maxbytes": 1.5},
        {"recovery": 60, "write_only": True},
    ],
)
def test_options_that_cannot_be(options: Any) -> None:
    with pytest.raises(ValueError, match="recovery"):
        AsyncZmqManager(url="zmq+ipc:///run/none", **options)
