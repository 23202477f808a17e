"""Events that are emitted in one turn of the loop: they are written, and sent to clients of the
same process, together."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, List

import pytest

from .recovering import Client, Cluster, Worker

COUNT = 10


def offsets(worker: Worker, client: Client) -> List[str]:
    """The offsets of the events that a client has received but not taken."""
    texts = worker.got.get(client.eio_sid, [])
    return [text[:-2].rpartition('"')[2] for text in texts]


async def connect(worker: Worker) -> Client:
    client = Client()
    await worker.connect(client)
    for _ in range(2):  # the first event of the next turn waits as well
        await worker.emit()
    await asyncio.sleep(0)
    client.take()
    return client


def writes(worker: Worker) -> List[int]:
    """How many events were written at once, each time."""
    counts: List[int] = []
    journal: Any = worker.manager.journal
    event, events = journal.event, journal.events

    def one(*args: Any) -> Any:
        counts.append(1)
        return event(*args)

    def several(message: Any, scope: Any) -> Any:
        counts.append(len(message.run))
        return events(message, scope)

    journal.event, journal.events = one, several
    return counts


def test_they_are_written_and_sent_together(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        (worker,) = await cluster.start(1)
        client = await connect(worker)
        counts, last = writes(worker), worker.manager.journal.last
        for _ in range(COUNT):
            await worker.emit()
        assert not worker.got.get(client.eio_sid) and not counts
        await asyncio.sleep(0)
        assert counts == [COUNT]
        numbers = range(last + 1, last + 1 + COUNT)
        assert offsets(worker, client) == [f"{worker.tag}.{number:x}" for number in numbers]
        client.take()
        client.assert_whole()
        client.lose()
        await worker.connect(client)
        assert client.recovered, client.reason

    run(scenario)


def test_they_are_written_before_they_are_published(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(cluster: Cluster) -> None:
        (worker,) = await cluster.start(1)
        await connect(worker)
        publisher: Any = worker.manager._publisher
        journal: Any = worker.manager.journal
        sent: List[Any] = []
        send = publisher._send_frame

        def send_frame(topic: bytes, data: bytes) -> None:
            sent.append((journal.last, publisher.sent))
            send(topic, data)

        monkeypatch.setattr(publisher, "_send_frame", send_frame)
        for _ in range(COUNT):
            await worker.emit()
        assert not sent
        await asyncio.sleep(0)
        assert sent == [(worker.sent, worker.sent)]

    run(scenario)


def test_they_are_written_when_the_publisher_has_sent_them(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        (worker,) = await cluster.start(1)
        client = await connect(worker)
        counts = writes(worker)
        for _ in range(3):
            worker.sent += 1
            await worker.manager.emit("n", [worker.tag, worker.sent, "x" * 9000])
        assert counts == [1, 1]
        await worker.emit()
        await asyncio.sleep(0)
        client.take()
        client.assert_whole()

    run(scenario)


@pytest.mark.parametrize("how", ["room", "alone", "volatile", "local", "ack", "long"])
def test_what_comes_between_keeps_its_place(run: Any, how: str) -> None:
    """Events that are not collected are sent behind those that are."""

    async def scenario(cluster: Cluster) -> None:
        (worker,) = await cluster.start(1)
        client = await connect(worker)
        between: dict[str, Any] = {
            "room": {"room": ["a", "b", client.sid]},
            "alone": {"room": client.sid},
            "volatile": {"volatile": True},
            "local": {"local": True},
            "ack": {"room": client.sid, "callback": print},
            "long": {},
        }[how]
        data = "x" * 20_000 if how == "long" else ""
        await worker.emit()
        await worker.emit()
        worker.sent += 1
        await worker.manager.emit("n", [worker.tag, worker.sent, data], **between)
        await worker.emit()
        await asyncio.sleep(0)
        client.take()
        assert client.events[worker.tag][-1] == worker.sent
        client.assert_whole()

    run(scenario)


def test_they_go_to_who_is_in_the_room_at_that_time(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        (worker,) = await cluster.start(1)
        stays, moves = await connect(worker), await connect(worker)
        stays.take()
        await worker.manager.enter_room(stays.sid, "/", "red")
        first = worker.sent + 1
        for change in (worker.manager.enter_room, worker.manager.leave_room, None):
            await worker.emit(room="red")
            await worker.emit(room="red")
            if change is not None:
                await change(moves.sid, "/", "red")
        moves.lose()
        await worker.connect(moves)
        stays.take()
        assert moves.recovered
        assert moves.events[worker.tag][-2:] == [first + 2, first + 3]
        assert stays.events[worker.tag][-6:] == list(range(first, first + 6))

    run(scenario)


def test_a_client_that_connects_meanwhile(run: Any) -> None:
    """It gets what is emitted from then on."""

    async def scenario(cluster: Cluster) -> None:
        (worker,) = await cluster.start(1)
        await connect(worker)
        client = Client()
        await worker.emit()
        await worker.emit()
        await worker.connect(client)
        assert not client.events
        await worker.emit()
        await worker.emit()
        client.lose()
        await worker.connect(client)
        assert client.recovered
        assert client.events[worker.tag] == [worker.sent - 1, worker.sent]

    run(scenario)


def test_another_thread_comes_behind_them(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The events are sent by the loop, also if another thread has written them."""

    async def scenario(cluster: Cluster) -> None:
        (worker,) = await cluster.start(1)
        client = await connect(worker)
        for _ in range(3):
            await worker.emit()
        last = worker.manager.journal.last
        found: List[int] = []

        def look() -> None:
            with worker.manager._tables:
                found.append(worker.manager.journal.last)

        with monkeypatch.context() as patch:
            patch.setattr(worker.threads, "here", False)
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
        assert found == [last + 3]
        assert not worker.got.get(client.eio_sid)
        await asyncio.sleep(0)
        assert len(offsets(worker, client)) == 3

    run(scenario)


def test_one_that_fails_is_counted_and_the_others_are_sent(
    run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(cluster: Cluster) -> None:
        (worker,) = await cluster.start(1)
        client = await connect(worker)
        await worker.emit()
        await worker.emit(skip_sid=[["not a sid"]])
        await worker.emit()
        await asyncio.sleep(0)
        client.take()
        first, second = client.events[worker.tag][-2:]
        assert second == first + 2
        assert any("TypeError" in line for line in caplog.messages)

    run(scenario)
