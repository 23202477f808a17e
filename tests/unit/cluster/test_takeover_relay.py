"""Clients move from one manager to another over a relay, while all emit: each event comes once."""

from __future__ import annotations

import asyncio
import os
import random
import time
from functools import partial
from pathlib import Path
from typing import Any, Iterator, List

import pytest

from supervisor_sio import AsyncZmqManager
from supervisor_sio.cluster import relaying
from supervisor_sio.common import identity
from supervisor_sio.common.rundir import ENVIRONMENT_VARIABLE, ClusterInfo, OwnedRunDir
from supervisor_sio.relay.position import Position
from supervisor_sio.relay.publisher import Publisher
from supervisor_sio.relay.registrar import Registrar
from supervisor_sio.relay.stand_in import StandIn
from supervisor_sio.relay.threaded import ThreadSubscriber
from unit.in_loop import make_async_server
from unit.relays import relay_in

CLUSTER = ClusterInfo("moving")


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[OwnedRunDir]:
    with relay_in(tmp_path, CLUSTER) as owned:
        yield owned


class Worker:
    """A manager with its own tag, whose clients only keep what they receive."""

    threads = None
    concurrent = False

    def __init__(self, tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tag = tag
        self.got: dict[str, List[Any]] = {}
        self.sent = 0
        relaying.channels_in_use.clear()
        monkeypatch.setattr(identity, "tag", lambda: tag)
        self.manager = AsyncZmqManager(takeover=True)
        loop = asyncio.get_running_loop()
        self.server = make_async_server(loop, client_manager=self.manager).target
        self.manager._send_through(self)
        self.manager._serves = True
        self.manager.initialize()

    def fan_out(self, eio_sids: Any, packets: Any) -> None:
        for eio_sid in eio_sids:
            self.got.setdefault(eio_sid, []).extend(packets)

    fan_out_volatile = fan_out

    def is_behind(self) -> bool:
        return False

    async def emit(self) -> None:
        self.sent += 1
        await self.manager.emit("n", [self.tag, self.sent])

    async def emit_until(self, stopped: asyncio.Event) -> None:
        while not stopped.is_set():
            await self.emit()
            await asyncio.sleep(random.random() / 200)

    def events_of(self, eio_sid: str) -> dict[str, List[int]]:
        found: dict[str, List[int]] = {}
        for packet in self.got.get(eio_sid, ()):
            tag, number = packet[len('2["n",["') : -2].split('",')
            found.setdefault(tag, []).append(int(number))
        return found

    def has(self, eio_sid: str, tag: str, number: int) -> bool:
        """Whether a client has received that event of that worker, or a later one."""
        return self.events_of(eio_sid).get(tag, [0])[-1] >= number


def assert_in_order(numbers: List[int], last: int) -> None:
    assert numbers == list(range(numbers[0], last + 1))


async def until(condition: Any) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")


def by_descriptor(position: Position) -> Position:
    descriptor = position.write()
    try:
        return Position.read(descriptor)
    finally:
        os.close(descriptor)


async def move_around(run_dir: OwnedRunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    workers = [Worker(f"{number:08x}", monkeypatch) for number in range(3)]
    members = {worker.tag: False for worker in workers}
    for worker in workers:
        worker.manager.set_members(members)
        await worker.manager.wait_joined(lambda: False, asyncio.sleep)
        worker.manager._take_in(f"{worker.tag}.{'own':_>20}", "own", "/", [])
    leaving, other, adopter = workers
    sid = f"{leaving.tag}.{'moves':_>20}"
    leaving.manager._take_in(sid, "moves", "/", [sid, "red"])
    stopped = asyncio.Event()
    emitting = [asyncio.create_task(worker.emit_until(stopped)) for worker in workers]
    await until(lambda: min(worker.sent for worker in workers) > 20)

    position = leaving.manager.detach()
    assert await leaving.manager.wait_settled(1, asyncio.sleep)
    leaving.manager._take_out(sid, "/")
    before = leaving.events_of("moves")
    members = {**members, leaving.tag: False}
    stand_in = StandIn(run_dir, CLUSTER, by_descriptor(position))
    await asyncio.sleep(random.random() / 5)
    await other.manager.emit("to", 1, room=sid)
    await adopter.manager.emit("to", 2, room=[sid, f"{other.tag}.{'own':_>20}"])
    held = await asyncio.to_thread(stand_in.stop)
    adopter.manager.expect([leaving.tag])
    await asyncio.sleep(random.random() / 20)
    adopter.manager._take_in(sid, "moves", "/", [sid, "red"])
    adopter.manager.adopt(by_descriptor(held))
    await until(lambda: not adopter.manager._apart)
    await asyncio.sleep(0.05)
    stopped.set()
    await asyncio.gather(*emitting)
    await other.manager.emit("to", 3, room=sid)
    await adopter.manager.emit("to", 4, room=sid)

    def alone() -> list[str]:
        return [packet for packet in adopter.got.get("moves", ()) if packet.startswith('2["to"')]

    await until(lambda: len(alone()) == 4)
    assert sorted(alone()) == [f'2["to",{number}]' for number in (1, 2, 3, 4)]
    adopter.got["moves"] = [p for p in adopter.got["moves"] if p not in alone()]
    for worker in workers:
        last = worker.sent
        for here in (other, adopter):
            await until(partial(here.has, "own", worker.tag, last))
            assert_in_order(here.events_of("own")[worker.tag], last)
        await until(partial(adopter.has, "moves", worker.tag, last))
        after = adopter.events_of("moves")[worker.tag]
        assert_in_order([*before[worker.tag], *after], last)
    for worker in workers:
        await worker.manager.close()


@pytest.mark.parametrize("seed", [random.randrange(2**32) for _ in range(2)], ids=range(2))
def test_a_client_that_moves_gets_each_event_once_and_in_order(
    seed: int, run_dir: OwnedRunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    print("seed", seed)
    random.seed(seed)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, run_dir.path)
    asyncio.run(move_around(run_dir, monkeypatch))


@pytest.mark.parametrize("late", [0, 1, 3])
def test_what_is_emitted_after_the_end_while_clients_move_is_not_lost(
    run_dir: OwnedRunDir, monkeypatch: pytest.MonkeyPatch, late: int
) -> None:
    """The worker has left and its application still emits; at that moment nobody receives for
    clients that move from one process to another."""
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, run_dir.path)
    registrar = Registrar(run_dir, CLUSTER)
    registrar.start()
    asyncio.run(emit_after_the_end(run_dir, registrar, monkeypatch, late))
    registrar.close()


def test_what_the_others_could_not_receive_in_time_is_not_lost(
    run_dir: OwnedRunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drain has taken all of its time, and the others do not receive for a moment."""
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, run_dir.path)
    registrar = Registrar(run_dir, CLUSTER)
    registrar.start()
    asyncio.run(emit_after_the_end(run_dir, registrar, monkeypatch, 2, in_time=False))
    registrar.close()


async def emit_after_the_end(
    run_dir: OwnedRunDir,
    registrar: Registrar,
    monkeypatch: pytest.MonkeyPatch,
    late: int,
    in_time: bool = True,
) -> None:
    tag = f"{1:08x}"
    got: List[Any] = []
    publisher = Publisher(run_dir, CLUSTER, tag)

    def receive(part: Any = None) -> ThreadSubscriber:
        """Blocks the loop: the worker answers nothing meanwhile."""
        subscriber = ThreadSubscriber(publisher, run_dir, part=part)
        subscriber.start(lambda message: got.extend(message.packets))
        while not subscriber.joined:
            publisher.probe()
            time.sleep(0.01)
        return subscriber

    before = receive()
    worker = Worker(f"{0:08x}", monkeypatch)
    manager = worker.manager
    manager.set_members({worker.tag: False, tag: False})
    registrar.set_members([[tag, False, [CLUSTER.channel], False]])
    await manager.wait_joined(lambda: False, asyncio.sleep)
    sid = f"{tag}.{'moves':_>20}"
    await manager.emit("n", 0, room=sid)
    if in_time:
        await manager.leave(5, asyncio.sleep, lambda: False)
    await until(lambda: got == ['2["n",0]'])
    before.stop()
    (part,) = before.save()
    for number in range(1, late + 1):
        await manager.emit("n", number, room=sid)
    if not in_time:
        await manager.leave(0.05, asyncio.sleep, lambda: False)
    after = receive(part)
    manager.wait_for_last_emits()
    manager.finish()
    expected = [f'2["n",{number}]' for number in range(late + 1)]
    await until(lambda: got == expected)
    after.stop()
    publisher.close()
