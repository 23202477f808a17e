"""Limits for clients that come back: memory, numbers, and how long a worker waits for another."""

from __future__ import annotations

import asyncio
import json
import time
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor_sio.cluster import early, handing_over, inheriting, recovery, recovery_base
from supervisor_sio.cluster.missed import NotRecovered
from supervisor_sio.cluster.offsets import Asked
from supervisor_sio.common.limits import OUTPUT_OBJECT, RECOVERY_HOPS
from supervisor_sio.common.reasons import (
    IN_USE,
    INCOMPLETE,
    LOST_FULL,
    NO_OWNER,
    NOT_KEPT,
)
from supervisor_sio.relay.journal_format import Heard

from .recovering import Client, Cluster, until

WAIT = 0.3


def test_so_many_may_be_away(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the limit, the clients that were lost first expire."""
    monkeypatch.setattr(recovery, "CLIENTS_LOST", 3)

    async def scenario(cluster: Cluster) -> None:
        (worker,) = await cluster.start(1)
        clients = [Client() for _ in range(8)]
        for client in clients:
            await worker.connect(client)
            client.lose()
        over = worker.manager.expire(time.monotonic())
        assert [sid for _, sid, _, _ in over] == [client.sid for client in clients[:5]]
        assert worker.manager.lost == 3 and not worker.manager.expire(time.monotonic())
        for _, sid, namespace, _ in over:
            await worker.manager.disconnect(sid, namespace, ignore_queue=True)
        first, *_, last = clients
        await worker.connect(last)
        assert last.recovered
        await worker.connect(first)
        assert first.recovered is False and first.reason == LOST_FULL

    run(scenario)


def test_many_who_come_with_one_pid_at_the_same_time(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The missed events are in memory once, not for each connection."""

    async def scenario(cluster: Cluster) -> None:
        (worker,) = await cluster.start(1)
        first = Client()
        await worker.connect(first)
        first.lose()
        for _ in range(20):
            await worker.emit()
        reads: list[Any] = []
        check_unused, go_on = worker.manager._check_unused, asyncio.Event()

        async def check_later(client: Any) -> Any:
            await go_on.wait()
            return await check_unused(client)

        monkeypatch.setattr(worker.manager, "_check_unused", check_later)
        missed = worker.manager._missed
        monkeypatch.setattr(
            worker.manager, "_missed", lambda *args: reads.append(missed(*args)) or reads[-1]
        )
        clients = [Client() for _ in range(9)]
        for client in clients:
            client.pid, client.offset = first.pid, first.offset
        came = [asyncio.ensure_future(worker.connect(client)) for client in clients]
        await until(lambda: sum(one.done() for one in came) == 7)
        assert not reads  # who is not asked yet has nothing in memory
        go_on.set()
        await asyncio.gather(*came)
        assert [client.recovered for client in clients] == [True, *[False] * 8]
        assert {client.reason for client in clients[1:]} == {IN_USE}
        assert len(reads) == 1  # of the first
        assert not worker.manager._coming
        clients[0].take()
        assert clients[0].events == {worker.tag: list(range(1, 21))}

    run(scenario)


def test_what_does_not_come_is_waited_for_for_so_long(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the worker that has the client: until it has heard what the other one has. It sleeps
    meanwhile."""
    monkeypatch.setattr(handing_over, "RECOVERY_WAIT", WAIT)

    async def scenario(cluster: Cluster) -> None:
        (worker,) = await cluster.start(1)
        client = Client()
        await worker.connect(client)
        client.lose()
        slept: list[float] = []
        sleep = worker.manager._sleep

        async def note_sleep(seconds: float) -> None:
            slept.append(seconds)
            await sleep(seconds)

        monkeypatch.setattr(worker.manager, "_sleep", note_sleep)
        heard = Heard({"nobody": 7}, {"nobody": time.monotonic()}, {})
        question = {"do": "fetch", "pid": client.pid, "namespace": "/", "tag": "ffffffff"}
        question["offset"] = client.offset
        began = time.monotonic()
        answer = await worker.manager.answer_claim(question, [[json.dumps(heard.to_json())]])
        assert answer == ({"reason": INCOMPLETE}, ())
        assert time.monotonic() - began >= WAIT
        assert 0 < len(slept) <= WAIT / recovery_base.LOOK + 1
        await worker.connect(client)
        assert client.recovered

    run(scenario)


def test_a_sender_that_is_behind_is_waited_for_for_so_long(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new worker waits for it until all fetched messages have arrived."""
    monkeypatch.setattr(recovery_base, "RECOVERY_WAIT", WAIT)

    async def scenario(cluster: Cluster) -> None:
        (worker,) = await cluster.start(1)
        client = Client()
        await worker.connect(client)
        client.lose()
        worker.manager._expected = frozenset([worker.tag])
        began = time.monotonic()
        await worker.connect(client)
        assert client.recovered is False and client.reason == NO_OWNER
        assert time.monotonic() - began >= WAIT

    run(scenario)


def test_so_much_that_comes_for_one_is_held(
    run: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Over the limit, the client stays with its owner, which is logged once."""
    monkeypatch.setattr(early, "EARLY_OUTPUT", 3 * OUTPUT_OBJECT)

    async def scenario(cluster: Cluster) -> None:
        first, second = await cluster.start(2)
        client = Client()
        await first.connect(client)
        client.lose()

        async def ask(tag: str, question: Any, packets: Any = ()) -> Any:
            answer = await cluster.ask(tag, question, packets)
            if question["do"] == "fetch":
                for _ in range(20):
                    await second.emit()
            return answer

        second.cluster = SimpleNamespace(ask=ask, numbers=cluster.numbers)  # type: ignore
        await second.connect(client)
        assert client.recovered is False and client.reason == INCOMPLETE
        assert [do for _, do in cluster.asked] == ["claim", "fetch", "not_taken"]
        assert first.manager.lost == 1 and not second.manager._early
        assert sum("too much is emitted to" in line for line in caplog.messages) == 1

    run(scenario)


def test_so_long_another_one_may_take_what_it_has_asked_for(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After that the client is lost at its owner, as before."""
    monkeypatch.setattr(handing_over, "RECOVERY_HANDS", 0.0)

    async def scenario(cluster: Cluster) -> None:
        first, second = await cluster.start(2)
        client = Client()
        await first.connect(client)
        client.lose()
        sid, pid, offset = client.sid, client.pid, client.offset
        await second.connect(client)
        assert client.recovered is False and client.reason == NO_OWNER
        assert cluster.asked[-2:] == [(first.tag, "taken"), (first.tag, "not_taken")]
        assert first.manager.is_connected(sid, "/") and not first.manager._moved
        client.pid, client.offset = pid, offset
        await first.connect(client)
        assert client.recovered and client.sid == sid

    run(scenario)


def test_so_many_are_asked_for_one_client(run: Any) -> None:
    """Also when each worker says that the client has moved to another one."""

    async def scenario(cluster: Cluster) -> None:
        (worker,) = await cluster.start(1)
        asked = []

        async def ask(tag: str, question: Any, packets: Any = ()) -> Any:
            asked.append(tag)
            return {"moved": f"{len(asked):08x}"}, ()

        pid = "bbbbbbbb." + "x" * 20
        reason = await worker.manager.recover("e", {}, "/", Asked(True, pid, None, None), ask)
        assert reason == NO_OWNER
        assert asked == ["bbbbbbbb", *(f"{n:08x}" for n in range(1, RECOVERY_HOPS))]

    run(scenario)


def test_so_many_journals_of_the_dead_are_kept(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older journals are dropped; a client that needs one gets a new session."""
    monkeypatch.setattr(inheriting, "JOURNALS_KEPT", 2)

    async def scenario(cluster: Cluster) -> None:
        heir, *workers = await cluster.start(4)
        clients = []
        for worker in workers:
            client = Client()
            await worker.connect(client)
            await worker.emit_to(client.sid)
            client.take()
            clients.append(client)
        for worker in workers:
            await worker.kill()
            cluster.set_members()
            await cluster.inherit(worker, heir)
            await asyncio.sleep(0)
            assert len(heir.manager._readers) <= 2
        assert list(heir.manager._readers) == [worker.tag for worker in workers[1:]]
        for client in clients:
            await heir.connect(client)
        assert [client.recovered for client in clients] == [False, True, True]
        assert clients[0].reason == NOT_KEPT

    run(scenario)


def test_all_who_wait_are_looked_at_by_one(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few conditions at a time. An error of one is raised to its own waiter."""
    monkeypatch.setattr(recovery_base, "RECOVERY_SLICE", 0.0)

    async def scenario(cluster: Cluster) -> None:
        (worker,) = await cluster.start(1)
        manager = worker.manager
        looks: list[int] = []
        spawned: list[Any] = []
        spawn = manager._spawn

        def note_spawn(*args: Any) -> None:
            spawned.append(args)
            spawn(*args)

        monkeypatch.setattr(manager, "_spawn", note_spawn)
        happened = False

        def condition(number: int) -> bool:
            looks.append(number)
            if happened and not number:
                raise ValueError("it is odd")
            return happened

        for _ in range(2):
            happened = False
            waiting = [
                asyncio.create_task(manager._wait_until(lambda n=n: condition(n)))
                for n in range(50)
            ]
            began = time.monotonic()
            await asyncio.sleep(0.1)
            turns = (time.monotonic() - began) / recovery_base.LOOK
            assert len(looks) <= 50 + turns + 1  # each once, and then one at a time
            happened = True
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert results[1:] == [None] * 49 and str(results[0]) == "it is odd"
            await until(lambda: not manager._looks)
            looks.clear()
        assert len(spawned) == 2 and not manager._waits
        with pytest.raises(NotRecovered, match=NOT_KEPT):
            await manager._wait_until(lambda: False, time.monotonic() + 0.05, NOT_KEPT)
        await until(lambda: not manager._looks)

    run(scenario)


@pytest.mark.parametrize(
    "question",
    [
        {},
        {"do": "claim"},
        {"do": "has", "sids": ["0000000a.sid"], "tags": []},
        {"do": "has", "sids": {"0000000a.sid": "now"}, "tags": []},
    ],
)
def test_a_malformed_question(
    run: Any, caplog: pytest.LogCaptureFixture, question: dict[str, Any]
) -> None:
    async def scenario(cluster: Cluster) -> None:
        (worker,) = await cluster.start(1)
        answer, packets = await worker.manager.answer_claim(question)
        assert answer == {"reason": INCOMPLETE} and not packets
        assert "a malformed question about a client is refused: " in caplog.text

    run(scenario)
