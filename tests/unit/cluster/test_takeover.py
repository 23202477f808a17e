"""A manager adopts clients of another worker, or passes its own on, while all processes emit."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from types import SimpleNamespace
from typing import Any, Callable, Iterator, List, Optional

import pytest

from supervisor_sio import AsyncZmqManager, ZmqManager
from supervisor_sio.common.blocking import run_blocking
from supervisor_sio.relay.message import RelayMessage
from unit.cluster.others import OTHER, Start, eventually
from unit.cluster.test_threads import LoopThread, Served, run_in
from unit.in_loop import InLoop
from unit.polling import make_server

#: Of the worker whose clients are adopted.
TAG = "bbbbbbbb"


class Relay:
    """The manager's side of the relay: it notes what is published, and the receivers."""

    channel = "socketio"
    silent = False

    def __init__(self, plain: ZmqManager) -> None:
        self.lock = threading.Lock()
        #: To whom, the fields, the packets; in order.
        self.messages: List[Any] = []
        self.volatile: List[Any] = []
        self.adoptions: List[Any] = []
        self.gave_up: List[str] = []
        self.bridged = False
        plain._run_dir = SimpleNamespace()  # type: ignore[assignment]
        plain._publisher = plain._subscriber = self  # type: ignore[assignment]
        plain._serves = True
        self.tag = plain.host_id
        self.tags = {self.tag}

    def check(self, packets: Any, what: str) -> None:
        pass

    def publish(self, tag: Optional[str], fields: Any, packets: Any = ()) -> Any:
        with self.lock:
            self.messages.append((tag, dict(fields), list(packets)))
            sent = len(self.messages)
            return sent, tag, sent

    def publish_volatile(self, tag: Optional[str], fields: Any, packets: Any = ()) -> None:
        self.volatile.append((tag, dict(fields), list(packets)))

    def detach(self) -> Any:
        self.tags.clear()
        with self.lock:
            return SimpleNamespace(sent=len(self.messages))

    def adopt(self, part: Any, deliver: Any, own: Any, merged: Any) -> None:
        self.tags.update(part.tags)
        self.adoptions.append(SimpleNamespace(part=part, deliver=deliver, own=own, merged=merged))

    def give_up(self, tag: str) -> None:
        self.gave_up.append(tag)

    def sent_since(self, number: int) -> Callable[[], Any]:
        def fetch() -> Any:
            with self.lock:
                messages = [
                    RelayMessage(self.tag, 1, fields, packets)
                    for tag, fields, packets in self.messages[number:]
                    if tag in (None, TAG)
                ]
                return messages, len(self.messages)

        return fetch

    def refuse(self, error: Exception) -> None:
        raise error


def position(*tags: str) -> Any:
    return SimpleNamespace(parts=[SimpleNamespace(tags=tags)], tags=tags)


class Worker:
    """A manager whose clients only keep what they receive."""

    def __init__(self, manager: Any) -> None:
        self.manager = manager
        self.plain: Any = manager.target if isinstance(manager, InLoop) else manager
        self.got: dict[str, List[Any]] = {}
        self.behind: set[str] = set()
        self.plain._send_through(self)
        self.relay = Relay(self.plain)

    threads = None
    concurrent = False

    def fan_out(self, eio_sids: Any, packets: Any) -> None:
        for eio_sid in eio_sids:
            self.got.setdefault(eio_sid, []).extend(packets)

    def fan_out_volatile(self, eio_sids: Any, packets: Any) -> None:
        self.fan_out([eio_sid for eio_sid in eio_sids if eio_sid not in self.behind], packets)

    def is_behind(self) -> bool:
        return False

    def add(self, eio_sid: str, rooms: Any = (), tag: Optional[str] = None) -> str:
        """Add a client; with an adopted tag in its sid."""
        sid = f"{tag or self.plain.host_id}.{eio_sid:_>20}"
        self.plain._take_in(sid, eio_sid, "/", [sid, *rooms])
        return sid

    def hear(self, method: str, data: Any = None, to: Any = None, **fields: Any) -> None:
        """A message of another worker.

        :param to: what delivers it.
        """
        packets: list[Any] = []
        if data is not None:
            kind = 2 if method in ("emit", "volatile") else 3
            packets = self.plain._encode(kind, "/", data, fields.get("ack"))
        fields = {
            "method": method,
            "namespace": "/",
            "packet": self.plain._packet_format(),
            **fields,
        }
        message = RelayMessage.unpack(RelayMessage(OTHER, 1, fields, packets).pack())
        (to or self.manager._receive)(message)


