"""A manager whose clients are served by one thread, and whose handlers run in other threads."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Iterator, Sequence

import pytest
import socketio

from supervisor_sio import AsyncZmqManager, ZmqManager
from supervisor_sio.cluster import relaying
from supervisor_sio.common.blocking import settle
from supervisor_sio.common.rundir import OwnedRunDir
from supervisor_sio.relay.looped import LoopSubscriber
from supervisor_sio.relay.message import EncodedPacket, RelayMessage
from unit.cluster.others import OTHER, eventually
from unit.polling import make_server

THREADS = 8


class LoopThread:
    """The thread of a loop; see ``supervisor_sio.worker.loop_thread``."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    @property
    def here(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def run(self, size: int, call: Callable[..., Any], *args: Any) -> None:
        self._loop.call_soon_threadsafe(call, *args)


class Served:
    """An outlet to clients that only keep what they receive."""

    concurrent = True

    def __init__(self, threads: LoopThread) -> None:
        self.threads = threads
        #: By Engine.IO sid.
        self.got: dict[str, list[EncodedPacket]] = {}

    def fan_out(self, eio_sids: Sequence[str], packets: Sequence[EncodedPacket]) -> None:
        assert self.threads.here
        for eio_sid in eio_sids:
            self.got.setdefault(eio_sid, []).extend(packets)

    def is_behind(self) -> bool:
        return False


@pytest.fixture
def outlet(loop: asyncio.AbstractEventLoop) -> Served:
    return Served(LoopThread(loop))


@pytest.fixture
def manager(outlet: Served) -> ZmqManager:
    manager = ZmqManager()
    make_server(client_manager=manager)
    manager._send_through(outlet)
    return manager


@pytest.fixture
def server(manager: ZmqManager) -> socketio.Server:
    return manager.server


def run_in(loop: asyncio.AbstractEventLoop, call: Callable[..., Any], *args: Any) -> Any:
    async def called() -> Any:
        return await settle(call(*args))

    return asyncio.run_coroutine_threadsafe(called(), loop).result(30)


def connect(manager: ZmqManager, eio_sid: str, namespace: str = "/") -> str:
    sid = manager.pre_connect(eio_sid, namespace)
    assert sid is not None
    return str(manager.connect(sid, namespace))


def test_a_handler_emits_and_what_it_sends_keeps_its_order(
    loop: asyncio.AbstractEventLoop, manager: ZmqManager, outlet: Served
) -> None:
    sids = [connect(manager, f"eio-{number}") for number in range(3)]

    def handler(name: int) -> None:
        room = f"room-{name}"
        manager.enter_room(sids[0], "/", room)
        assert room in manager.get_rooms(sids[0], "/")
        for number in range(100):
            manager.emit("n", [name, number], room=room)
        manager.leave_room(sids[0], "/", room)
        manager.emit("n", "nobody is there", room=room)
        manager.emit("end", name)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(handler, range(THREADS)))
    eventually(lambda: sum(map(len, outlet.got.values())) == THREADS * (100 + 3))
    for name in range(THREADS):
        of_it = [p for p in outlet.got["eio-0"] if isinstance(p, str) and f'n",[{name},' in p]
        assert of_it == [f'2["n",[{name},{number}]]' for number in range(100)]
    assert all(not p.startswith('2["n"') for p in outlet.got["eio-1"])  # type: ignore[arg-type]


def test_what_is_emitted_to_a_client_before_it_is_in_comes_first(
    manager: ZmqManager, outlet: Served
) -> None:
    sid = manager.pre_connect("eio", "/")
    assert sid is not None
    manager.emit("n", 1, room=sid)
    assert outlet.got == {}
    assert manager.connect(sid, "/") == sid
    manager.emit("n", 2, room=sid)
    eventually(lambda: outlet.got == {"eio": ['2["n",1]', '2["n",2]']})
    assert manager._early == {}


def test_nothing_overtakes_the_answer_to_a_client_that_connects(
    loop: asyncio.AbstractEventLoop, manager: ZmqManager, outlet: Served
) -> None:
    """What comes to the loop from others while that is on its way there."""
    connected = threading.Event()

    def hear() -> None:
        assert connected.wait(30)
        manager.emit("n", 1)

    sid = manager.pre_connect("eio", "/")
    assert sid is not None
    loop.call_soon_threadsafe(hear)
    outlet.threads.run(0, outlet.fan_out, ["eio"], ["0{}"])
    assert manager.connect(sid, "/") == sid
    connected.set()
    eventually(lambda: outlet.got == {"eio": ["0{}", '2["n",1]']})
    assert manager._early == {}


def test_a_handler_waits_for_answers_that_come_in_the_loop(
    loop: asyncio.AbstractEventLoop, manager: ZmqManager, outlet: Served
) -> None:
    sid = connect(manager, "eio")
    with ThreadPoolExecutor(THREADS) as pool:
        asked = pool.submit(manager.emit_with_acks, "ask", 1, timeout=30)
        called = pool.submit(manager.server.call, "ask", 2, sid, timeout=30)
        eventually(lambda: len(outlet.got.get("eio", ())) == 2)
        for packet in outlet.got["eio"]:
            assert isinstance(packet, str)
            ack_id = int(packet[1 : packet.index("[")])
            run_in(loop, manager.trigger_callback, sid, ack_id, [packet[-2]])
        assert (asked.result(30), called.result(30)) == (["1"], "2")
        assert pool.submit(manager.server_count).result(30) == 1
        assert pool.submit(manager.fetch_rooms).result(30) == {}


