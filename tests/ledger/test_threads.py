"""An application that emits from threads of the operating system."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.conftest import Clients, ClusterFactory
from cluster.harness import Cluster, async_mode
from cluster.modes import ASYNCIO, EVENTLET, OTHER_THREADS
from cluster.recorder import TestClient

from ledger.pairs import connect_pair

Pair = tuple[TestClient, TestClient]

#: Who runs the threads: eventlet, or the application.
KINDS = ["tpool", "thread"] if async_mode() == "eventlet" else ["thread"]


@pytest.fixture(scope="module", params=["supervisor-sio worker", "python"])
def shared(request: pytest.FixtureRequest, make_module_cluster: ClusterFactory) -> Cluster:
    """With eventlet's monkey patches, and without."""
    command = "supervisor-sio worker manager_app:app"
    if request.param == "python":
        command = f"{sys.executable} manager_app.py"
    return make_module_cluster(here=Path(__file__).parent, command=command).start()


@pytest.fixture
def pair(shared: Cluster, clients: Clients) -> Iterator[Pair]:
    """Two clients of different workers, of each transport."""
    first, second = connect_pair(clients, shared, "websocket", "polling")
    yield first, second
    assert not first.disconnects and not second.disconnects


def in_thread(client: TestClient, kind: str, target: str, method: str, *args: object) -> object:
    *positional, options = args
    return client.call("from_thread", kind, target, method, positional, options)


@pytest.mark.parametrize("kind", KINDS)
@OTHER_THREADS
def test_an_emit_reaches_everybody_and_nothing_falls_silent(pair: Pair, kind: str) -> None:
    for emitter in pair:
        event = f"{kind}-of-{emitter.name}"
        assert in_thread(emitter, kind, "sio", "emit", event, {"b": [b"\0"]}, {}) is None
        for client in pair:
            assert client.wait_for(event) == [[{"b": [b"\0"]}]]
    for client in pair:  # the hub's own way still works
        client.call("server_call", "emit", ["after", client.name], {})
    for client in pair:
        assert len(client.wait_for("after", 2)) == 2


@OTHER_THREADS
def test_the_hub_is_woken_at_once_and_the_order_stays(pair: Pair) -> None:
    for emitter in pair:
        event = f"count-{emitter.name}"
        emitter.emit("count_in_thread", event, 500)
        for client in pair:
            got = client.wait_for(event, 500)
            # That client has a thread for each event.
            assert sorted(got) == [[number] for number in range(500)]


@pytest.mark.parametrize("kind", KINDS)
@OTHER_THREADS
def test_rooms_and_disconnects(pair: Pair, kind: str) -> None:
    for emitter, other in (pair, pair[::-1]):
        room = f"room-{kind}-{emitter.name}"
        for client in pair:
            assert in_thread(emitter, kind, "sio", "enter_room", client.sid(), room, {}) is None
        in_thread(emitter, kind, "sio", "emit", room, 1, {"room": room})
        in_thread(emitter, kind, "manager", "sockets_leave", room, {"room": other.sid()})
        in_thread(emitter, kind, "sio", "emit", room, 2, {"room": room})
        in_thread(emitter, kind, "sio", "close_room", room, {})
        in_thread(emitter, kind, "sio", "emit", room, 3, {"room": room})
        in_thread(emitter, kind, "sio", "emit", "end-" + room, None, {})
        for client in pair:
            client.wait_for("end-" + room)
        assert sorted(emitter.received(room)) == [[1], [2]]
        assert other.received(room) == [[1]]


@pytest.mark.parametrize("kind", KINDS)
@EVENTLET
def test_what_waits_for_clients_raises_in_the_thread(pair: Pair, kind: str) -> None:
    first, second = pair
    calls = [
        ("sio", "call", "question", {"to": second.sid()}),
        ("manager", "emit_with_acks", "question", {}),
        ("manager", "fetch_sockets", {}),
        ("manager", "fetch_rooms", {}),
        ("manager", "server_count", {}),
        ("manager", "server_side_call", "question", {}),
        ("sio", "disconnect", first.sid(), {"ignore_queue": True}),
    ]
    for target, method, *args in calls:
        answer = in_thread(first, kind, target, method, *args)
        assert str(answer).startswith("RuntimeError: ") and "thread" in str(answer), answer
    assert first.received("question") == second.received("question") == []
    assert first.call("manager_call", "server_count", [], {}) == 2


@pytest.mark.parametrize("kind", KINDS)
@OTHER_THREADS
def test_a_disconnect(shared: Cluster, clients: Clients, kind: str) -> None:
    made = [clients.connect(shared, transports=["websocket"]) for _ in range(3)]
    assert in_thread(made[0], kind, "sio", "disconnect", made[1].sid(), {}) is None
    assert in_thread(made[0], kind, "sio", "disconnect", made[2].sid(), {}) is None
    made[1].wait_disconnected()
    made[2].wait_disconnected()
    assert made[0].call("echo", "still") == "still"


@ASYNCIO
def test_what_is_called_in_another_thread_raises_there_and_names_the_right_call(pair: Pair) -> None:
    """Nothing of it is sent, and the loop goes on."""
    first, second = pair
    calls = [
        ("sio", "emit", "question", 1, {}),
        ("sio", "call", "question", {"to": second.sid()}),
        ("sio", "enter_room", first.sid(), "room", {}),
        ("sio", "disconnect", second.sid(), {}),
        ("manager", "emit_with_acks", "question", {}),
        ("manager", "fetch_sockets", {}),
        ("manager", "server_count", {}),
        ("manager", "server_side_emit", "question", {}),
        ("manager", "server_side_call", "question", {}),
        ("manager", "sockets_leave", "room", {}),
    ]
    for target, method, *args in calls:
        answer = str(in_thread(first, "thread", target, method, *args))
        assert answer.startswith("RuntimeError: "), (method, answer)
        assert "asyncio.run_coroutine_threadsafe(" in answer, (method, answer)
    first.call("server_call", "emit", ["after", 1], {})
    assert first.wait_for("after") == second.wait_for("after") == [[1]]
    assert first.received("question") == second.received("question") == []


@ASYNCIO
def test_the_right_call_from_another_thread(pair: Pair) -> None:
    first, second = pair
    assert in_thread(first, "threadsafe", "sio", "emit", "news", 1, {}) is None
    assert first.wait_for("news") == second.wait_for("news") == [[1]]
    assert in_thread(first, "threadsafe", "manager", "server_count", {}) == 2