@pytest.fixture
def worker(manager: Any) -> Worker:
    return Worker(manager)


def adopt(worker: Worker) -> Any:
    worker.plain.adopt(position(TAG))
    return worker.relay.adoptions[-1]


def events(worker: Worker) -> dict[str, List[Any]]:
    got, worker.got = worker.got, {}
    return got


# --- two places in what the others send -------------------------------------------------


def test_emits_of_others_while_a_worker_adopts(worker: Worker) -> None:
    worker.add("own", ["red"])
    worker.plain.expect([TAG])
    worker.add("adopted", ["red"], TAG)
    worker.hear("emit", ["n", 1])
    worker.hear("emit", ["n", 2], room="red")
    assert events(worker) == {"own": ['2["n",1]', '2["n",2]']}
    adoption = adopt(worker)
    worker.hear("emit", ["n", 1], adoption.deliver)
    worker.hear("emit", ["n", 2], adoption.deliver, room=["red"])
    worker.hear("emit", ["n", 3])
    assert events(worker) == {"adopted": ['2["n",1]', '2["n",2]'], "own": ['2["n",3]']}
    worker.hear("emit", ["n", 3], adoption.deliver)
    adoption.merged()
    events(worker)
    worker.hear("emit", ["n", 4])
    assert events(worker) == {"adopted": ['2["n",4]'], "own": ['2["n",4]']}


@pytest.mark.parametrize("adopted_first", [True, False])
def test_one_message_that_both_get(worker: Worker, adopted_first: bool) -> None:
    """One of the two may hold it until an earlier message has arrived."""
    worker.add("own")
    worker.plain.expect([TAG])
    worker.add("adopted", tag=TAG)
    packets = worker.plain._encode(2, "/", ["n", 1], None)
    fields = {"method": "emit", "namespace": "/", "packet": worker.plain._packet_format()}
    message = RelayMessage(OTHER, 1, fields, packets)
    ways = [adopt(worker).deliver, worker.manager._receive]
    for deliver in ways if adopted_first else reversed(ways):
        deliver(message)
    assert events(worker) == {"own": ['2["n",1]'], "adopted": ['2["n",1]']}
    assert message.scope is None  # once they are merged, it may come to both together


def test_rooms_while_a_worker_adopts(worker: Worker, server: Any) -> None:
    own = worker.add("own", ["red"])
    worker.plain.expect([TAG])
    adopted = worker.add("adopted", ["red"], TAG)
    adoption = adopt(worker)

    def rooms() -> Any:
        return set(server.rooms(own)) - {own}, set(server.rooms(adopted)) - {adopted}

    worker.hear("sockets_join", rooms=["blue"])
    assert rooms() == ({"red", "blue"}, {"red"})
    worker.hear("close_room", room="red")
    assert rooms() == ({"blue"}, {"red"})
    worker.hear("sockets_join", None, adoption.deliver, rooms=["blue"], room="red")
    assert rooms() == ({"blue"}, {"red", "blue"})
    worker.hear("sockets_leave", rooms=["blue"])
    assert rooms() == (set(), {"red", "blue"})
    worker.hear("close_room", None, adoption.deliver, room="red")
    worker.hear("sockets_leave", None, adoption.deliver, rooms=["blue"])
    assert rooms() == (set(), set())
    for sid in (own, adopted):
        worker.hear("enter_room", sid=sid, room="one")
        worker.hear("enter_room", None, adoption.deliver, sid=sid, room="two")
    assert rooms() == ({"one"}, {"two"})
    for sid in (own, adopted):
        worker.hear("leave_room", sid=sid, room="two")
        worker.hear("leave_room", None, adoption.deliver, sid=sid, room="two")
    assert rooms() == ({"one"}, set())


def test_disconnects_while_a_worker_adopts(worker: Worker, monkeypatch: Any) -> None:
    gone: list[str] = []

    async def disconnect(sids: list[str], namespace: str) -> None:
        gone.extend(sids)

    monkeypatch.setattr(worker.plain, "_disconnect_here", disconnect)
    monkeypatch.setattr(worker.plain, "_spawn", lambda call, *args: run_blocking(call(*args)))
    own = worker.add("own")
    worker.plain.expect([TAG])
    adopted = worker.add("adopted", tag=TAG)
    adoption = adopt(worker)
    for sid in (own, adopted):
        worker.hear("disconnect", sid=sid)
    assert gone == [own]
    for sid in (own, adopted):
        worker.hear("disconnect", None, adoption.deliver, sid=sid)
    assert gone == [own, adopted]
    worker.hear("disconnect_sockets")
    worker.hear("disconnect_sockets", None, adoption.deliver)
    assert gone == [own, adopted] * 2