def test_answers_of_others_come_in_the_loop(
    loop: asyncio.AbstractEventLoop, manager: ZmqManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(manager, "_send_to", lambda tags, fields, *args: asked.append(fields))
    run_in(loop, manager.set_members, {manager.host_id: False, OTHER: False, "dead": False})
    with ThreadPoolExecutor(THREADS) as pool:
        calls = [pool.submit(manager.server_side_call, "ask", timeout=30) for _ in range(THREADS)]
        eventually(lambda: len(asked) == THREADS)
        run_in(loop, manager.set_members, {manager.host_id: False, OTHER: False})
        for fields in asked:
            packets = manager._encode(3, "/", ["yes"], 0)
            answer = {"request": fields["request"], "worker": OTHER, "namespace": "/"}
            message = RelayMessage(OTHER, 1, {"method": "answer", **answer}, packets)
            run_in(loop, manager._on_answer, message)
        for call in calls:
            answers = call.result(30)
            assert (answers, answers.missing, answers.timed_out) == (["yes"], 1, False)


@pytest.mark.parametrize(
    "call",
    [
        lambda manager: manager.fetch_sockets(),
        lambda manager: manager.server_count(),
        lambda manager: manager.server_side_call("n"),
        lambda manager: manager.emit_with_acks("n"),
    ],
)
def test_the_loop_does_not_wait_for_itself(
    loop: asyncio.AbstractEventLoop, manager: ZmqManager, call: Callable[[Any], Any]
) -> None:
    with pytest.raises(RuntimeError, match="would wait for what this thread has to receive"):
        run_in(loop, call, manager)


def test_it_hears_in_the_loop_that_runs(
    run_dir: OwnedRunDir,
    loop: asyncio.AbstractEventLoop,
    outlet: Served,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relaying, "channels_in_use", set())
    url = f"zmq+ipc://{run_dir.path}"
    manager = ZmqManager(url)
    make_server(client_manager=manager)
    manager._send_through(outlet)
    run_in(loop, manager.initialize)
    assert isinstance(manager._subscriber, LoopSubscriber)
    run_in(loop, manager.wait_joined, lambda: False, asyncio.sleep)
    connect(manager, "eio")
    blocking = ZmqManager(url, write_only=True)
    blocking.emit("n", 1)
    blocking.close()
    manager.emit("n", 2)
    other = AsyncZmqManager(url, write_only=True)
    asyncio.run(other.emit("n", 3))
    eventually(lambda: len(outlet.got.get("eio", ())) == 3)
    assert sorted(map(str, outlet.got["eio"])) == [f'2["n",{number}]' for number in (1, 2, 3)]
    asyncio.run(other.close())
    run_in(loop, manager.close)


def test_what_a_thread_emits_while_the_manager_closes_arrives(
    loop: asyncio.AbstractEventLoop,
    outlet: Served,
    run_dir: OwnedRunDir,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is published under another name than the worker's, whose numbers are known."""
    monkeypatch.setattr(relaying, "channels_in_use", set())
    monkeypatch.setattr(relaying, "_LEAVE_TIMEOUT", 0.1)  # there is no router to ask
    manager = ZmqManager(f"zmq+ipc://{run_dir.path}")
    manager._serves = True
    make_server(client_manager=manager)
    manager._send_through(outlet)
    run_in(loop, manager.initialize)
    run_in(loop, manager.wait_joined, lambda: False, asyncio.sleep)
    manager.emit("n", 1)
    serving = manager.host_id
    stop = LoopSubscriber.stop
    emitting = ThreadPoolExecutor(1)

    def stop_late(subscriber: LoopSubscriber) -> None:
        emitting.submit(manager.emit, "n", 2).result(30)
        stop(subscriber)

    monkeypatch.setattr(LoopSubscriber, "stop", stop_late)
    run_in(loop, manager.close)
    emitting.shutdown()
    assert manager.host_id != serving and manager._subscriber is not None
    run_in(loop, manager.close)


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads switch as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("switching")
def test_threads_change_rooms_at_the_same_time(manager: ZmqManager, outlet: Served) -> None:
    """Nothing fails, no client is left over, and each thread sees its own changes."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    until = time.monotonic() + 1
    shared = [f"room-{number}" for number in range(4)]
    namespaces = ["/", "/chat"]

    def handler(number: int) -> None:
        chance = random.Random(seed + number)
        while time.monotonic() < until:
            namespace = chance.choice(namespaces)
            sid = connect(manager, f"eio-{number}-{chance.random()}", namespace)
            own = f"own-{number}"
            manager.enter_room(sid, namespace, own)
            for _ in range(5):
                room = chance.choice(shared)
                action = chance.randrange(8)
                if action < 3:
                    manager.enter_room(sid, namespace, room)
                elif action == 3:
                    manager.leave_room(sid, namespace, room)
                elif action == 4:
                    manager.close_room(room, namespace)
                elif action == 5:
                    manager.sockets_join(room, room=chance.choice(shared), namespace=namespace)
                elif action == 6:
                    manager.emit("n", 1, room=room, namespace=namespace, except_room=own)
                else:
                    manager.fetch_rooms(namespace)
                    manager.fetch_sockets(namespace=namespace)
                assert manager.is_connected(sid, namespace)
                assert own in manager.get_rooms(sid, namespace)
            manager.pre_disconnect(sid, namespace)
            assert not manager.is_connected(sid, namespace)
            manager.basic_disconnect(sid, namespace)

    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(handler, number) for number in range(THREADS)]:
            done.result()
    assert manager.rooms == manager._rooms_of == manager._early == {}
    assert manager.pending_connect == manager.pending_disconnect == {}
    assert manager._awaited._asked == {}
