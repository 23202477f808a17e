"""What handlers see of a client is the same after its worker was restarted, in each framework."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Clients, ClusterFactory
from .harness import Cluster
from .modes import ASYNCIO, WSGI
from .recorder import TestClient

TRANSPORTS: list[Any] = [["websocket"], ["polling"]]


def look(client: TestClient, namespace: str = "/") -> tuple[int, dict[str, Any], list[Any]]:
    pid, seen, called = client.call("look", namespace=namespace)
    return pid, seen, called


def restart(cluster: Cluster) -> None:
    assert cluster.ctl("restart", "workers:workers_00").returncode == 0


def assert_the_same(cluster: Cluster, client: TestClient, asked: bool = False) -> None:
    for value in (1, "two"):
        client.emit("note", value)
        pid, before, _ = look(client)
        restart(cluster)
        after_pid, after, called = look(client)
        if asked:  # the session counts
            before["session"]["asked"] += 1
        assert after == before and after["session"]["noted"] == value
        assert after_pid != pid
        assert called == [["takeover", before["sid"], "127.0.0.1"]]
        assert client.disconnects == []


@WSGI
@pytest.mark.parametrize("transports", TRANSPORTS)
def test_flask_socketio(
    make_cluster: ClusterFactory, clients: Clients, transports: list[str]
) -> None:
    command = "supervisor-sio worker takeover_flask_app:app"
    cluster = make_cluster(workers=1, command=command).start()
    client = clients.connect(cluster, transports=transports, namespaces=("/", "/chat"))
    _, seen, called = look(client)
    assert seen["sid"] == client.sid() and called == [["connect", client.sid()]]
    assert seen["rooms"] == ["everybody"] and seen["session"]["since"] == "connect"
    _, in_chat, _ = look(client, "/chat")
    assert_the_same(cluster, client, asked=True)
    _, still, _ = look(client, "/chat")
    del in_chat["session"], still["session"]
    assert still == in_chat


@WSGI
def test_django(make_cluster: ClusterFactory, clients: Clients) -> None:
    command = "supervisor-sio worker takeover_django_app:app"
    cluster = make_cluster(workers=1, command=command).start()
    client = clients.connect(cluster)
    _, seen, _ = look(client)
    assert seen["path"] == "/socket.io/" and seen["query"] == "4"
    assert_the_same(cluster, client)


@ASYNCIO
@pytest.mark.parametrize("transports", TRANSPORTS)
def test_fastapi(make_cluster: ClusterFactory, clients: Clients, transports: list[str]) -> None:
    command = "supervisor-sio worker takeover_fastapi_app:app"
    cluster = make_cluster(workers=1, command=command).start()
    client = clients.connect(cluster, transports=transports)
    _, seen, _ = look(client)
    assert seen["of this process"] and seen["url"] == "/log-in"
    assert_the_same(cluster, client)