def test_questions_to_the_worker_that_was_there_are_answered_in_its_name(
    worker: Worker, monkeypatch: Any
) -> None:
    worker.add("own", ["red"])
    worker.plain.expect([TAG])
    adopted = worker.add("adopted", ["red", "blue"], TAG)
    adoption = adopt(worker)
    server_side: list[Any] = []
    worker.plain.on("event", server_side.append)
    monkeypatch.setattr(
        worker.plain, "_local_sockets", lambda *args, scope=None: [scope and scope.name]
    )

    def answers(to: Any = None) -> list[Any]:
        for operation in ("fetch_sockets", "fetch_rooms"):
            worker.hear("request", None, to, request=1, operation=operation)
        sent, worker.relay.messages[:] = list(worker.relay.messages), []
        return [
            (tag, fields["worker"], worker.plain._decode(RelayMessage("x", 0, fields, packets))[0])
            for tag, fields, packets in sent
        ]

    both = [["red", 2], ["blue", 1]]
    host = worker.plain.host_id
    assert answers() == [(OTHER, host, [None]), (OTHER, host, both)]
    assert answers(adoption.deliver) == [
        (OTHER, TAG, [TAG]),
        (OTHER, TAG, [["red", 1], ["blue", 1]]),
    ]
    # What was for the worker itself, and not for its clients.
    worker.hear("server_side_emit", [1], adoption.deliver, event="event")
    worker.hear("answer", [1], adoption.deliver, request=1, worker=OTHER)
    worker.hear("callback", [1], adoption.deliver, ack=1)
    assert worker.relay.messages == []
    worker.hear(
        "request", [1], adoption.deliver, request=1, operation="server_side_call", event="event"
    )
    ((tag, fields, packets),) = worker.relay.messages
    assert (tag, fields["worker"], packets) == (OTHER, TAG, [])
    assert server_side == []
    # An event that asks the clients.
    worker.relay.messages.clear()
    worker.hear("emit", ["ask"], adoption.deliver, ack=5, request=2, timeout=30)
    worker.hear("emit", ["ask"], ack=5, request=2, timeout=30)
    expected = [(fields["worker"], fields["count"]) for _, fields, _ in worker.relay.messages]
    assert expected == [(TAG, 1), (host, 1)]
    assert sorted(events(worker)) == ["adopted", "own"]
    worker.plain._acknowledged(adopted, 5, ["yes"])
    assert worker.relay.messages[-1][1]["worker"] == TAG


# --- what this process sends ---------------------------------------------------------------


def test_own_emits_reach_adopted_clients_once(worker: Worker) -> None:
    worker.add("own", ["red"])
    worker.manager.emit("n", 1)
    worker.plain.expect([TAG])
    adopted = worker.add("adopted", ["red"], TAG)
    worker.manager.emit("n", 2)
    worker.manager.emit("local", 2, local=True)
    worker.manager.emit("n", 3, room=adopted)
    worker.manager.close_room("red")
    assert set(events(worker)) == {"own"}
    assert "red" in worker.plain.get_rooms(adopted, "/")
    adoption = adopt(worker)
    worker.manager.emit("n", 4)
    adoption.own(worker.relay.sent_since(1))
    assert events(worker) == {"own": ['2["n",4]'], "adopted": ['2["n",2]', '2["n",3]', '2["n",4]']}
    assert "red" not in worker.plain.get_rooms(adopted, "/")
    sent = len(worker.relay.messages)
    worker.manager.emit("n", 5)
    worker.manager.emit("n", 6, room=adopted)
    worker.manager.emit("local", 5, local=True)
    assert events(worker) == {
        "own": ['2["n",5]', '2["local",5]'],
        "adopted": ['2["n",5]', '2["n",6]', '2["local",5]'],
    }
    assert [tag for tag, _, _ in worker.relay.messages[sent:]] == [None]


