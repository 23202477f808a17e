"""Workers of all modes behind one port and at one relay: who moves may do so worker by worker."""

from __future__ import annotations

import http.client
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from .conftest import Clients, ClusterFactory
from .harness import MODE, Cluster, wait_until
from .modes import OWN_MODES
from .raw import Poller
from .recorder import TestClient

pytestmark = OWN_MODES

NUMBERS = 300

Crowd = dict[str, list[TestClient]]


def of_each_mode(make: ClusterFactory, app: str = "counting_app:app") -> Cluster:
    """A worker of each; the group of its program is named after it."""
    cluster = make(workers=0, mode="eventlet")
    for mode in ("eventlet", "asyncio", "threading"):
        command = f"env {MODE}={mode} supervisor-sio worker --async-mode={mode} {app}"
        cluster.extra += cluster.program(mode, command)
    cluster.spawn()
    cluster.wait_ready(3)
    return cluster


@pytest.fixture(scope="module")
def mixed(make_module_cluster: ClusterFactory) -> Cluster:
    return of_each_mode(make_module_cluster)


@pytest.fixture(scope="module")
def crowd(mixed: Cluster, module_clients: Clients) -> Iterator[Crowd]:
    """The clients of each worker: both libraries, every transport."""
    found: Crowd = {}
    for client in module_clients.mixed(mixed, 18):
        found.setdefault(client.whoami()["name"], []).append(client)
    assert {len(clients) for clients in found.values()} == {6} and len(found) == 3, found
    yield found
    assert not [client.name for client in everybody(found) if client.disconnects]


def everybody(crowd: Crowd) -> list[TestClient]:
    return [client for clients in crowd.values() for client in clients]


def first_of_each(crowd: Crowd) -> list[TestClient]:
    return [clients[0] for clients in crowd.values()]


def operation(client: TestClient, name: str, *args: Any, **options: Any) -> Any:
    """Of the manager in the worker of ``client``; it is complete."""
    outcome = json.loads(client.call("operation", name, list(args), options))
    assert not outcome["timed_out"] and not outcome["missing"], outcome
    return outcome["value"]


def test_all_emit_at_once_and_each_client_has_everything_once_and_in_order(crowd: Crowd) -> None:
    emitters = first_of_each(crowd)
    with ThreadPoolExecutor(len(emitters)) as pool:
        list(pool.map(lambda e: e.call("count", f"from-{e.name}", NUMBERS), emitters))
    for emitter in emitters:
        for client in everybody(crowd):
            client.expect_numbers(f"from-{emitter.name}", NUMBERS)


@pytest.mark.parametrize("data", ["ü", [{"b": b"\x00\xff", "n": [1, None]}]])
def test_data_and_rooms(crowd: Crowd, data: Any) -> None:
    for emitter in first_of_each(crowd):
        event, room = f"data-{type(data).__name__}-{emitter.name}", f"room of {emitter.name}"
        members = [clients[-1] for clients in crowd.values()]
        for client in members:
            emitter.call("enter_room_of", client.sid(), room)
        emitter.call("emit_all", event, data, {"room": room})
        emitter.call("emit_all", f"{event}-last", 0, {})
        for client in everybody(crowd):
            client.wait_for(f"{event}-last")
            assert client.received(event) == [[data]] * (client in members), client.name
        emitter.call("close_room", room)


def test_acknowledgements(crowd: Crowd) -> None:
    for emitter in first_of_each(crowd):
        for other in first_of_each(crowd):
            if other is not emitter:
                answer = emitter.call("call_sid", other.sid(), "question", b"?")
                assert answer == {"from": other.name, "got": [b"?"]}
        answers = operation(emitter, "emit_with_acks", "question of all", 1)
        assert sorted(answer["from"] for answer in answers) == sorted(
            client.name for client in everybody(crowd)
        )


def test_what_workers_know_of_each_other(mixed: Cluster, crowd: Crowd) -> None:
    for emitter in first_of_each(crowd):
        assert operation(emitter, "server_count") == 3
        sockets = operation(emitter, "fetch_sockets")
        assert {socket["sid"] for socket in sockets} == {c.sid() for c in everybody(crowd)}
        assert all(socket["data"]["user"] == f"user {socket['sid']}" for socket in sockets)
        answers = operation(emitter, "server_side_call", "ask", "what")
        me = emitter.whoami()["name"]
        assert sorted(answer["from"] for answer in answers) == sorted(set(crowd) - {me})
    rows = {row["name"]: row for row in mixed.workers()}
    assert set(rows) == {f"{mode}:{mode}_00" for mode in ("eventlet", "asyncio", "threading")}


def test_a_disconnect(mixed: Cluster, crowd: Crowd, clients: Clients) -> None:
    for emitter in first_of_each(crowd):
        leaving = [clients.connect(mixed, "node", ["websocket"]) for _ in range(3)]
        for client in leaving:
            emitter.call("disconnect_sid", client.sid())
            client.wait_disconnected()


def test_one_connection_for_sessions_of_all(mixed: Cluster) -> None:
    """Each request goes to the worker of its session: the connection moves between the modes."""
    shared = http.client.HTTPConnection("127.0.0.1", mixed.port, timeout=20)
    shared.connect()
    # A closed connection shows: http.client would open another one by itself.
    shared.auto_open = 0
    sessions: dict[str, Poller] = {}
    for _ in range(12):
        session = Poller(mixed.port)
        session.open(shared)
        session.join(shared)
        sessions.setdefault(session.call("whoami", connection=shared)["name"], session)
    assert set(sessions) == {"eventlet_00", "asyncio_00", "threading_00"}
    for number in range(10):
        for name, session in sessions.items():
            text = str(number) * 20_000
            assert session.call("echo", text, connection=shared) == text
            assert session.call("whoami", connection=shared)["name"] == name
    shared.close()


@pytest.fixture(scope="module")
def changing(make_module_cluster: ClusterFactory) -> Cluster:
    """The same again, for tests that replace its workers."""
    return of_each_mode(make_module_cluster)


@pytest.mark.long
@pytest.mark.parametrize("mode", ["eventlet", "asyncio", "threading"])
def test_a_worker_is_replaced_while_the_others_emit(
    changing: Cluster, clients: Clients, mode: str
) -> None:
    """Clients of the others have all; those of the replaced one come back."""
    cluster = changing
    # Those of the test before have gone, or who has most of them would get none of these.
    wait_until(lambda: [row["sessions"] for row in cluster.workers()] == [0] * 3, 20, "no client")
    by_mode = {}
    for client in clients.mixed(cluster, 9):
        by_mode.setdefault(client.whoami()["name"].partition("_")[0], []).append(client)
    leaving = by_mode.pop(mode)
    staying = everybody(by_mode)
    emitters = first_of_each(by_mode)
    for emitter in emitters:
        emitter.emit("count_slowly", f"from-{emitter.name}", NUMBERS, 3)
    for client in staying:
        client.wait_for(f"from-{emitters[-1].name}")
    assert cluster.ctl("restart", f"{mode}:*").returncode == 0
    os.kill(cluster.router_pid, signal.SIGTERM)
    for client in leaving:
        client.wait_disconnected()
        client.wait_talking()
    for emitter in emitters:
        for client in staying:
            if not client.disconnects:
                client.expect_numbers(f"from-{emitter.name}", NUMBERS)
    wait_until(lambda: len(cluster.workers()) == 3, 20, "all are back")
    leaving[0].call("emit_all", "again", 1, {})
    for client in [*staying, *leaving]:
        client.wait_for("again")
