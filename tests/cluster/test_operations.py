"""What a worker asks of the whole cluster: emits with all acks, rooms, sockets, workers."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import psutil
import pytest

from .conftest import Clients, ClusterFactory
from .harness import Cluster, wait_until
from .recorder import TestClient

NAMESPACES = ["/", "/room"]

_numbers = itertools.count()


def unique(name: str) -> str:
    return f"{name}-{next(_numbers)}"


class Outcome(NamedTuple):
    """What a method of the manager returned, and how long that took."""

    value: Any
    timed_out: bool
    missing: int
    elapsed: float

    @classmethod
    def read(cls, text: str) -> Outcome:
        """As the worker writes it."""
        return cls(
            **json.loads(text, object_hook=lambda d: bytes.fromhex(d["$hex"]) if "$hex" in d else d)
        )

    @property
    def complete(self) -> bool:
        return not self.timed_out and not self.missing


def operation(client: TestClient, name: str, *args: Any, **options: Any) -> Outcome:
    """Call a method of the manager in the worker of ``client``."""
    return Outcome.read(client.call("operation", name, list(args), options))


class Operation:
    """The same, under way: it has asked the others, and waits for them."""

    def __init__(self, client: TestClient, name: str, *args: Any, **options: Any) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._client = client
        self._begun = len(client.received("begun")) + 1
        self.future: Future[Any] = self._pool.submit(
            client.call, "begin_operation", name, list(args), options
        )

    def __enter__(self) -> Operation:
        self._client.wait_for("begun", self._begun)
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()

    def outcome(self) -> Outcome:
        return Outcome.read(self.future.result())


class Crowd:
    """Clients of all kinds, and who of them is at which worker."""

    def __init__(self, cluster: Cluster, clients: list[TestClient]) -> None:
        self.cluster = cluster
        self.clients = clients
        self.names = sorted(client.name for client in clients)
        self.by_worker: dict[str, list[TestClient]] = defaultdict(list)
        self.pids: dict[str, int] = {}
        for client in clients:
            worker = client.whoami()
            self.by_worker[worker["name"]].append(client)
            self.pids[worker["name"]] = worker["pid"]
        #: One client at each worker.
        self.emitters = [members[0] for members in self.by_worker.values()]
        for emitter in self.emitters:
            wait_until(
                lambda e=emitter: self.count_workers(e) == len(self.by_worker),
                10,
                "the workers know of each other",
            )

    @staticmethod
    def count_workers(client: TestClient) -> int:
        count: int = operation(client, "server_count").value
        return count

    def wait_alone(self) -> None:
        """Wait until the clients of other tests are gone. The workers are asked: the figures of
        the status may be of before those came."""
        for namespace in NAMESPACES:
            wait_until(
                lambda name=namespace: (
                    fetched(self.emitters[0], namespace=name) == sids(self.clients, name)
                ),
                10,
                "only the crowd is there",
            )

    def some(self) -> list[TestClient]:
        """Half of the clients of each worker."""
        return [client for members in self.by_worker.values() for client in members[::2]]

    def rest(self, without: list[TestClient]) -> list[TestClient]:
        return [client for client in self.clients if client not in without]

    def room(self, members: list[TestClient], namespace: str = "/") -> str:
        """A new room with these clients."""
        room = unique("room")
        for client in members:
            client.call("join", room, namespace=namespace)
        return room


@pytest.fixture(scope="module")
def three_workers(make_module_cluster: ClusterFactory) -> Cluster:
    return make_module_cluster(workers=3).start()


@pytest.fixture(scope="module")
def crowd(three_workers: Cluster, module_clients: Clients) -> Iterator[Crowd]:
    crowd = Crowd(three_workers, module_clients.mixed(three_workers, 18, NAMESPACES))
    assert min(len(members) for members in crowd.by_worker.values()) >= 4
    assert len(crowd.by_worker) == 3
    yield crowd
    assert not [client.name for client in crowd.clients if client.disconnects]


def expect(
    crowd: Crowd,
    emitter: TestClient,
    event: str,
    receivers: list[TestClient],
    args: list[Any],
    namespace: str = "/",
) -> None:
    """These clients get it once, the others not at all; its emitter emits once more."""
    for client in receivers:
        client.wait_for(event, namespace=namespace)
    marker = unique("marker")
    operation(emitter, "emit", marker, 0, namespace=namespace)
    for client in crowd.clients:
        client.wait_for(marker, namespace=namespace)
    got = {client.name: client.received(event, namespace) for client in crowd.clients}
    names = {client.name for client in receivers}
    wrong = {name: args_ for name, args_ in got.items() if args_ != [args] * (name in names)}
    assert not wrong, f"expected {args!r:.80}, got {wrong!r:.1000}"


def deliver(
    crowd: Crowd, emitter: TestClient, data: Any, receivers: list[TestClient], **options: Any
) -> None:
    event = unique("news")
    operation(emitter, "emit", event, data, **options)
    expect(crowd, emitter, event, receivers, [data], options.get("namespace", "/"))


def names_of(clients: list[TestClient]) -> list[str]:
    return sorted(client.name for client in clients)


def senders(outcome: Outcome) -> list[str]:
    """Whose answers these are."""
    return sorted(answer["from"] for answer in outcome.value)


def sids(clients: list[TestClient], namespace: str = "/") -> list[str]:
    return sorted(client.sid(namespace) for client in clients)


def fetched(client: TestClient, **options: Any) -> list[str]:
    """The sids of all sockets that there are."""
    outcome = operation(client, "fetch_sockets", **options)
    assert outcome.complete
    return sorted(socket["sid"] for socket in outcome.value)


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, 5, "stopped")


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    try:
        stop(pid)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# --- emit ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", ["text", {"b": [b"\x00\xff", b""], "n": 1}], ids=["text", "binary"]
)
def test_emit_to_all(crowd: Crowd, data: Any) -> None:
    for emitter in crowd.emitters:
        deliver(crowd, emitter, data, crowd.clients)


def test_emit_to_a_namespace(crowd: Crowd) -> None:
    event, emitter = unique("news"), crowd.emitters[0]
    operation(emitter, "emit", event, b"1", namespace="/room")
    expect(crowd, emitter, event, crowd.clients, [b"1"], "/room")
    expect(crowd, emitter, event, [], [])


def test_emit_to_a_room(crowd: Crowd) -> None:
    members = crowd.some()
    room = crowd.room(members)
    for emitter in crowd.emitters:
        deliver(crowd, emitter, [1, b"2"], members, room=room)


def test_emit_except_rooms(crowd: Crowd) -> None:
    members, firsts = crowd.some(), [members[1] for members in crowd.by_worker.values()]
    room, other = crowd.room(members), crowd.room(firsts)
    for emitter in crowd.emitters:
        deliver(crowd, emitter, 1, crowd.rest(members), except_room=room)
        deliver(crowd, emitter, 2, crowd.rest(members + firsts), except_room=[room, other])
    everybody = crowd.room(crowd.clients)
    deliver(crowd, crowd.emitters[0], 3, crowd.rest(firsts), room=everybody, except_room=other)


def test_emit_to_the_clients_of_this_worker_alone(crowd: Crowd) -> None:
    room = crowd.room(crowd.some())
    for members in crowd.by_worker.values():
        deliver(crowd, members[0], 1, members, local=True)
        deliver(crowd, members[0], 2, members[::2], local=True, room=room)


def test_a_volatile_emit_to_a_room(crowd: Crowd) -> None:
    """A client that is behind does not get it, so it is emitted until each was not."""
    members = crowd.some()
    room = crowd.room(members)
    for emitter in crowd.emitters:
        event = unique("volatile")

        def all_have_it(emitter: TestClient = emitter, event: str = event) -> bool:
            operation(emitter, "emit", event, [1, b"2"], room=room, volatile=True)
            return all(member.received(event) for member in members)

        wait_until(all_have_it, 15, "a volatile emit to each client")
        for member in members:
            assert all(args == [[1, b"2"]] for args in member.received(event))
        assert not any(client.received(event) for client in crowd.rest(members))


def test_emit_to_an_unknown_room(crowd: Crowd) -> None:
    deliver(crowd, crowd.emitters[0], 1, [], room="nowhere")
    deliver(crowd, crowd.emitters[0], 2, crowd.clients, except_room="nowhere")


# --- emit_with_acks -----------------------------------------------------------


def test_acks_of_all_clients(crowd: Crowd) -> None:
    crowd.wait_alone()
    for emitter in crowd.emitters:
        event = unique("question")
        outcome = operation(emitter, "emit_with_acks", event, "why")
        assert outcome.complete
        assert senders(outcome) == crowd.names
        assert all(answer["got"] == ["why"] for answer in outcome.value)
        expect(crowd, emitter, event, crowd.clients, ["why"])


def test_acks_of_a_selection(crowd: Crowd) -> None:
    crowd.wait_alone()
    members = crowd.some()
    room, emitter = crowd.room(members, "/room"), crowd.emitters[1]

    def ask(**options: Any) -> list[str]:
        outcome = operation(emitter, "emit_with_acks", "q", 1, namespace="/room", **options)
        assert outcome.complete
        return senders(outcome)

    assert ask(room=room) == names_of(members)
    assert ask(except_room=room) == names_of(crowd.rest(members))
    assert ask(room=room, skip_sid=members[2].sid("/room")) == names_of(
        [client for client in members if client is not members[2]]
    )
    assert ask(room=members[2].sid("/room")) == [members[2].name]
    assert ask(local=True) == names_of(crowd.by_worker[emitter.whoami()["name"]])


def test_binary_acks(crowd: Crowd) -> None:
    crowd.wait_alone()
    data = {"b": [b"\x00\xff", b""], "text": "\u20ac"}
    outcome = operation(crowd.emitters[2], "emit_with_acks", "question", data)
    assert outcome.complete
    assert senders(outcome) == crowd.names
    assert all(answer["got"] == [data] for answer in outcome.value)


@pytest.mark.tries(4)
def test_acks_of_nobody_come_at_once(crowd: Crowd) -> None:
    outcome = operation(crowd.emitters[0], "emit_with_acks", "question", 1, room="nowhere")
    assert outcome.value == [] and outcome.complete
    assert outcome.elapsed < 1


@pytest.mark.tries(4)
def test_clients_that_do_not_answer(crowd: Crowd) -> None:
    crowd.wait_alone()
    silent = names_of(crowd.some())
    outcome = operation(crowd.emitters[0], "emit_with_acks", "silent", silent, timeout=0.7)
    assert outcome.timed_out and outcome.missing == len(silent)
    assert senders(outcome) == names_of(crowd.rest(crowd.some()))
    assert 0.69 <= outcome.elapsed < 2


def test_a_client_that_leaves_is_not_waited_for(
    crowd: Crowd, three_workers: Cluster, clients: Clients
) -> None:
    """Neither by its own worker nor by another one."""
    kinds = (("python", "websocket"), ("node", "polling"), ("python", "polling"))
    leaving = [clients.connect(three_workers, kind, [transport]) for kind, transport in kinds]
    room = crowd.room([*leaving, *crowd.emitters])
    silent = names_of(leaving)
    event = unique("silent")
    own = crowd.by_worker[leaving[0].whoami()["name"]]
    here, there = own[0], crowd.rest(own)[0]
    with (
        Operation(here, "emit_with_acks", event, silent, room=room, timeout=12) as asked_here,
        Operation(there, "emit_with_acks", event, silent, room=room, timeout=12) as asked_there,
    ):
        for client in leaving:
            client.wait_for(event, 2)
            assert not asked_here.future.done() and not asked_there.future.done()
            client.close()
        outcomes = [asked_here.outcome(), asked_there.outcome()]
    for outcome in outcomes:
        assert not outcome.timed_out and outcome.missing == len(leaving)
        assert senders(outcome) == names_of(crowd.emitters)
        assert outcome.elapsed < 10


# --- rooms --------------------------------------------------------------------


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_all_sockets_join_and_leave(crowd: Crowd, namespace: str) -> None:
    here, there, _ = crowd.emitters
    rooms = [unique("room"), unique("room")]
    operation(here, "sockets_join", rooms, namespace=namespace)
    for room in rooms:
        # What a worker does reaches each of the others in order.
        deliver(crowd, here, room, crowd.clients, room=room, namespace=namespace)
        wait_until(
            lambda room=room: (
                fetched(there, room=room, namespace=namespace) == sids(crowd.clients, namespace)
            ),
            5,
            "all have joined",
        )
    other = NAMESPACES[1 - NAMESPACES.index(namespace)]
    assert fetched(here, room=rooms, namespace=other) == []
    operation(here, "sockets_leave", rooms[0], namespace=namespace)
    deliver(crowd, here, 1, [], room=rooms[0], namespace=namespace)
    deliver(crowd, here, 2, crowd.clients, room=rooms[1], namespace=namespace)
    operation(here, "sockets_leave", rooms, namespace=namespace)
    deliver(crowd, here, 3, [], room=rooms, namespace=namespace)


def test_the_sockets_of_a_room_join_and_leave(crowd: Crowd) -> None:
    members = crowd.some()
    room, more, emitter = crowd.room(members), unique("room"), crowd.emitters[1]
    operation(emitter, "sockets_join", more, room=room)
    deliver(crowd, emitter, 1, members, room=more)
    operation(emitter, "sockets_join", more, except_room=room)
    deliver(crowd, emitter, 2, crowd.clients, room=more)
    operation(emitter, "sockets_leave", more, room=room)
    deliver(crowd, emitter, 3, crowd.rest(members), room=more)
    operation(emitter, "sockets_leave", more, except_room=room)
    deliver(crowd, emitter, 4, [], room=more)
    deliver(crowd, emitter, 5, members, room=room)


def test_the_sockets_of_this_worker_join_and_leave(crowd: Crowd) -> None:
    emitter = crowd.emitters[1]
    members = crowd.by_worker[emitter.whoami()["name"]]
    room = unique("room")
    operation(emitter, "sockets_join", room, local=True)
    deliver(crowd, emitter, 1, members, room=room)
    everybody = crowd.room(crowd.clients)
    operation(emitter, "sockets_leave", everybody, local=True)
    deliver(crowd, emitter, 2, crowd.rest(members), room=everybody)


def test_one_socket_joins_and_leaves(crowd: Crowd) -> None:
    here, there, _ = crowd.emitters
    room = unique("room")
    operation(here, "sockets_join", room, room=there.sid())
    deliver(crowd, here, 1, [there], room=room)
    operation(here, "sockets_leave", room, room=[there.sid(), here.sid()])
    deliver(crowd, here, 2, [], room=room)


def test_fetch_rooms(crowd: Crowd) -> None:
    members = crowd.some()
    room, in_namespace = crowd.room(members), crowd.room(crowd.clients, "/room")
    own = crowd.room(crowd.by_worker[crowd.emitters[0].whoami()["name"]][:4])
    for emitter in crowd.emitters:
        outcome = operation(emitter, "fetch_rooms")
        assert outcome.complete
        assert outcome.value[room] == len(members) and outcome.value[own] == 4
        assert in_namespace not in outcome.value
        assert not set(outcome.value) & set(sids(crowd.clients))
        outcome = operation(emitter, "fetch_rooms", namespace="/room")
        assert outcome.value[in_namespace] == len(crowd.clients)
        assert room not in outcome.value
        here = crowd.by_worker[emitter.whoami()["name"]]
        local = operation(emitter, "fetch_rooms", local=True).value
        assert local[room] == len([client for client in members if client in here])
    assert operation(crowd.emitters[0], "fetch_rooms", namespace="/unknown").value == {}
    operation(crowd.emitters[0], "sockets_join", 0, room=room)
    deliver(crowd, crowd.emitters[0], "zero", members, room=0)
    assert operation(crowd.emitters[0], "fetch_rooms").value["0"] == len(members)  # as JSON has it
    operation(crowd.emitters[0], "sockets_leave", 0)


# --- sockets ------------------------------------------------------------------


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_fetch_sockets(crowd: Crowd, namespace: str) -> None:
    crowd.wait_alone()
    workers = {row["pid"]: row["name"] for row in crowd.cluster.workers()}
    expected = {}
    for name, members in crowd.by_worker.items():
        for client in members:
            sid = client.sid(namespace)
            expected[sid] = {
                "sid": sid,
                "namespace": namespace,
                "worker": workers[crowd.pids[name]],
                "transport": client.transport,
                "address": "127.0.0.1",
                "data": {"user": f"user {sid}", "picture": b"\x00\xff"},
            }
    for emitter in crowd.emitters:
        outcome = operation(emitter, "fetch_sockets", namespace=namespace)
        assert outcome.complete
        got = {socket["sid"]: socket for socket in outcome.value}
        for sid, socket in got.items():
            assert sid in socket.pop("rooms")
        assert len(outcome.value) == len(got) and got == expected


def test_fetch_the_sockets_of_a_room(crowd: Crowd, clients: Clients) -> None:
    members = clients.mixed(crowd.cluster, 6, NAMESPACES)
    both = members[::2]
    room, other = crowd.room(members, "/room"), crowd.room(both, "/room")
    for emitter in crowd.emitters:
        outcome = operation(emitter, "fetch_sockets", room=room, namespace="/room")
        assert outcome.complete
        assert {socket["sid"]: sorted(socket["rooms"]) for socket in outcome.value} == {
            c.sid("/room"): sorted([c.sid("/room"), room, *([other] if c in both else [])])
            for c in members
        }
        assert fetched(emitter, room=room, except_room=other, namespace="/room") == sids(
            members[1::2], "/room"
        )
        assert fetched(emitter, room=[other, room], namespace="/room") == sids(members, "/room")
        one = members[0].sid("/room")
        assert fetched(emitter, room=one, namespace="/room") == [one]
        assert fetched(emitter, room=room) == []


def test_fetch_the_sockets_of_this_worker(crowd: Crowd) -> None:
    crowd.wait_alone()
    for members in crowd.by_worker.values():
        assert fetched(members[0], local=True) == sids(members)


def test_disconnect_the_sockets_of_a_room(crowd: Crowd, clients: Clients) -> None:
    made = clients.mixed(crowd.cluster, 9)
    staying, going = made[::3], [client for i, client in enumerate(made) if i % 3]
    room, safe = crowd.room(made), crowd.room(staying)
    operation(crowd.emitters[0], "disconnect_sockets", room=room, except_room=safe)
    for client in going:
        client.wait_disconnected()
    wait_until(
        lambda: fetched(crowd.emitters[1], room=room) == sids(staying), 5, "only some are left"
    )
    for client in staying:
        assert client.call("echo", "there?") == "there?"
        assert not client.disconnects
    operation(crowd.emitters[1], "disconnect_sockets", room=safe)
    for client in staying:
        client.wait_disconnected()


def test_disconnect_the_sockets_of_this_worker(crowd: Crowd, clients: Clients) -> None:
    crowd.wait_alone()
    made = clients.mixed(crowd.cluster, 6)
    worker = made[0].whoami()["name"]
    going = [client for client in made if client.whoami()["name"] == worker]
    staying = [client for client in made if client not in going]
    assert staying
    room, emitter = crowd.room(made), crowd.by_worker[worker][0]
    operation(emitter, "disconnect_sockets", room=room, local=True)
    for client in going:
        client.wait_disconnected()
    wait_until(lambda: fetched(emitter, room=room) == sids(staying), 5, "the others are left")
    assert not [client.name for client in staying if client.disconnects]


def test_disconnect_from_a_namespace(crowd: Crowd, clients: Clients) -> None:
    made = clients.mixed(crowd.cluster, 6, NAMESPACES)
    in_namespace, in_default = crowd.room(made, "/room"), crowd.room(made)
    emitter = crowd.emitters[2]
    operation(emitter, "disconnect_sockets", room=in_default, namespace="/room")  # nobody
    operation(emitter, "disconnect_sockets", room=in_namespace, namespace="/room")
    for client in made:
        client.wait_disconnected()
    operation(emitter, "emit", "still there", 1, room=in_default)
    for client in made:
        assert client.wait_for("still there") == [[1]]
        with pytest.raises(KeyError):
            client.sid("/room")
    assert fetched(emitter, room=in_default) == sids(made)
    assert fetched(emitter, room=in_namespace, namespace="/room") == []


def test_an_unknown_room_or_namespace_is_empty(crowd: Crowd) -> None:
    emitter, room = crowd.emitters[0], unique("room")
    selections: list[dict[str, Any]] = [
        {"room": "nowhere"},
        {"room": []},
        {"namespace": "/unknown"},
    ]
    for selection in selections:
        operation(emitter, "sockets_join", room, **selection)
        operation(emitter, "sockets_leave", room, **selection)
        operation(emitter, "disconnect_sockets", **selection)
        assert fetched(emitter, **selection) == []
    operation(emitter, "sockets_leave", "nowhere")
    deliver(crowd, emitter, 1, [], room=room)
    rooms = operation(emitter, "fetch_rooms").value
    assert room not in rooms and "nowhere" not in rooms
    assert not [client.name for client in crowd.clients if client.disconnects]


# --- the workers themselves ---------------------------------------------------


def test_server_count(crowd: Crowd) -> None:
    assert [crowd.count_workers(client) for client in crowd.emitters] == [3, 3, 3]


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_server_side_emit_reaches_the_other_workers(crowd: Crowd, namespace: str) -> None:
    """Each gets what both others say, once; what comes first of its own would be first."""
    expected: dict[str, list[Any]] = defaultdict(list)

    def notes(client: TestClient) -> list[Any]:
        got: list[Any] = client.call("notes", namespace=namespace)
        return got

    for number, emitter in enumerate(crowd.emitters):
        args = [f"{number}{namespace}", {"b": b"\x00\xff"}]
        options = {} if namespace == "/" else {"namespace": namespace}
        operation(emitter, "server_side_emit", "note", *args, **options)
        for other in crowd.emitters:
            if other is not emitter:
                expected[other.name].append(args)
                wait_until(lambda o=other: notes(o) == expected[o.name], 5, "the note")
    assert {client.name: notes(client) for client in crowd.emitters} == expected


def test_server_side_call_returns_the_answers_of_the_others(crowd: Crowd) -> None:
    for emitter in crowd.emitters:
        outcome = operation(emitter, "server_side_call", "ask", 1, {"b": b"\x00\xff"})
        assert outcome.complete
        others = [name for name in crowd.by_worker if name != emitter.whoami()["name"]]
        assert senders(outcome) == sorted(others)
        assert all(answer["got"] == [1, {"b": b"\x00\xff"}] for answer in outcome.value)
        outcome = operation(emitter, "server_side_call", "ask_nothing")
        assert outcome.complete and outcome.value == [None, None]


@pytest.mark.tries(4)
def test_server_side_call_of_a_worker_that_is_too_slow(crowd: Crowd) -> None:
    here, slow, quick = crowd.by_worker
    emitter = crowd.by_worker[here][0]
    outcome = operation(emitter, "server_side_call", "ask_slowly", slow, 1.5, timeout=0.7)
    assert (outcome.value, outcome.timed_out, outcome.missing) == ([quick], True, 1)
    assert 0.69 <= outcome.elapsed < 1.5
    # Nor does its late answer come up in another call.
    outcome = operation(emitter, "server_side_call", "ask_slowly", slow, 1.5)
    assert sorted(outcome.value) == sorted([slow, quick]) and outcome.complete


@pytest.mark.tries(4)
def test_server_side_call_without_handlers(crowd: Crowd) -> None:
    here, failing, other = crowd.by_worker
    emitter = crowd.by_worker[here][0]
    for event, options in (("unknown", {}), ("ask", {"namespace": "/room"})):
        outcome = operation(emitter, "server_side_call", event, **options)
        assert (outcome.value, outcome.timed_out, outcome.missing) == ([], False, 2)
        assert outcome.elapsed < 1
    outcome = operation(emitter, "server_side_call", "ask_in_vain", failing)
    assert (outcome.value, outcome.timed_out, outcome.missing) == ([other], False, 1)
    assert outcome.elapsed < 1


# --- workers that do not answer -----------------------------------------------


def test_a_worker_that_is_killed_meanwhile_is_not_waited_for(
    make_cluster: ClusterFactory, clients: Clients
) -> None:
    cluster = make_cluster(workers=4).start()
    crowd = Crowd(cluster, clients.mixed(cluster, 12))
    assert len(crowd.by_worker) == 4
    emitter, victim = crowd.emitters[0], list(crowd.by_worker)[1]
    rest = crowd.rest(crowd.by_worker[victim])
    stop(crowd.pids[victim])  # so that it surely does not answer
    with Operation(emitter, "fetch_sockets", timeout=10) as asked:
        killed = time.monotonic()
        os.kill(crowd.pids[victim], signal.SIGKILL)
        outcome = asked.outcome()
        took = time.monotonic() - killed
    print(f"fetch_sockets returned {took * 1000:.1f} ms after the kill of a worker")
    assert (outcome.timed_out, outcome.missing) == (False, 1)
    assert sorted(socket["sid"] for socket in outcome.value) == sids(rest)
    assert took < 5  # of the 10 that it may take


@pytest.mark.tries(4)
def test_a_worker_that_is_stopped_is_waited_for_until_the_time_is_up(crowd: Crowd) -> None:
    crowd.wait_alone()
    here, sleeping, other = crowd.by_worker
    emitter, rest = crowd.by_worker[here][0], crowd.rest(crowd.by_worker[sleeping])
    event = unique("question")
    with stopped(crowd.pids[sleeping]):
        outcome = operation(emitter, "fetch_sockets", timeout=0.7)
        assert sorted(socket["sid"] for socket in outcome.value) == sids(rest)
        assert (outcome.timed_out, outcome.missing) == (True, 1)
        assert 0.69 <= outcome.elapsed < 2
        outcome = operation(emitter, "emit_with_acks", event, 1, timeout=0.7)
        assert senders(outcome) == names_of(rest)
        assert (outcome.timed_out, outcome.missing) == (True, 1)
        outcome = operation(emitter, "server_side_call", "ask", timeout=0.7)
        assert senders(outcome) == [other]
        assert (outcome.timed_out, outcome.missing) == (True, 1)
        outcome = operation(emitter, "fetch_rooms", timeout=0.7)
        assert (outcome.timed_out, outcome.missing) == (True, 1)
    # It catches up; its late answers come up nowhere.
    assert fetched(emitter) == sids(crowd.clients)
    expect(crowd, emitter, event, crowd.clients, [1])


# --- what cannot be sent ------------------------------------------------------


def test_what_is_not_serialisable_raises_and_nothing_is_sent(crowd: Crowd) -> None:
    notes = [client.call("notes") for client in crowd.emitters]
    event, emitter = unique("nonsense"), crowd.emitters[0]
    errors = emitter.call("send_nonsense", event)
    assert len(errors) == 6
    for error in errors:
        assert str(error).startswith("TypeError: "), errors
    expect(crowd, emitter, event, [], [])
    assert [client.call("notes") for client in crowd.emitters] == notes


def test_a_message_of_2_mb_arrives_once(crowd: Crowd) -> None:
    event, emitter = unique("long"), crowd.emitters[0]
    emitter.call("emit_long", event, 2_000_000)
    expect(crowd, emitter, event, crowd.clients, ["x" * 2_000_000])


def test_a_message_over_the_limit_raises_with_its_size(
    make_cluster: ClusterFactory, clients: Clients
) -> None:
    cluster = make_cluster(message_maxbytes="64KB", buffer_maxbytes="1MB").start()
    crowd = Crowd(cluster, clients.mixed(cluster, 8))
    event, emitter = unique("long"), crowd.emitters[0]
    errors = emitter.call("send_long", event, 65536)
    assert len(errors) == 4
    for error in errors:
        assert str(error).startswith("MessageTooLong: "), errors
        assert "over the limit of 65536 (message_maxbytes " in error, errors
    # The packet has the event's name, and more, beside the data: 2["long-1","xxx"].
    assert f"event {event!r} has {65536 + len(event) + 8} bytes" in errors[0]
    expect(crowd, emitter, event, [], [])
    assert all(client.call("notes") == [] for client in crowd.emitters)

    for _ in range(3):
        event = unique("long")
        emitter.call("emit_long", event, 60_000)
        expect(crowd, emitter, event, crowd.clients, ["x" * 60_000])


def test_an_answer_over_the_limit_is_not_waited_for(
    make_cluster: ClusterFactory, clients: Clients
) -> None:
    cluster = make_cluster(message_maxbytes="64KB", buffer_maxbytes="1MB").start()
    crowd = Crowd(cluster, clients.mixed(cluster, 4))
    here, there = crowd.by_worker.values()
    # The answer has the client's name, and more, beside the same data.
    data = "x" * (65536 - 40)
    outcome = operation(here[0], "emit_with_acks", "q", data)
    assert set(senders(outcome)) <= set(names_of(here))
    assert not outcome.timed_out and outcome.missing == len(there)
    for client in crowd.clients:
        assert client.call("echo", 1) == 1