def test_who_is_asked_for_clients_that_are_adopted(worker: Worker) -> None:
    worker.plain.set_members({worker.plain.host_id: False, TAG: False, OTHER: False}, {TAG})
    assert worker.manager.server_count() == 2
    assert worker.plain.lives(OTHER) and not worker.plain.lives(TAG)
    assert worker.plain._receivers() == [TAG, OTHER]
    worker.plain.expect([TAG])
    adopt(worker).own(worker.relay.sent_since(0))
    assert worker.plain.tags == {worker.plain.host_id, TAG}
    assert worker.plain._receivers() == [OTHER]
    worker.add("adopted", tag=TAG)
    assert worker.plain.has_clients_of(TAG)
    worker.plain._take_out(worker.add("second", tag=TAG), "/")
    assert worker.plain.has_clients_of(TAG)
    worker.plain.give_up(TAG)
    assert worker.plain.tags == {worker.plain.host_id} and worker.relay.gave_up == [TAG]


def test_who_has_what_a_worker_sent_that_passes_its_clients_on(worker: Worker) -> None:
    """Otherwise the worker would wait for itself, when no worker takes its clients."""
    host = worker.plain.host_id
    worker.plain.set_members({host: False, OTHER: False})
    left = worker.plain.detach()
    assert worker.plain._receivers() == [host, OTHER]
    left.tags = [host]
    worker.plain.passed_nothing(left)
    assert worker.plain._receivers() == [OTHER]


def test_clients_that_do_not_come_after_all(worker: Worker) -> None:
    worker.add("own")
    worker.plain.expect([TAG, "cccccccc"])
    worker.plain.not_adopted([TAG])
    assert worker.plain._apart == {"cccccccc"}
    worker.plain.not_adopted(["cccccccc"])
    worker.hear("emit", ["n", 1])
    worker.manager.emit("n", 2)
    assert events(worker) == {"own": ['2["n",1]', '2["n",2]']}


def test_own_emits_of_a_worker_that_has_passed_its_clients_on(worker: Worker) -> None:
    own, host = worker.add("own", ["red"]), worker.plain.host_id
    worker.manager.emit("n", 1, room=own)
    assert worker.relay.messages == [] and events(worker) == {"own": ['2["n",1]']}
    worker.plain.detach()
    assert worker.plain.tags == frozenset()
    worker.manager.emit("n", 2)
    worker.manager.emit("n", 3, room=own)
    worker.manager.close_room("red")
    assert [tag for tag, _, _ in worker.relay.messages] == [None, host, None]
    assert events(worker) == {} and "red" in worker.plain.get_rooms(own, "/")
    worker.plain._take_out(own, "/")
    worker.manager.enter_room(own, "/", "blue")
    assert worker.relay.messages[-1][:1] == (host,)


def test_an_emit_to_several_sids_names_to_each_worker_its_own(worker: Worker) -> None:
    sids = [f"{TAG}.{1:_>20}", f"{OTHER}.{1:_>20}", f"{TAG}.{2:_>20}", worker.add("own")]
    worker.manager.emit("n", 1, room=tuple(sids))
    assert {tag: fields["room"] for tag, fields, _ in worker.relay.messages} == {
        TAG: [sids[0], sids[2]],
        OTHER: [sids[1]],
    }
    assert events(worker) == {"own": ['2["n",1]']}


def test_numbers_of_questions_are_those_of_no_other_process() -> None:
    first, second = (next(ZmqManager()._requests) for _ in range(2))
    assert first != second and max(first, second) < 2**53


# --- volatile --------------------------------------------------------------------------------


def test_a_volatile_emit_is_not_kept_and_not_for_who_is_behind(worker: Worker) -> None:
    worker.add("quick", ["red"])
    worker.add("slow", ["red"])
    worker.behind.add("slow")
    early = worker.manager._pre_connect("early", "/")
    worker.manager.emit("n", 1, room="red", volatile=True)
    worker.manager.emit("n", 2, room=early, volatile=True)
    assert worker.relay.messages == []
    assert [(tag, fields["method"]) for tag, fields, _ in worker.relay.volatile] == [
        (None, "volatile")
    ]
    worker.hear("volatile", ["n", 3])
    assert events(worker) == {"quick": ['2["n",1]', '2["n",3]']}
    assert worker.plain._early[early].emits == []
    with pytest.raises(ValueError, match="callback with volatile"):
        worker.manager.emit("n", 1, room="red", callback=print, volatile=True)


def test_a_volatile_emit_comes_once_to_adopted_clients_too(worker: Worker) -> None:
    worker.add("own")
    worker.plain.expect([TAG])
    worker.add("adopted", tag=TAG)
    worker.hear("volatile", ["n", 1])
    assert events(worker) == {"own": ['2["n",1]']}  # the other has not begun yet
    adopt(worker).own(worker.relay.sent_since(0))
    worker.hear("volatile", ["n", 2])
    assert events(worker) == {"own": ['2["n",2]'], "adopted": ['2["n",2]']}


