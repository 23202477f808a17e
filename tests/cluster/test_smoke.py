"""A little of everything, quickly, in each mode.

With it CI tries other Pythons and versions of dependencies.
"""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Iterator

import pytest

from supervisor_sio.common.modes import ASYNC_MODES

from .conftest import Clients, ClusterFactory
from .harness import Cluster, free_port, wait_until
from .jsclient import Node
from .modes import OWN_MODES
from .recorder import TestClient
from .test_hosts import Redis, queue

__all__ = ["queue"]

pytestmark = OWN_MODES

#: Those that this Python can run.
MODES = [mode.name for mode in ASYNC_MODES.values() if sys.version_info >= mode.python]


def sessions(metrics_port: int) -> float:
    """How many there are, as Prometheus reads it."""
    url = f"http://127.0.0.1:{metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if "_worker_sessions{" in line)


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def metrics_port(mode: str) -> int:
    return free_port()


@pytest.fixture(scope="module")
def both(
    make_module_cluster: ClusterFactory, queue: Redis, metrics_port: int, mode: str
) -> list[Cluster]:
    """Two hosts, so to speak, of two workers each; one has metrics."""
    among = {"mode": mode, "message_queue": queue.url, "channel": mode}
    made = [
        make_module_cluster(metrics=f"127.0.0.1:{metrics_port}", **among),
        make_module_cluster(**among),
    ]
    for cluster in made:
        cluster.spawn()
    for cluster in made:
        cluster.wait_ready()
    for cluster in made:
        wait_until(lambda c=cluster: c.status()["queue"]["hosts"] == 1, 20, "the other host")
    return made


@pytest.fixture(scope="module")
def crowd(both: list[Cluster], node: Node) -> Iterator[list[TestClient]]:
    """Both libraries and every transport, at each of the four workers; they leave before those."""
    clients = Clients(node)
    yield [client for cluster in both for client in clients.mixed(cluster, 9)]
    clients.close()


def expect_everywhere(crowd: list[TestClient], emitter: TestClient, event: str) -> None:
    data = {"n": [1, None, "ü"]}
    emitter.call("emit_all", event, data, {})
    emitter.call("emit_all", f"{event}-last", 0, {})
    for client in crowd:
        client.wait_for(f"{event}-last")
        assert client.received(event) == [[data]], client.name


def test_all_clients_talk(crowd: list[TestClient]) -> None:
    assert {client.transport for client in crowd} == {"websocket", "polling"}
    for client in crowd:
        assert client.call("echo", "ü", {}) == ["ü", {}]
        # python-socketio's client that polls may take an event and its attachment in another order.
        if client.transport == "websocket":
            assert client.call("echo", b"\x00\xff" * 5000) == b"\x00\xff" * 5000


def test_every_worker_reaches_all_clients(crowd: list[TestClient]) -> None:
    by_worker = {client.whoami()["pid"]: client for client in crowd}
    assert len(by_worker) == 4
    for pid, emitter in by_worker.items():
        expect_everywhere(crowd, emitter, f"news-{pid}")


def test_rooms_and_acknowledgements_span_workers(crowd: list[TestClient]) -> None:
    there = crowd[-1]
    there.call("join", "there")
    crowd[0].call("emit_all", "to-room", 1, {"room": "there"})
    assert there.wait_for("to-room") == [[1]]
    neighbour = next(c for c in crowd[:9] if c.whoami()["pid"] != crowd[0].whoami()["pid"])
    answer = crowd[0].call("call_sid", neighbour.sid(), "question", "?")
    assert answer == {"from": neighbour.name, "got": ["?"]}


def test_metrics_count_the_sessions(crowd: list[TestClient], metrics_port: int) -> None:
    wait_until(lambda: sessions(metrics_port) == len(crowd) / 2, 10, "all are counted")


def test_clients_of_a_restarted_worker_come_back(
    both: list[Cluster], crowd: list[TestClient]
) -> None:
    row = both[0].workers()[0]
    concerned = [client for client in crowd if client.sid().startswith(row["tag"])]
    assert concerned
    assert both[0].ctl("restart", row["name"]).returncode == 0
    for client in concerned:
        client.wait_disconnected()
        client.wait_talking()
    both[0].wait_ready()
    expect_everywhere(crowd, concerned[0], "again")
    assert not [c.name for c in crowd if c not in concerned and c.disconnects]
