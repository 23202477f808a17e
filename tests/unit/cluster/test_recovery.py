"""Clients that lose their connection and come back, to the same manager or to another one."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import time
from pathlib import Path
from typing import Any, Callable, Coroutine, Iterator, List, Optional

import pytest

from supervisor_sio import AsyncZmqManager
from supervisor_sio.cluster import keeping, relaying
from supervisor_sio.cluster.offsets import Asked
from supervisor_sio.common import identity, reasons
from supervisor_sio.common.blocking import settle
from supervisor_sio.common.rundir import ENVIRONMENT_VARIABLE, ClusterInfo, OwnedRunDir
from supervisor_sio.engine.saved import Saved
from supervisor_sio.relay.journal_reader import JournalReader
from supervisor_sio.relay.position import Position
from supervisor_sio.relay.stand_in import StandIn
from unit.in_loop import make_async_server
from unit.relays import relay_in

CLUSTER = ClusterInfo("recovering")


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnedRunDir]:
    with relay_in(tmp_path, CLUSTER) as owned:
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, owned.path)
        yield owned


async def until(condition: Callable[[], Any]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")


class Worker:
    """A manager with a tag of its own, whose clients only keep what they get."""

    threads = None
    concurrent = False

    def __init__(self, cluster: Cluster, tag: str, **options: Any) -> None:
        self.cluster = cluster
        self.tag = tag
        self.got: dict[str, List[Any]] = {}
        self.closed: List[str] = []
        self.sessions: dict[str, dict[str, Any]] = {}
        self.segments: dict[str, dict[int, int]] = {"events": {}, "states": {}}
        self.sent = self.sent_alone = 0
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
            if eio_sid in self.sessions:
                self.got.setdefault(eio_sid, []).append(packets[0])

    fan_out_volatile = fan_out

    def is_behind(self) -> bool:
        return False

    def close_connection(self, eio_sid: str) -> None:
        self.closed.append(eio_sid)
        self.disconnect(eio_sid)

    def disconnect(self, eio_sid: str, reason: str = "transport close") -> None:
        """The connection of a client is gone."""
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
            client.reason = await self.manager.recover(
                client.eio_sid, {}, "/", asked, self.cluster.ask
            )
            if client.reason is None:
                client.take()
                return
        sid = self.manager._pre_connect(client.eio_sid, "/")
        assert sid is not None
        pid = self.manager.begin(sid, "/", asked)
        self.fan_out([client.eio_sid], ["0" + json.dumps({"sid": sid, "pid": pid})])
        await self.manager.connect(sid, "/")
        client.take()

    def reader(self) -> JournalReader:
        """As of a process that was killed."""
        return JournalReader({log: list(one.values()) for log, one in self.segments.items()})

    async def kill(self) -> None:
        """Nothing of it is heard from here on."""
        self.cluster.workers.remove(self)
        await asyncio.sleep(0.05)  # it emits no more
        self.sessions.clear()
        await self.manager.close()


class Client:
    """As socket.io-client recovers."""

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
        """What has come."""
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
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), tag


class Cluster:
    def __init__(self, run_dir: OwnedRunDir, patch: pytest.MonkeyPatch) -> None:
        self.run_dir = run_dir
        self.patch = patch
        self.numbers = iter(range(10**9))
        self.workers: List[Worker] = []
        self.asked: List[Any] = []

    async def start(self, count: int, **options: Any) -> List[Worker]:
        first = len(self.workers)
        added = [Worker(self, f"{first + n + 1:08x}", **options) for n in range(count)]
        self.workers += added
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

    async def close(self) -> None:
        for worker in self.workers:
            await worker.manager.close()

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


@pytest.fixture
def run(run_dir: OwnedRunDir, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a scenario in a cluster."""

    def run_one(scenario: Callable[[Cluster], Coroutine[Any, Any, None]]) -> None:
        async def all_of_it() -> None:
            cluster = Cluster(run_dir, monkeypatch)
            try:
                await scenario(cluster)
            finally:
                await cluster.close()

        asyncio.run(all_of_it())

    return run_one


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
        (worker,) = await cluster.start(1)
        client = Client()
        await worker.connect(client)
        for _ in range(2):
            await worker.server.save_session(client.sid, {"at": object()})
        assert not worker.manager.lose(client.sid, "/", "transport close")

    run(scenario)
    assert caplog.text.count("a client cannot come back to its session: session data at is") == 1


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


