"""A worker is replaced, in each way that an operator has, and its clients notice nothing.

What a client is doing at that moment, and what would happen to it else, is in takeover_cases.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import ClusterFactory
from .harness import Cluster, wait_until
from .takeover_cases import CASES, DRAINING, Scene
from .takeover_ledger import Ledger

STAYING, LEAVING = "workers:workers_00", "workers:workers_01"


def ctl(cluster: Cluster, *words: str) -> None:
    done: subprocess.CompletedProcess[str] = cluster.ctl(*words)
    assert done.returncode == 0, done.stdout


def reload(cluster: Cluster) -> None:
    ctl(cluster, "sio", "reload", LEAVING)


def surge(cluster: Cluster) -> None:
    ctl(cluster, "sio", "reload", "--surge", LEAVING)


def restart(cluster: Cluster) -> None:
    ctl(cluster, "restart", LEAVING)


def stop_and_start(cluster: Cluster) -> None:
    ctl(cluster, "stop", LEAVING)
    ctl(cluster, "start", LEAVING)


def sigterm(cluster: Cluster) -> None:
    """As a worker that recycles itself, or somebody by hand."""
    os.kill(row_of(cluster, LEAVING)["pid"], signal.SIGTERM)


def scale_down(cluster: Cluster) -> None:
    ctl(cluster, "sio", "scale", "workers", "1")


WAYS = {way.__name__: way for way in (reload, surge, scale_down, restart, stop_and_start, sigterm)}

#: In the router they are as a reload is, but for what supervisord says of the worker.
LONG = ("restart", "stop_and_start", "sigterm")


def row_of(cluster: Cluster, name: str) -> dict[str, int]:
    row = next((row for row in cluster.workers() if row["name"] == name), None)
    assert row is not None, f"no {name}"
    return row


class Replacement:
    """All cases at once, and one worker that is replaced under them."""

    def __init__(self, scene: Scene, way: Callable[[Cluster], None]) -> None:
        self._scene = scene
        self._cluster = scene.cluster
        self._counted = Counter(self._cluster.status()["takeover"]["not_moved"])
        self._log = self._cluster.log("workers_01")
        self._running = {}
        #: Of cases that have failed.
        self._errors: dict[str, BaseException] = {}
        self._waits_for: dict[str, str] = {}
        for name, case in CASES.items():
            self._running[name] = case(scene)
            self._resume(name)
        stopping = threading.Thread(target=self._replace, args=(way,))
        self._failure: BaseException | None = None
        stopping.start()
        try:
            wait_until(lambda: not stopping.is_alive() or self._drains(), 20, "draining")
            for name, phase in list(self._waits_for.items()):
                if phase == DRAINING:
                    self._resume(name)
        finally:
            stopping.join(90)
        if self._failure is not None:
            raise self._failure
        self._cluster.wait_ready(1 if way is scale_down else 2)

    def _drains(self) -> bool:
        return any(row["name"] == LEAVING for row in self._cluster.workers("draining"))

    def _replace(self, way: Callable[[Cluster], None]) -> None:
        before = row_of(self._cluster, LEAVING)["pid"]
        try:
            way(self._cluster)
            wait_until(
                lambda: all(row["pid"] != before for row in self._cluster.status()["workers"]),
                40,
                "the worker has ended",
            )
        except BaseException as error:
            self._failure = error

    def _resume(self, name: str) -> None:
        try:
            self._waits_for[name] = next(self._running[name])
        except StopIteration:
            del self._waits_for[name]
        except BaseException as error:
            self._waits_for.pop(name, None)
            self._errors[name] = error

    def close(self) -> None:
        self._scene.close()

    def not_moved(self) -> dict[str, int]:
        """By reason, those of this replacement."""
        return dict(Counter(self._cluster.status()["takeover"]["not_moved"]) - self._counted)

    def logged(self, word: str) -> int:
        """How many lines the worker that was replaced, and the next one, have written with it."""
        lines = self._cluster.log("workers_01")[len(self._log) :].splitlines()
        return sum(word in line for line in lines)

    def finish(self, name: str) -> None:
        if name not in self._errors:
            self._resume(name)
        if name in self._errors:
            raise self._errors[name]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return Ledger(tmp_path_factory.mktemp("ledger") / "happened")


@pytest.fixture(scope="module")
def cluster(make_module_cluster: ClusterFactory, ledger: Ledger) -> Cluster:
    """Two workers; one that ends by itself is started again."""
    made = make_module_cluster(workers=0, head_timeout="60")  # a slow host starts a worker in 10
    made.extra = made.program("workers", ledger.command(), 2) + "autorestart = true\n"
    made.spawn()
    made.wait_ready(2)
    return made


@pytest.fixture(
    scope="module",
    params=[pytest.param(way, marks=[pytest.mark.long] * (way in LONG)) for way in WAYS],
)
def replacement(
    request: pytest.FixtureRequest,
    cluster: Cluster,
    ledger: Ledger,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Replacement]:
    tag = str(row_of(cluster, LEAVING)["tag"])
    scene = Scene(cluster, ledger, tag, Path(tmp_path_factory.mktemp("files")))
    made = Replacement(scene, WAYS[request.param])
    yield made
    made.close()
    if request.param == "scale_down":
        ctl(cluster, "sio", "scale", "workers", "2")
        cluster.wait_ready(2)


@pytest.mark.parametrize("name", CASES)
def test_a_client(replacement: Replacement, name: str) -> None:
    replacement.finish(name)


def test_what_could_not_be_moved_is_counted_and_logged(
    replacement: Replacement, cluster: Cluster
) -> None:
    """It is one client, whose data is not JSON, and the key is named; once."""
    wait_until(lambda: replacement.not_moved() == {"session-data": 1}, 10, "its count")
    line = "cannot be moved to another worker: session data `socket_of_mine`"
    wait_until(lambda: replacement.logged(line), 10, "its line")
    assert replacement.logged(line) == 1
