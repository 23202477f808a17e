"""A FastAPI application as people write them, in a cluster of asyncio workers."""

from __future__ import annotations

import hashlib
import http.client
import json
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import socketio
import websocket
from ledger.victim import MB, Echoes, PeakMemory

from .conftest import Clients, ClusterFactory
from .harness import Cluster, wait_until
from .modes import ASYNCIO

pytestmark = ASYNCIO

UPLOAD = 100


@pytest.fixture(scope="module")
def cluster(make_module_cluster: ClusterFactory) -> Cluster:
    return make_module_cluster(command="supervisor-sio worker fastapi_app:app").start()


@pytest.fixture
def connection(cluster: Cluster) -> Iterator[http.client.HTTPConnection]:
    made = http.client.HTTPConnection("127.0.0.1", cluster.port, timeout=30)
    yield made
    made.close()


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, **options: Any
) -> tuple[http.client.HTTPResponse, Any]:
    connection.request(method, path, **options)
    answer = connection.getresponse()
    return answer, json.loads(answer.read() or b"null")


def happened(cluster: Cluster) -> list[str]:
    """At all workers that are asked; those are chosen in turn."""
    found: list[str] = []
    for _ in range(2 * cluster.numprocs):
        with urllib.request.urlopen(f"{cluster.url}/happened", timeout=20) as answer:
            found += json.load(answer)
    return found


def pids(cluster: Cluster) -> set[int]:
    return {row["pid"] for row in cluster.workers()}


def test_clients_of_all_workers(cluster: Cluster, clients: Clients) -> None:
    made = clients.mixed(cluster, 9)
    assert {client.whoami()["pid"] for client in made} == pids(cluster)
    for client in made:
        assert client.call("echo", "ü", {"a": [1]}) == ["ü", {"a": [1]}]


def test_a_session_of_a_dependency(
    cluster: Cluster, connection: http.client.HTTPConnection
) -> None:
    """The browser's cookie means the same in a view, on any worker, and in a handshake."""
    assert ask(connection, "GET", "/me")[0].status == 401
    answer, body = ask(connection, "POST", "/login/ada")
    assert body == {"name": "ada"}
    cookie = {"Cookie": str(answer.headers["Set-Cookie"]).partition(";")[0]}
    for _ in range(4):
        answer, body = ask(connection, "GET", "/me", headers=cookie)
        assert (answer.status, body["name"]) == (200, "ada")
    for transport in ("polling", "websocket"):
        client = socketio.Client()
        client.connect(cluster.url, headers=cookie, transports=[transport], wait_timeout=25)
        assert client.call("whoami")["name"] == "ada"
        client.shutdown()


