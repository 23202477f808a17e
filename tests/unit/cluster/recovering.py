"""Managers with different tags in one process, and clients that move between them."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import time
from types import SimpleNamespace
from typing import Any, Callable, List, Optional, Sequence

import pytest

from supervisor_sio import AsyncZmqManager
from supervisor_sio.cluster import relaying
from supervisor_sio.cluster.offsets import Asked
from supervisor_sio.common import identity, reasons
from supervisor_sio.common.rundir import ClusterInfo, OwnedRunDir
from supervisor_sio.relay.journal_reader import JournalReader
from supervisor_sio.relay.position import Position
from supervisor_sio.relay.stand_in import StandIn
from unit.in_loop import make_async_server

CLUSTER = ClusterInfo("recovering")


async def until(condition: Callable[[], Any]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")


class Worker:
    """A manager with its own tag, whose clients only keep what they receive."""

    threads = SimpleNamespace(here=True)
    concurrent = False

    def __init__(self, cluster: Cluster, tag: str, **options: Any) -> None:
        self.cluster = cluster
        self.call_soon = asyncio.get_running_loop().call_soon
        self.tag = tag
        self.got: dict[str, List[Any]] = {}
        self.closed: List[str] = []
        self.sessions: dict[str, dict[str, Any]] = {}
        self.segments: dict[str, dict[int, int]] = {"events": {}, "states": {}}
        #: Connections whose clients answer no pings; and how many were sent.
        self.silent: set[str] = set()
        #: By connection, what its answers to pings say; of others, that they have got everything.
        self.pings: dict[str, tuple[float, bool]] = {}
        self.questions = 0
        self.sent = self.sent_alone = 0
        self.series = Series(tag, self)
        relaying.channels_in_use.clear()
        cluster.patch.setattr(identity, "tag", lambda: tag)
        self.manager = AsyncZmqManager(takeover=True, recovery=60, **options)
        loop = asyncio.get_running_loop()
        self.server = make_async_server(loop, client_manager=self.manager).target
        self.server.eio.get_session = self.get_session
        self.server.eio.save_session = self.save_session
        self.manager._send_through(self)
        self.manager._serves = True
        self.manager.keep_journal_by(self.on_segment, self.on_dropped)
        self.manager.initialize()

    async def get_session(self, eio_sid: str) -> Any:
        return self.sessions[eio_sid]

    async def save_session(self, eio_sid: str, session: Any) -> None:
        self.sessions[eio_sid] = session

    def on_segment(self, log: str, number: int, descriptor: int) -> None:
        self.segments[log][number] = os.dup(descriptor)

    def on_dropped(self, log: str, number: int) -> None:
        os.close(self.segments[log].pop(number))

    def fan_out(self, eio_sids: Any, packets: Any) -> None:
        for eio_sid in eio_sids:
            if eio_sid in self.sessions:  # without attachments
                texts = [packet for packet in packets if isinstance(packet, str)]
                self.got.setdefault(eio_sid, []).extend(texts)

    fan_out_volatile = fan_out

    def is_behind(self) -> bool:
        return False

    def waiting(self, eio_sid: str) -> int:
        """Output that a client has not taken yet."""
        return sum(map(len, self.got.get(eio_sid, ())))

    def proven(self, eio_sid: str) -> tuple[float, bool]:
        return self.pings.get(eio_sid, (time.monotonic(), False))

    def close_connection(self, eio_sid: str) -> None:
        self.closed.append(eio_sid)
        self.disconnect(eio_sid)

    def ask_client(self, eio_sid: str, answered: Callable[[bool], None]) -> None:
        """``answered`` is not called for clients that do not answer."""
        self.questions += 1
        if eio_sid not in self.silent:
            asyncio.get_running_loop().call_later(0.01, answered, True)

    def disconnect(self, eio_sid: str, reason: str = "transport close") -> None:
        """The connection of a client has ended."""
        sid = self.manager.sid_from_eio_sid(eio_sid, "/")
        if sid is not None:
            assert self.manager.lose(sid, "/", reason)

    async def emit(self, *args: Any, **options: Any) -> None:
        self.sent += 1
        await self.manager.emit("n", [self.tag, self.sent], *args, **options)

    async def emit_to(self, sid: str) -> None:
        self.sent_alone += 1
        await self.manager.emit("n", [f"{self.tag} alone", self.sent_alone], room=sid)

    async def connect(self, client: Client) -> None:
        client.eio_sid = f"{self.tag}-{next(self.cluster.numbers)}"
        client.worker = self
        self.sessions[client.eio_sid] = {}
        client.recovered = client.reason = None
        asked = Asked(True, client.pid, client.offset, None)
        if client.pid is not None:
            client.reason = await self.manager.recover(client.eio_sid, {}, "/", asked, self._ask)
            if client.reason is None:
                client.take()
                return
        sid = self.manager._pre_connect(client.eio_sid, "/")
        assert sid is not None
        pid = self.manager.begin(sid, "/", asked)
        self.fan_out([client.eio_sid], ["0" + json.dumps({"sid": sid, "pid": pid})])
        await self.manager.connect(sid, "/")
        client.take()

    async def _ask(
        self, tag: str, question: Any, packets: Any = (), then: Optional[Callable[..., None]] = None
    ) -> Any:
        answer = await self.cluster.ask(tag, question, packets)
        if then is not None:
            then(answer)
        return answer

    def reader(self) -> JournalReader:
        """Reads the journal as if the process had been killed."""
        return JournalReader({log: list(one.values()) for log, one in self.segments.items()})

    def give_up_tags(self) -> None:
        """Give up tags without clients, as the worker's loop does it."""
        for tag in list(self.manager._adopted):
            if not self.manager.has_clients_of(tag):
                self.manager.give_up(tag)
        self.cluster.set_members()

    async def kill(self) -> None:
        """From here on it sends nothing."""
        self.cluster.workers.remove(self)
        await asyncio.sleep(0.05)  # it emits no more
        self.sessions.clear()
        await self.manager.close()


