"""Clients lose their connection, or their worker, and come back to their session.

What they are doing, and what would happen to it else, is in recovery_cases.py.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from .conftest import Clients, ClusterFactory
from .harness import Cluster, wait_until
from .jsclient import Node
from .network import Network
from .recovery_cases import CASES, Scene
from .takeover_ledger import Ledger, wait_until_balanced
from .test_takeover import ctl, row_of

LEAVING = "workers:workers_01"


@dataclass(frozen=True)
class Way:
    """How clients are lost.

    :ivar network: what becomes of their network until they may come back; nothing without.
    :ivar happens: beside that.
    """

    network: Callable[[Network], None] | None = None
    happens: Callable[[Cluster], None] | None = None
    kills: bool = False
    long: bool = False


def kill(cluster: Cluster) -> None:
    os.kill(row_of(cluster, LEAVING)["pid"], signal.SIGKILL)


def restart(cluster: Cluster) -> None:
    ctl(cluster, "restart", LEAVING)


def stop(cluster: Cluster) -> None:
    ctl(cluster, "stop", LEAVING)


def kill_router(cluster: Cluster) -> None:
    before = cluster.router_pid
    os.kill(before, signal.SIGKILL)
    cluster.wait_new_router(before)
    wait_until(lambda: len(cluster.workers()) == 2, 20, "workers at the next router")


def kill_both(cluster: Cluster) -> None:
    before = cluster.router_pid
    kill(cluster)
    os.kill(before, signal.SIGKILL)
    cluster.wait_new_router(before)


WAYS = {
    "connections_end": Way(Network.fail),
    "connections_end_unnoticed": Way(Network.lose_clients, long=True),
    "worker_is_killed": Way(happens=kill, kills=True),
    "worker_is_killed_and_clients_are_away": Way(Network.fail, kill, kills=True),
    "worker_restarts": Way(happens=restart),
    "worker_stops_and_clients_are_away": Way(Network.fail, stop, long=True),
    "router_is_killed_and_clients_are_away": Way(Network.fail, kill_router, long=True),
    "router_and_worker_are_killed": Way(happens=kill_both, kills=True, long=True),
}


class Loss:
    """All cases at once, and what happens to their clients."""

    def __init__(self, scene: Scene, way: Way) -> None:
        self._scene = scene
        self._running = {name: case(scene) for name, case in CASES.items()}
        self._errors: dict[str, BaseException] = {}
        self._resume_all()
        if way.network is not None:
            way.network(scene.network)
        try:
            if way.happens is not None:
                way.happens(scene.cluster)
            self._resume_all()
        finally:
            scene.network.heal()
        self._resume_all(last=True)
        if LEAVING in [row["name"] for row in scene.cluster.workers("stopped")]:
            ctl(scene.cluster, "start", LEAVING)
        scene.cluster.wait_ready(2)

    def _resume_all(self, last: bool = False) -> None:
        for name in list(self._running):
            try:
                next(self._running[name])
            except StopIteration:
                assert last, f"{name} has ended too soon"
                del self._running[name]
            except Exception as error:
                del self._running[name]
                self._errors[name] = error

    def close(self) -> None:
        self._scene.close()

    def finish(self, name: str) -> None:
        assert name not in self._running, f"{name} has not ended"
        if name in self._errors:
            raise self._errors[name]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return Ledger(tmp_path_factory.mktemp("ledger") / "happened")


@pytest.fixture(scope="module")
def cluster(make_module_cluster: ClusterFactory, ledger: Ledger) -> Cluster:
    """Two workers without takeover; one that dies is started again."""
    made = make_module_cluster(workers=0)
    command = ledger.command(variables="RECOVERY=40 PING_INTERVAL=15 PING_TIMEOUT=15")
    made.extra = made.program("workers", command, 2) + "autorestart = true\n"
    made.spawn()
    made.wait_ready(2)
    return made


@pytest.fixture(scope="module")
def network(cluster: Cluster) -> Iterator[Network]:
    made = Network(cluster.port)
    yield made
    made.close()


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.long] * way.long) for name, way in WAYS.items()],
)
def loss(
    request: pytest.FixtureRequest, cluster: Cluster, ledger: Ledger, network: Network, node: Node
) -> Iterator[Loss]:
    way = WAYS[request.param]
    clients = Clients(node)
    tag = str(row_of(cluster, LEAVING)["tag"])
    scene = Scene(
        cluster, network, ledger, clients, tag, apart=way.network is not None, dies=way.kills
    )
    made = Loss(scene, way)
    yield made
    made.close()


@pytest.mark.parametrize("name", CASES)
def test_a_client(loss: Loss, name: str) -> None:
    loss.finish(name)


def test_each_client_is_told_of_once(loss: Loss, ledger: Ledger) -> None:
    """When all have left: each that was connected was disconnected, once."""
    loss.close()
    wait_until_balanced(ledger, 60)