# --- to another worker ----------------------------------------------------------------------


def test_to_another_worker_and_back(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        workers = await cluster.start(3)
        first, second, third = workers
        client = Client()
        await first.connect(client)
        await first.manager.enter_room(client.sid, "/", "red")
        await first.server.save_session(client.sid, {"name": "x"})
        sid = client.sid
        order = [second, third, second, first, third, first]
        for turn, worker in enumerate(order):
            for one in workers:
                await one.emit(room=random.choice([None, "red"]))
                await one.emit_to(sid)
            client.lose()
            for one in workers:
                await one.emit(room=random.choice([None, "red"]))
                await one.emit_to(sid)
            await worker.connect(client)
            assert client.recovered, (turn, client.reason)
            assert client.sid == sid and client.worker is worker
            for one in workers:
                await one.emit(room=random.choice([None, "red"]))
                await one.emit_to(sid)
            for one in workers:

                def has(one: Worker = one) -> bool:
                    client.take()
                    alone = client.events.get(f"{one.tag} alone", [0])
                    return client.events[one.tag][-1] == one.sent and alone[-1] == one.sent_alone

                await until(has)
        client.assert_whole()
        assert all(numbers[0] == 1 for numbers in client.events.values())
        assert await client.worker.server.get_session(sid) == {"name": "x"}
        assert set(client.worker.manager.get_rooms(sid, "/")) == {sid, "red"}

    run(scenario)


def test_rooms_and_disconnects_reach_a_guest(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        first, second, third = await cluster.start(3)
        client = Client()
        await first.connect(client)
        client.lose()
        await second.connect(client)
        sid = client.sid
        for number, one in enumerate((first, second, third)):
            await one.manager.enter_room(sid, "/", number)
        await until(lambda: {0, 1, 2} <= set(second.manager.get_rooms(sid, "/")))
        await third.manager.leave_room(sid, "/", 1)
        await until(lambda: 1 not in second.manager.get_rooms(sid, "/"))
        await third.manager.disconnect(sid, "/")
        await until(lambda: second.manager.sid_from_eio_sid(client.eio_sid, "/") is None)
        await until(lambda: not first.manager._moved)

    run(scenario)


def test_an_answer_of_a_guest(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        first, second, third = await cluster.start(3)
        client = Client()
        await first.connect(client)
        client.lose()
        await second.connect(client)
        answers: List[Any] = []
        await third.manager.emit("q", 1, room=client.sid, callback=answers.append)
        await until(lambda: second.got.get(client.eio_sid))
        (packet,) = second.got.pop(client.eio_sid)
        number = int(packet[1 : packet.index("[")])
        await second.manager.trigger_callback(client.sid, number, ["yes"])
        await until(lambda: answers == ["yes"])

    run(scenario)


@pytest.mark.parametrize("seed", [random.randrange(2**32) for _ in range(3)], ids=range(3))
def test_it_moves_around_while_all_emit(run: Any, seed: int) -> None:
    print("seed", seed)
    random.seed(seed)

    async def scenario(cluster: Cluster) -> None:
        workers = await cluster.start(3)
        clients = [Client() for _ in range(4)]
        for client in clients:
            await random.choice(workers).connect(client)
        stopped = asyncio.Event()

        async def emit(worker: Worker) -> None:
            while not stopped.is_set():
                await worker.emit()
                await asyncio.sleep(random.random() / 500)

        async def move(client: Client) -> None:
            for _ in range(10):
                await asyncio.sleep(random.random() / 20)
                client.take(most=random.choice([0, 1, 5, math.inf]))
                client.lose(take=False)
                await asyncio.sleep(random.random() / 20)
                await random.choice(workers).connect(client)
                assert client.recovered, client.reason

        emitting = [asyncio.create_task(emit(worker)) for worker in workers]
        await asyncio.gather(*map(move, clients))
        stopped.set()
        await asyncio.gather(*emitting)
        for client in clients:
            for one in workers:

                def has(one: Worker = one, client: Client = client) -> bool:
                    client.take()
                    return client.events.get(one.tag, [0])[-1] == one.sent

                await until(has)
            client.assert_whole()

    run(scenario)


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