class Series:
    """What one emitter says to all and to one client each, by its sid or in its room, as one
    series of numbers.

    :param emitter: has a ``manager``.
    """

    def __init__(self, name: str, emitter: Any) -> None:
        self.name = f"{name} series"
        self._emitter = emitter
        self._last = 0
        #: By sid, what each client is to get.
        self.meant: dict[str, List[int]] = {}

    async def emit(self, sids: Sequence[str]) -> None:
        """:param sids: of all clients."""
        self._last += 1
        one = random.choice([None, *sids])
        for sid in sids if one is None else [one]:
            self.meant.setdefault(sid, []).append(self._last)
        room = one if one is None or random.random() < 0.5 else room_of(one)
        await self._emitter.manager.emit("n", [self.name, self._last], room=room)

    async def emit_until(self, over: asyncio.Event, sids: Sequence[str]) -> None:
        """Emit, now and then several events in one turn of the loop."""
        while not over.is_set():
            for _ in range(random.choice([1, 1, 5])):
                await self.emit(sids)
            await asyncio.sleep(random.random() / 500)

    async def has_come_to(self, client: Client) -> None:
        """Whether all of the series has arrived, in order, each event once."""
        meant = self.meant.get(client.sid, [])

        def has() -> bool:
            client.take()
            return client.events.get(self.name, [])[-1:] == meant[-1:]

        await until(has)
        got = client.events.get(self.name, [])
        at = next((n for n, pair in enumerate(zip(got, meant)) if pair[0] != pair[1]), None)
        assert got == meant, f"{self.name} from {at}: {got[at:][:9]}, not {meant[at:][:9]}"


def room_of(sid: str) -> str:
    """A room that only this client is in: other workers pass over messages to it."""
    return f"room of {sid}"


