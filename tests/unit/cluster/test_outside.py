"""Managers without a server ask the workers of a cluster."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from concurrent.futures import Future
from typing import Any, Iterator

import pytest
import socketio
from socketio.exceptions import TimeoutError

from supervisor_sio import AsyncZmqManager, RelayUnreachable, ZmqManager
from supervisor_sio.cluster import outside, relaying
from supervisor_sio.common.rundir import ClusterInfo, OwnedRunDir
from supervisor_sio.relay.message import topic_for_all
from supervisor_sio.relay.methods import ASKER
from supervisor_sio.relay.publisher import MessageTooLong
from supervisor_sio.relay.registrar import Registrar
from unit.cluster.others import Start, eventually
from unit.in_loop import InLoop, make_async_server
from unit.polling import PollingClient

CHANNEL = "my app"


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "_FIRST_LOOK", 0.02)
    monkeypatch.setattr(outside, "_LAST_LOOK", 0.05)


def row(tag: str, elsewhere: bool = False, alias: bool = False) -> list[Any]:
    return [tag, elsewhere, [CHANNEL], alias]


@pytest.fixture
def url(run_dir: OwnedRunDir) -> str:
    return f"zmq+ipc://{run_dir.path}"


@pytest.fixture
def router(run_dir: OwnedRunDir) -> Iterator[Registrar]:
    """A router that does not know any worker yet."""
    registrar = Registrar(run_dir, ClusterInfo(CHANNEL))
    registrar.start()
    yield registrar
    registrar.close()


@pytest.fixture
def worker(
    url: str, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """The manager of a worker that receives from the relay."""
    monkeypatch.setattr(relaying, "channels_in_use", set())
    server = make_async_server(loop, client_manager=AsyncZmqManager(url))
    manager = server.manager

    async def initialize() -> None:
        manager.target.initialize()
        server.target.manager_initialized = True
        await manager.target.wait_joined(lambda: False, asyncio.sleep)

    server.run(initialize())
    yield manager
    manager.close()


@pytest.fixture
def cluster(router: Registrar, worker: Any) -> Any:
    router.set_members([row(worker.host_id)])
    return worker


@pytest.fixture(params=[ZmqManager, AsyncZmqManager])
def asker(
    request: pytest.FixtureRequest,
    url: str,
    loop: asyncio.AbstractEventLoop,
    router: Registrar,
    worker: Any,
) -> Iterator[Any]:
    """A manager in a process without clients, called as if it blocked."""
    made = request.param(url)
    manager = made if request.param is ZmqManager else InLoop(made, loop)
    yield manager
    manager.close()


@pytest.fixture
def client(cluster: Any) -> PollingClient:
    return PollingClient(cluster.server)


def answer(client: PollingClient, *values: Any) -> None:
    """Let a client answer the next event that it gets."""
    client.answer(client.question()[0], *values)


class Lossy:
    """A publisher that loses most answers of its worker."""

    def __init__(self, worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lost = 0
        chance = random.Random(7)
        publisher = worker.target._publisher
        tell = publisher.tell

        def tell_or_not(receiver: str, fields: Any, packets: Any = ()) -> None:
            if receiver.startswith(ASKER) and fields["method"] in ("answer", "expect"):
                if chance.random() < 0.6:
                    self.lost += 1
                    return
            tell(receiver, fields, packets)

        monkeypatch.setattr(publisher, "tell", tell_or_not)


def test_what_can_be_asked(asker: Any, cluster: Any, client: PollingClient, start: Start) -> None:
    cluster.on("add", lambda *numbers: sum(numbers))
    cluster.server.enter_room(client.sid, "room")
    assert asker.server_count() == 1
    sockets = asker.fetch_sockets("room")
    assert [(one.sid, one.transport) for one in sockets] == [(client.sid, "polling")]
    assert (sockets.timed_out, sockets.missing) == (False, 0)
    assert asker.fetch_sockets("nowhere") == []
    assert dict(asker.fetch_rooms()) == {"room": 1}
    assert asker.server_side_call("add", 1, 2) == [3]
    cluster.on("double", lambda data: 2 * data)
    assert asker.server_side_call("double", b"\xff") == [b"\xff\xff"]
    assert asker.server_side_call("nothing").missing == 1
    gathered = start(asker.emit_with_acks, "ask", room="room")
    answer(client, 1, "two")
    assert gathered.result(30) == [(1, "two")]
    called = start(asker.call, "ask", {"a": 1}, to=client.sid)
    answer(client, "yes")
    assert called.result(30) == "yes"
    assert asker.fetch_sockets(local=True) == asker.emit_with_acks("ask", local=True) == []
    assert asker.host_id.startswith(ASKER)


def test_nothing_is_opened_before_the_first_question(url: str) -> None:
    # Those of tests before may still end.
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    managers = [ZmqManager(url), AsyncZmqManager(url)]
    after = len(os.listdir("/proc/self/fd")), threading.active_count()
    assert after[0] <= before[0] and after[1] <= before[1]
    assert [manager._publisher for manager in managers] == [None, None]


def test_what_is_for_all_is_not_heard(asker: Any, cluster: Any) -> None:
    asker.fetch_rooms()
    subscriber = asker._subscriber
    received = subscriber.received
    for number in range(100):
        cluster.emit("n", number)
    asker.fetch_rooms()
    assert topic_for_all(CHANNEL) not in subscriber._topics
    assert subscriber.received < received + 50  # the answer, and again when it came late


def test_a_call_that_nobody_answers(
    asker: Any, cluster: Any, client: PollingClient, start: Start
) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="^nobody has not acknowledged event 'ask'$"):
        asker.call("ask", to="nobody")
    called = start(asker.call, "ask", sid=client.sid)
    client.question()
    cluster.server.disconnect(client.sid)
    with pytest.raises(TimeoutError):
        called.result(30)
    assert time.monotonic() - began < 30  # not sixty
    other = PollingClient(cluster.server)
    with pytest.raises(TimeoutError):
        asker.call("ask", to=other.sid, timeout=0.1)
    with pytest.raises(ValueError, match="Cannot use call"):
        asker.call("ask")


def test_the_first_answer_to_a_call_counts(
    asker: Any, cluster: Any, client: PollingClient, start: Start
) -> None:
    other = PollingClient(cluster.server)
    for one in (client, other):
        cluster.server.enter_room(one.sid, "both")
    called = start(asker.call, "ask", to="both")
    answer(other)
    assert called.result(30) is None


def test_who_asks_is_new_each_time(asker: Any, router: Registrar, worker: Any) -> None:
    """A worker that joins is asked from the next question on."""
    router.set_members([])
    assert (asker.fetch_sockets(), asker.server_count()) == ([], 0)
    router.set_members([row(worker.host_id), row("alias", alias=True)])
    assert asker.server_count() == 1
    PollingClient(worker.server)
    assert len(asker.fetch_sockets()) == 1


def test_the_dead_are_not_waited_for(
    asker: Any, cluster: Any, router: Registrar, start: Start
) -> None:
    """Workers die during the question; one of them is on another host."""
    members = [row(cluster.host_id), row("dead"), row("away", elsewhere=True)]
    router.set_members(members)
    asked = start(asker.fetch_sockets, timeout=100)
    eventually(lambda: bool(asker._calls))
    time.sleep(0.3)
    assert not asked.done()
    router.set_members(members[:1])
    answers = asked.result(30)
    assert (answers.timed_out, answers.missing) == (False, 2)


def test_answers_that_are_lost_come_again(
    asker: Any,
    cluster: Any,
    monkeypatch: pytest.MonkeyPatch,
    start: Start,
) -> None:
    """Each answer arrives once, whatever is lost, also of the repeated answers."""
    lossy = Lossy(cluster, monkeypatch)
    clients = [PollingClient(cluster.server) for _ in range(8)]
    asked: list[Future[Any]] = [start(asker.emit_with_acks, "ask", timeout=60)]
    for number, client in enumerate(clients):
        answer(client, number)
    answers = asked[0].result(60)
    assert sorted(answers) == list(range(8))
    assert (answers.timed_out, answers.missing) == (False, 0)
    assert len(asker.fetch_sockets(timeout=60)) == 8
    assert lossy.lost


def test_an_answer_that_comes_twice_counts_once(
    asker: Any, cluster: Any, client: PollingClient, start: Start
) -> None:
    """The answer was asked for again before it arrived."""
    second = PollingClient(cluster.server)
    publisher = cluster.target._publisher
    tell = publisher.tell
    publisher.tell = lambda *args: [tell(*args), tell(*args)]
    asked = start(asker.emit_with_acks, "ask", timeout=60)
    answer(client, 1)
    time.sleep(0.1)
    assert not asked.done()
    answer(second, 2)
    assert sorted(asked.result(30)) == [1, 2]


def test_who_closes_waits_for_nothing_more(asker: Any, cluster: Any, start: Start) -> None:
    client = PollingClient(cluster.server)
    asked = start(asker.emit_with_acks, "ask", timeout=100)
    client.question()
    tag = asker.host_id
    asker.close()
    answers = asked.result(30)
    assert (answers, answers.timed_out, answers.missing) == ([], True, 1)
    assert len(asker.fetch_sockets()) == 1  # it connects anew
    assert asker.host_id != tag


def test_many_threads_ask_at_once(url: str, cluster: Any, start: Start) -> None:
    cluster.on("echo", lambda value: value)
    manager = ZmqManager(url)

    def ask(first: int) -> list[Any]:
        return [manager.server_side_call("echo", first + number) for number in range(20)]

    futures = [start(ask, 20 * number) for number in range(4)]
    got = [one for future in futures for one in future.result(60)]
    assert got == [[number] for number in range(80)]
    manager.close()


def test_nothing_is_left_of_a_question(url: str, cluster: Any) -> None:
    manager = ZmqManager(url)
    manager.fetch_rooms()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(200):
        manager.fetch_rooms()
    assert len(os.listdir("/proc/self/fd")) <= before
    assert manager._calls == manager._looking == {}
    assert len(manager._subscriber._inbox._senders) == 0
    manager.close()


def test_no_router_answers(asker: Any, worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "_ROUTER_TIMEOUT", 0.1)
    with pytest.raises(RelayUnreachable, match=r"^no router answers in .*: is \[eventlistener:sio"):
        asker.fetch_sockets()
    assert asker._looking == {}


def test_no_relay_is_there(tmp_path: Any) -> None:
    for manager in (ZmqManager(f"zmq+ipc://{tmp_path}"), AsyncZmqManager(f"zmq+ipc://{tmp_path}")):
        with pytest.raises(RelayUnreachable, match="is not the run directory of a running"):
            result = manager.fetch_sockets()
            asyncio.run(result)


def test_a_question_that_is_too_long(asker: Any, cluster: Any) -> None:
    with pytest.raises(MessageTooLong):
        asker.server_side_call("ask", "x" * 3000)
    with pytest.raises(TypeError):
        asker.server_side_call("ask", object())


def test_a_process_with_the_application_asks_as_well(url: str, cluster: Any) -> None:
    """The process serves no clients: its own server takes no part."""
    manager = ZmqManager(url)
    server = socketio.Server(async_mode="threading", client_manager=manager)
    client = PollingClient(cluster.server)
    assert [one.sid for one in manager.fetch_sockets()] == [client.sid]
    assert manager.server_count() == 1
    with pytest.raises(RuntimeError, match=r"use call\(\) of the manager here$"):
        server.call("ask", to=client.sid)
    manager.close()


def test_words_of_others_harm_nobody(asker: Any, cluster: Any) -> None:
    """Answers to unknown questions, and router messages that are malformed."""
    asker.fetch_rooms()
    tell, receiver = cluster.target._publisher.tell, asker.host_id
    for fields in (
        {"method": "answer", "request": 1, "worker": "w"},
        {"method": "answer", "request": "1"},
        {"method": "repeat", "request": 1, "worker": "w", "first": 1},
        {"method": "members", "asked": 1, "members": [["w"]]},
        {"method": "members", "asked": 1, "members": []},
        {"method": "expect", "request": 1, "worker": "w", "count": 1, "number": 1, "start": 1},
    ):
        tell(receiver, fields)
    asker._publisher.tell(cluster.host_id, {"method": "repeat", "request": -1})
    assert dict(asker.fetch_rooms()) == {}
    eventually(lambda: asker._subscriber.malformed == 2)
    eventually(lambda: bool(cluster.target._subscriber.malformed))
