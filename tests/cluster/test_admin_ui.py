"""``sio.instrument()``: one page of the Admin UI sees all workers, and acts on their clients."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import socketio
from socketio.exceptions import ConnectionError as Refused

from .conftest import Clients, ClusterFactory
from .harness import Cluster
from .jsclient import Node, NodeClient
from .recorder import TestClient

AUTH = {"username": "admin", "password": "secret"}

_numbers = itertools.count(1)


class Admin(NodeClient):
    """What the page of the Admin UI says and hears, by the same library."""

    def __init__(self, node: Node) -> None:
        super().__init__(node, f"admin-{next(_numbers)}", ["/admin"], AUTH)

    def told(self, event: str) -> list[list[Any]]:
        return self.received(event, "/admin")

    def known_sids(self) -> set[str]:
        """Of the clients that were there when it came, and of those that came."""
        at_first = {socket["id"] for (sockets,) in self.told("all_sockets") for socket in sockets}
        return at_first | {socket["id"] for socket, _ in self.told("socket_connected")}

    def wait_told(self, event: str, *beginning: Any) -> None:
        """Wait for a report that begins with these arguments."""
        wanted = list(beginning)

        def reported() -> bool:
            return any(args[: len(wanted)] == wanted for args in self.told(event))

        self.wait(reported, f"{event} {wanted}")

    def act(self, event: str, *args: Any) -> None:
        self.emit(event, *args, namespace="/admin")


@pytest.fixture(scope="module")
def cluster(make_module_cluster: ClusterFactory) -> Cluster:
    return make_module_cluster(command="supervisor-sio worker admin_app:app").start()


@pytest.fixture
def admin(cluster: Cluster, node: Node) -> Iterator[Admin]:
    client = Admin(node)
    client.connect(cluster.url)
    yield client
    client.close()


def worker_of(sid: str) -> str:
    return sid.partition(".")[0]


def of_the_other_worker(admin: Admin, made: list[TestClient]) -> list[TestClient]:
    here = worker_of(admin.sid("/admin"))
    others = [client for client in made if worker_of(client.sid()) != here]
    assert others and len(others) < len(made)
    return others


def test_a_wrong_password_is_refused(cluster: Cluster) -> None:
    client = socketio.SimpleClient(handle_sigint=False)
    with pytest.raises(Refused):
        client.connect(
            cluster.url, auth={**AUTH, "password": "guess"}, namespace="/admin", wait_timeout=10
        )


def test_figures_of_each_worker(cluster: Cluster, clients: Clients, admin: Admin) -> None:
    clients.mixed(cluster, 6)
    tags = {row["tag"]: row["pid"] for row in cluster.workers()}

    def newest() -> dict[str, Any]:
        return {stats["serverId"]: stats for (stats,) in admin.told("server_stats")}

    def complete() -> bool:
        stats = newest().values()
        return len(stats) == 2 and sum(s["clientsCount"] for s in stats) == 7

    admin.wait(complete, "figures of both workers")
    assert {name: stats["pid"] for name, stats in newest().items()} == tags

    def counted(kind: str) -> int:
        events = [
            one for (stats,) in admin.told("server_stats") for one in stats["aggregatedEvents"]
        ]
        return sum(event["count"] for event in events if event["type"] == kind)

    # Each of the six clients has sent a CONNECT, and got an answer.
    admin.wait(lambda: min(counted("packetsIn"), counted("packetsOut")) >= 6, "their packets")
    admin.wait_for("config", namespace="/admin")


def test_clients_of_all_workers_over_every_transport(
    cluster: Cluster, clients: Clients, admin: Admin
) -> None:
    made = clients.mixed(cluster, 6)
    sids = {client: client.sid() for client in made}
    of_the_other_worker(admin, made)
    admin.wait(lambda: admin.known_sids() >= set(sids.values()), "all clients")
    for client, sid in sids.items():
        for value in ("text", b"\x00\xff" * 50000, {"in": [b"a", 1]}):
            assert client.call("echo", value) == value
            admin.wait_told("event_received", "/", sid, ["echo", value])
        client.call("join", "red")
        admin.wait_told("room_joined", "/", "red", sid)
        client.call("leave", "red")
        admin.wait_told("room_left", "/", "red", sid)
        assert not client.disconnects
        goodbye = client.transport == "websocket" or isinstance(client, NodeClient)
        client.close()
        if goodbye:  # python-socketio's client may leave without it when a pong is under way
            admin.wait_told("socket_disconnected", "/", sid)


def test_clients_that_were_there_before(cluster: Cluster, clients: Clients, node: Node) -> None:
    sids = {client.sid() for client in clients.mixed(cluster, 6)}
    admin = Admin(node)
    admin.connect(cluster.url)
    admin.wait(lambda: admin.known_sids() >= sids, "all clients")
    admin.close()


def test_clients_that_came_after_another_admin(
    cluster: Cluster, clients: Clients, node: Node
) -> None:
    """python-socketio sends ``all_sockets`` to the last client of the newest namespace."""
    first = [Admin(node) for _ in range(4)]
    for each in first:
        each.connect(cluster.url)
    assert {worker_of(each.sid("/admin")) for each in first} == {
        row["tag"] for row in cluster.workers()
    }
    sids = {client.sid() for client in clients.mixed(cluster, 6)}
    admin = Admin(node)
    admin.connect(cluster.url)
    admin.wait(lambda: admin.known_sids() >= sids, "all clients")
    for each in (*first, admin):
        each.close()


def test_the_admin_acts_on_clients_of_all_workers(
    cluster: Cluster, clients: Clients, admin: Admin
) -> None:
    made = clients.mixed(cluster, 6)
    other, *_ = of_the_other_worker(admin, made)
    sid = other.sid()

    admin.act("join", "/", "all")
    for client in made:
        admin.wait_told("room_joined", "/", "all", client.sid())
    admin.act("join", "/", "one", sid)
    admin.wait_told("room_joined", "/", "one", sid)
    admin.act("emit", "/", ["one"], "to_one", "hello", 1)
    assert other.wait_for("to_one") == [["hello", 1]]
    admin.act("leave", "/", "all", sid)
    admin.wait_told("room_left", "/", "all", sid)
    admin.act("emit", "/", ["all"], "to_all", "hello")
    for client in made:
        if client is not other:
            assert client.wait_for("to_all") == [["hello"]]
    admin.act("_disconnect", "/", False, sid)
    other.wait_disconnected()
    admin.wait_told("socket_disconnected", "/", sid)
    assert not other.received("to_all")
    assert [client for client in made if client.disconnects] == [other]


def test_the_manager_as_before(cluster: Cluster, clients: Clients) -> None:
    first, *more = clients.mixed(cluster, 6)
    second = next(c for c in more if worker_of(c.sid()) != worker_of(first.sid()))
    first.call("operation", "emit", ["hello", b"bytes"], {"to": second.sid()})
    first.call("operation", "emit", ["hello", 2], {"room": second.sid()})
    assert second.wait_for("hello", 2) == [[b"bytes"], [2]]
    assert first.call("call_sid", second.sid(), "q", 1) == {"from": second.name, "got": [1]}
    assert not first.received("hello")


def test_a_restart_of_the_workers(cluster: Cluster, clients: Clients, admin: Admin) -> None:
    made = clients.mixed(cluster, 6)
    assert cluster.ctl("restart", "workers:*").returncode == 0
    cluster.wait_ready()
    for client in made:
        client.wait_talking()
    admin.wait_connected()
    sids = {client.sid() for client in made}
    admin.wait(lambda: admin.known_sids() >= sids, "all clients again")
    for name in ("workers_00", "workers_01"):
        assert "Traceback" not in cluster.log(name), cluster.log(name)