def test_lifespan(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(command="supervisor-sio worker fastapi_app:app", workers=1).start()
    (row,) = cluster.workers()
    with urllib.request.urlopen(f"{cluster.url}/pool", timeout=20) as answer:
        assert json.load(answer) == f"pool of {row['pid']}"
    cluster.wait_log("workers_00", "ready (tag")
    log = cluster.log("workers_00")
    assert log.count("the application starts") == 1
    assert log.index("the application starts") < log.index("ready (tag")
    assert cluster.ctl("stop", "workers:*").returncode == 0
    wait_until(
        lambda: "the application has ended" in cluster.log("workers_00"), 5, "the end of its life"
    )
    assert "Traceback" not in cluster.log("workers_00")


def test_events_are_sent_when_they_happen(
    cluster: Cluster, connection: http.client.HTTPConnection
) -> None:
    connection.request("GET", "/events/4000")  # for 200 seconds
    answer = connection.getresponse()
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    began = time.monotonic()
    assert [answer.readline() for _ in range(3)] == [b"data: 0\n", b"\n", b"data: 1\n"]
    assert time.monotonic() - began < 20
    connection.close()
    answer.close()
    wait_until(lambda: "the stream has ended" in happened(cluster), 5, "its end")


def test_events_to_their_end_and_another_request(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", "/events/3")
    assert connection.getresponse().read() == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
    assert ask(connection, "GET", "/blocking")[0].status == 200


def pieces(megabytes: int) -> Iterator[bytes]:
    for number in range(megabytes):
        yield bytes([number % 256]) * MB


@pytest.mark.tries(3)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_long_upload(
    cluster: Cluster, connection: http.client.HTTPConnection, chunked: bool
) -> None:
    """It costs the worker little memory, and others little time."""
    digest = hashlib.sha256()
    for piece in pieces(UPLOAD):
        digest.update(piece)
    pid = ask(connection, "GET", "/blocking")[1]
    headers = {} if chunked else {"Content-Length": str(UPLOAD * MB)}
    with PeakMemory(pid) as peak, Echoes(cluster.port) as others:
        _, body = ask(
            connection,
            "PUT",
            "/upload",
            body=pieces(UPLOAD),
            headers=headers,
            encode_chunked=chunked,
        )
    assert body == {"sha256": digest.hexdigest(), "size": UPLOAD * MB, "pid": pid}
    assert peak.grown < 20 * MB
    assert others.percentile(0.9) < 1


def test_a_long_download(connection: http.client.HTTPConnection) -> None:
    """To a client that takes its time: the worker does not keep what it has not taken."""
    pid = ask(connection, "GET", "/blocking")[1]
    digest, expected = hashlib.sha256(), hashlib.sha256()
    for piece in pieces(UPLOAD):
        expected.update(piece)
    with PeakMemory(pid) as peak:
        connection.request("GET", f"/download/{UPLOAD}")
        answer = connection.getresponse()
        while data := answer.read(MB):
            digest.update(data)
    assert digest.digest() == expected.digest()
    assert peak.grown < 20 * MB


def test_a_background_task_emits(
    cluster: Cluster, connection: http.client.HTTPConnection, clients: Clients
) -> None:
    made = clients.mixed(cluster, 6)
    assert ask(connection, "POST", "/announce/later")[1] == {"accepted": True}
    for client in made:
        assert client.wait_for("said") == [["later"]]


def test_the_applications_own_websocket(cluster: Cluster, clients: Clients) -> None:
    listener = clients.connect(cluster, "node", ["websocket"])
    listener.call("join", "red")
    url = cluster.url.replace("http", "ws")
    own = websocket.create_connection(f"{url}/ws/red", timeout=20, subprotocols=["chat"])
    assert own.getsubprotocol() == "chat"
    for number in range(3):
        own.send(f"hello {number}")
        assert own.recv() == f"red: hello {number}"
    own.send_binary(bytes(range(256)) * 1000)
    assert own.recv() == bytes(range(256)) * 1000
    assert listener.wait_for("said", 3) == [[f"hello {number}"] for number in range(3)]
    own.ping()
    own.close(4001)
    wait_until(lambda: "red is left with 4001" in happened(cluster), 5, "its end")


def test_a_websocket_that_the_application_refuses(cluster: Cluster) -> None:
    url = cluster.url.replace("http", "ws")
    for path in ("/ws/closed", "/nowhere"):
        with pytest.raises(websocket.WebSocketBadStatusException) as refused:
            websocket.create_connection(url + path, timeout=20)
        assert refused.value.status_code == 403


def test_own_websockets_end_when_their_worker_is_stopped(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(
        command="supervisor-sio worker fastapi_app:app", workers=1, drain_timeout="3"
    ).start()
    own = websocket.create_connection(f"ws://127.0.0.1:{cluster.port}/ws/red", timeout=20)
    own.send("hello")
    assert own.recv() == "red: hello"
    began = time.monotonic()
    assert cluster.ctl("stop", "workers:*").returncode == 0
    with pytest.raises((websocket.WebSocketException, ConnectionError)):
        while own.recv():
            pass
        raise ConnectionError
    assert time.monotonic() - began < 14
    assert "Traceback" not in cluster.log("workers_00")


def test_one_connection_for_all(cluster: Cluster) -> None:
    """Views, sessions of different workers and an upload take turns on a kept connection."""
    from .raw import Poller

    shared = http.client.HTTPConnection("127.0.0.1", cluster.port, timeout=20)
    shared.connect()
    shared.auto_open = 0
    sessions: list[Poller] = []
    while len({session.sid.partition(".")[0] for session in sessions}) < 2:
        assert len(sessions) < 10
        sessions.append(Poller(cluster.port))
        sessions[-1].open(shared)
        sessions[-1].join(shared)
    for _ in range(5):
        for session in sessions:
            assert session.call("echo", "x", connection=shared) == "x"
            _, body = ask(shared, "PUT", "/upload", body=b"x" * 100_000)
            assert body["size"] == 100_000
    shared.close()