# --- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [0, -1, float("inf"), float("nan"), "45", None])
def test_a_timeout_of_connect_that_cannot_be(wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"^connect_timeout {wrong!r} is not a number above 0$"):
        ZmqManager(connect_timeout=wrong)


@pytest.mark.parametrize("kind", [ZmqManager, AsyncZmqManager])
def test_takeover_is_an_option(kind: Any) -> None:
    assert kind().takeover is False
    assert kind(takeover=True).takeover is True
    for wrong in (None, 1, "yes"):
        with pytest.raises(ValueError, match=f"^takeover {wrong!r} is not True or False$"):
            kind(takeover=wrong)
    with pytest.raises(ValueError, match="such a manager has no clients"):
        kind("zmq+ipc:///nowhere", write_only=True, takeover=True)


# --- threads -------------------------------------------------------------------------------------


class ThreadServed(Served):
    def __init__(self, threads: LoopThread, concurrent: bool) -> None:
        super().__init__(threads)
        self.concurrent = concurrent


@pytest.fixture(params=[True, False])
def outlet(request: pytest.FixtureRequest, loop: asyncio.AbstractEventLoop) -> ThreadServed:
    """Handlers run in threads, or a thread of the application emits beside them."""
    return ThreadServed(LoopThread(loop), request.param)


@pytest.fixture
def threaded(outlet: ThreadServed) -> ZmqManager:
    manager = ZmqManager(takeover=True)
    make_server(client_manager=manager)
    manager._send_through(outlet)
    return manager


class Emitters:
    """Threads that emit numbers, each its own, until they are stopped."""

    def __init__(self, manager: ZmqManager, start: Start, count: int = 4) -> None:
        self._stopped = False
        self._manager = manager
        self.sent = [0] * count
        self._running = [start(self._emit, number) for number in range(count)]
        eventually(lambda: min(self.sent) > 3)

    def _emit(self, name: int) -> None:
        while not self._stopped:
            self.sent[name] += 1
            self._manager.emit("n", [name, self.sent[name]])
            time.sleep(random.random() / 1000)

    def wait_for_each(self) -> None:
        """Wait until each thread has emitted once more."""
        before = list(self.sent)
        eventually(lambda: all(now > then for now, then in zip(self.sent, before)))

    def stop(self) -> None:
        self._stopped = True
        for running in self._running:
            running.result(30)


def numbers_of(name: int, packets: list[Any]) -> list[int]:
    start = f'2["n",[{name},'
    return [int(p[len(start) : -2]) for p in packets if p.startswith(start)]


def test_threads_emit_while_clients_are_adopted(
    loop: asyncio.AbstractEventLoop, threaded: ZmqManager, outlet: ThreadServed, start: Start
) -> None:
    relay = Relay(threaded)
    threaded._take_in(f"{threaded.host_id}.{1:_>20}", "own", "/", [])
    for round_ in range(20):
        emitters = Emitters(threaded, start)
        before = len(relay.messages)
        first = list(emitters.sent)
        run_in(loop, threaded.expect, [TAG])
        run_in(loop, threaded._take_in, f"{TAG}.{1:_>20}", f"adopted{round_}", "/", [])
        time.sleep(0.002)
        run_in(loop, threaded.adopt, position(TAG))
        run_in(loop, relay.adoptions[-1].own, relay.sent_since(before))
        run_in(loop, relay.adoptions[-1].merged)
        emitters.wait_for_each()
        emitters.stop()
        run_in(loop, asyncio.sleep, 0)
        for name, last in enumerate(emitters.sent):
            got = numbers_of(name, outlet.got[f"adopted{round_}"])
            assert got[-1] == last and got[0] <= first[name] + 1
            assert got == list(range(got[0], last + 1))
            assert numbers_of(name, outlet.got["own"]) == list(range(1, last + 1))
        outlet.got.clear()
        run_in(loop, threaded._take_out, f"{TAG}.{1:_>20}", "/")
        run_in(loop, threaded.give_up, TAG)