class Client:
    """A client that recovers like socket.io-client."""

    def __init__(self) -> None:
        self.pid: Optional[str] = None
        self.offset: Optional[str] = None
        self.sid = ""
        self.eio_sid = ""
        self.worker: Any = None
        self.recovered: Optional[bool] = None
        self.reason: Optional[str] = None
        #: By sender, the numbers of events.
        self.events: dict[str, List[int]] = {}
        self.others: List[Any] = []

    def take(self, most: float = math.inf) -> None:
        """Take the events that have arrived, those emitted in this turn included."""
        self.worker.manager.send_collected()
        packets = self.worker.got.pop(self.eio_sid, [])
        while packets and most > 0:
            most -= 1
            packet = packets.pop(0)
            if packet.startswith("0"):
                answer = json.loads(packet[1:])
                self.recovered = self.pid is not None and self.pid == answer["pid"]
                self.sid, self.pid = answer["sid"], answer["pid"]
                continue
            name, *args = json.loads(packet[packet.index("[") :])
            if packet[1] == "[":
                self.offset = args.pop()
            if name == "n":
                self.events.setdefault(args[0][0], []).append(args[0][1])
            else:
                self.others.append([name, *args])

    def lose(self, take: bool = True) -> None:
        if take:
            self.take()
        self.worker.sessions.pop(self.eio_sid)
        self.worker.got.pop(self.eio_sid, None)
        self.worker.disconnect(self.eio_sid)

    def assert_whole(self) -> None:
        for tag, numbers in self.events.items():
            for before, number in zip(numbers, numbers[1:]):
                assert number == before + 1, (tag, numbers)


class Cluster:
    def __init__(self, run_dir: OwnedRunDir, patch: pytest.MonkeyPatch) -> None:
        self.run_dir = run_dir
        self.patch = patch
        self.numbers = iter(range(10**9))
        self.workers: List[Worker] = []
        self.all: List[Worker] = []  # also those that were killed
        self.writers: List[AsyncZmqManager] = []
        self.asked: List[Any] = []

    async def start(self, count: int, **options: Any) -> List[Worker]:
        first = len(self.all)
        added = [Worker(self, f"{first + n + 1:08x}", **options) for n in range(count)]
        self.workers += added
        self.all += added
        self.set_members()
        for worker in added:
            await worker.manager.wait_joined(lambda: False, asyncio.sleep)
        return added

    def set_members(self) -> None:
        living = [worker.tag for worker in self.workers]
        tags = {tag for worker in self.workers for tag in worker.manager.tags}
        for worker in self.workers:
            members = dict.fromkeys([*living, *tags], False)
            worker.manager.set_members(members, tags - set(living))

    async def ask(self, tag: str, question: Any, packets: Any = ()) -> Any:
        self.asked.append((tag, question["do"]))
        question = json.loads(json.dumps(question))
        for worker in self.workers:
            if tag == worker.tag or tag in worker.manager._adopted:
                await asyncio.sleep(random.random() / 100)
                answer = await worker.manager.answer_claim(question, packets)
                await asyncio.sleep(random.random() / 100)
                return answer
        return {"reason": reasons.UNKNOWN_PID}, []

    def start_writing(self) -> Series:
        """Start a process that only emits."""
        manager = AsyncZmqManager(f"zmq+ipc://{self.run_dir.path}", write_only=True)
        self.writers.append(manager)
        return Series("writer", SimpleNamespace(manager=manager))

    async def close(self) -> None:
        for manager in (*self.writers, *(worker.manager for worker in self.workers)):
            await manager.close()
        for worker in self.all:
            for log, segments in worker.segments.items():
                for number in list(segments):
                    worker.on_dropped(log, number)

    async def inherit(self, dead: Worker, heir: Worker) -> None:
        reader, died = dead.reader(), time.monotonic()
        tags = [dead.tag, *dead.manager._adopted]
        position = reader.position(CLUSTER.channel, tags)
        stand_in = StandIn(self.run_dir, CLUSTER, position)
        await asyncio.sleep(random.random() / 10)
        held = await asyncio.to_thread(stand_in.stop)
        descriptor = held.write()
        heir.manager.expect(tags)
        await heir.manager.inherit([(reader, died)], asyncio.sleep)
        await asyncio.sleep(random.random() / 20)
        heir.manager.adopt(Position.read(descriptor))
        os.close(descriptor)
        self.set_members()
