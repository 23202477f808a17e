"""What handlers see of a client is the same after its worker was restarted, in each framework."""

from __future__ import annotations

from typing import Any

from .conftest import Clients, ClusterFactory
from .harness import Cluster
from .modes import ASYNCIO, WSGI
from .recorder import TestClient


def look(client: TestClient, namespace: str = "/") -> tuple[int, dict[str, Any], list[Any]]:
    """Its worker's pid, what is seen of it, and what was called for it in that worker."""
    pid, seen, called = client.call("look", namespace=namespace)
    return pid, seen, [call for call in called if call[1] == seen["sid"]]


def start(make_cluster: ClusterFactory, module: str) -> Cluster:
    """With one worker."""
    return make_cluster(workers=1, command=f"supervisor-sio worker {module}:app").start()


def assert_the_same(
    cluster: Cluster, clients: list[TestClient], asked: bool = False, restarts: int = 1
) -> None:
    """:param asked: whether the session counts how often it was looked at."""
    for value in (1, "two")[:restarts]:
        for client in clients:
            client.emit("note", value)
        looks = [look(client) for client in clients]
        assert cluster.ctl("restart", "workers:workers_00").returncode == 0
        for client, (pid, before, _) in zip(clients, looks):
            after_pid, after, called = look(client)
            if asked:
                before["session"]["asked"] += 1
            assert after == before and after["session"]["noted"] == value
            assert after_pid != pid
            assert called == [["takeover", before["sid"], "127.0.0.1"]]
            assert client.disconnects == []


def connect(clients: Clients, cluster: Cluster, *namespaces: str) -> list[TestClient]:
    """One over a websocket, one that polls."""
    return [
        clients.connect(cluster, transports=[transport], namespaces=("/", *namespaces))
        for transport in ("websocket", "polling")
    ]


@WSGI
def test_flask_socketio(make_cluster: ClusterFactory, clients: Clients) -> None:
    cluster = start(make_cluster, "takeover_flask_app")
    made = connect(clients, cluster, "/chat")
    for client in made:
        _, seen, called = look(client)
        assert seen["sid"] == client.sid() and called == [["connect", client.sid()]]
        assert seen["rooms"] == ["everybody"] and seen["session"]["since"] == "connect"
    in_chat = [look(client, "/chat")[1] for client in made]
    assert_the_same(cluster, made, asked=True, restarts=2)
    for client, before in zip(made, in_chat):
        _, still, _ = look(client, "/chat")
        del before["session"], still["session"]
        assert still == before


@WSGI
def test_django(make_cluster: ClusterFactory, clients: Clients) -> None:
    cluster = start(make_cluster, "takeover_django_app")
    made = connect(clients, cluster)
    _, seen, _ = look(made[0])
    assert seen["path"] == "/socket.io/" and seen["query"] == "4"
    assert_the_same(cluster, made)


@ASYNCIO
def test_fastapi(make_cluster: ClusterFactory, clients: Clients) -> None:
    cluster = start(make_cluster, "takeover_fastapi_app")
    made = connect(clients, cluster)
    for client in made:
        _, seen, _ = look(client)
        assert seen["of this process"] and seen["url"] == "/log-in"
    assert_the_same(cluster, made)