def test_threads_emit_while_clients_are_passed_on(
    loop: asyncio.AbstractEventLoop, threaded: ZmqManager, outlet: ThreadServed, start: Start
) -> None:
    relay = Relay(threaded)
    for round_ in range(20):
        threaded._passed_at = None
        del relay.messages[:]
        sid = f"{threaded.host_id}.{round_:_>20}"
        threaded._take_in(sid, "own", "/", [])
        emitters = Emitters(threaded, start)
        passed = run_in(loop, threaded.detach)
        assert run_in(loop, threaded.wait_settled, 10, asyncio.sleep)
        saved = list(outlet.got["own"])
        run_in(loop, threaded._take_out, sid, "/")
        time.sleep(0.002)
        emitters.stop()
        run_in(loop, asyncio.sleep, 0)
        assert outlet.got["own"] == saved
        rest = [packets[0] for _, _, packets in relay.messages[passed.sent :]]
        for name, last in enumerate(emitters.sent):
            got = numbers_of(name, saved) + numbers_of(name, rest)
            assert got == list(range(1, last + 1))
        outlet.got.clear()


def hold_up(relay: Relay) -> threading.Event:
    """A thread that has published a message goes on once this is set."""
    goes_on = threading.Event()
    publish = relay.publish

    def publish_late(*args: Any) -> int:
        number = publish(*args)
        goes_on.wait(30)
        return number

    relay.publish = publish_late  # type: ignore[method-assign]
    return goes_on


@pytest.mark.parametrize("moves", [False, True])
@pytest.mark.parametrize("whom", ["all", "one"])
def test_what_a_thread_has_published_before_clients_come_is_not_theirs_directly(
    loop: asyncio.AbstractEventLoop,
    threaded: ZmqManager,
    outlet: ThreadServed,
    start: Start,
    moves: bool,
    whom: str,
) -> None:
    """However late the thread goes on: they get the message with those that they had yet to
    receive."""
    relay = Relay(threaded)
    sid = f"{TAG}.{1:_>20}"
    if moves:  # others have come before
        run_in(loop, threaded.expect, ["cccccccc"])
        run_in(loop, threaded.not_adopted, ["cccccccc"])
    sent, goes_on = threading.Event(), threading.Event()
    publish_to = threaded._publish_to

    def publish_and_wait(*args: Any) -> Any:
        number = publish_to(*args)
        sent.set()
        goes_on.wait(30)
        return number

    threaded._publish_to = publish_and_wait  # type: ignore[method-assign]
    emitting = start(threaded.emit, "n", [0, 1], room=None if whom == "all" else sid)
    assert sent.wait(30)
    run_in(loop, threaded.expect, [TAG])
    run_in(loop, threaded._take_in, sid, "adopted", "/", [sid])
    run_in(loop, threaded.adopt, position(TAG))
    run_in(loop, relay.adoptions[-1].own, relay.sent_since(0))
    run_in(loop, relay.adoptions[-1].merged)
    goes_on.set()
    emitting.result(30)
    run_in(loop, asyncio.sleep, 0)
    assert outlet.got == {"adopted": ['2["n",[0,1]]']}


def test_what_a_thread_has_begun_is_waited_for(
    loop: asyncio.AbstractEventLoop, threaded: ZmqManager, outlet: ThreadServed, start: Start
) -> None:
    relay = Relay(threaded)
    threaded._take_in(f"{threaded.host_id}.{1:_>20}", "own", "/", [])
    goes_on = hold_up(relay)
    emitting = start(threaded.emit, "n", 1)
    eventually(lambda: bool(relay.messages))
    run_in(loop, threaded.detach)
    assert not run_in(loop, threaded.wait_settled, 0.05, asyncio.sleep)
    goes_on.set()
    assert run_in(loop, threaded.wait_settled, 10, asyncio.sleep)
    assert outlet.got == {"own": ['2["n",1]']}
    emitting.result(30)


def test_what_a_thread_published_before_comes_as_what_others_sent(
    loop: asyncio.AbstractEventLoop, threaded: ZmqManager, outlet: ThreadServed, start: Start
) -> None:
    relay = Relay(threaded)
    run_in(loop, threaded.expect, [TAG])
    threaded._take_in(f"{TAG}.{1:_>20}", "adopted", "/", [])
    goes_on = hold_up(relay)
    emitting = start(threaded.emit, "n", 1)
    eventually(lambda: bool(relay.messages))
    run_in(loop, threaded.adopt, position(TAG))
    run_in(loop, relay.adoptions[-1].own, relay.sent_since(0))
    goes_on.set()
    emitting.result(30)
    threaded.emit("n", 2)
    run_in(loop, asyncio.sleep, 0)
    assert outlet.got == {"adopted": ['2["n",1]', '2["n",2]']}


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    value = random.randrange(2**32)
    print("seed", value)
    random.seed(value)
    yield
