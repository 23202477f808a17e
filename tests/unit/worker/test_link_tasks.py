"""The messages about tasks that a worker sends to its routers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import eventlet
import pytest

from supervisor_sio.cluster.run_once import Lease, Task
from supervisor_sio.common import channel, run_once
from supervisor_sio.common.run_once import End, Word
from supervisor_sio.worker import link as module
from supervisor_sio.worker.eventlet.runtime import HubRuntime
from supervisor_sio.worker.run_once import State
from unit.worker.linked import Router, Worker, until


@pytest.fixture
def router(tmp_path: Path) -> Iterator[Router]:
    made = Router(str(tmp_path / "router.sock"))
    yield made
    made.close()


@pytest.fixture
def steps() -> list[int]:
    return []


@pytest.fixture
def worker(
    router: Router, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[int]
) -> Iterator[Worker]:
    monkeypatch.setattr(module, "_RETRY", 0.02)
    made = Worker(HubRuntime(), SimpleNamespace(router=str(tmp_path / "router.sock")))

    def ticker(lease: Lease) -> None:
        while True:
            steps.append(lease.number)
            eventlet.sleep(0.001)

    def lease(number: int, until: float) -> Lease:
        return Lease("ticker", number, until, eventlet.green.threading.Event())

    made.link.run_once.add(Task("ticker", ticker, True, lease))
    made.link.start()
    yield made
    made.link.run_once.stop()
    until(lambda: not made.link.run_once.unfinished)
    made.link.close()


def welcome(router: Router) -> None:
    message = {"type": "welcome", "version": channel.VERSION, "supervisord": 1, "run_once": True}
    router.send(message)


def begin(router: Router, number: int = 7) -> None:
    router.accept()
    welcome(router)
    assert _said(router, "task") == run_once.task("ticker", Word.WANTS)
    router.send(run_once.offer("ticker", number, time.monotonic() + 60))
    assert _said(router, "task-holds") == run_once.holds("ticker", number, 0)


def _said(router: Router, kind: str) -> Any:
    message = router.expect(kind)
    assert message.pop("descriptors") == 0
    return message


def state(worker: Worker) -> State:
    return worker.link.run_once.state("ticker")


def test_it_runs_and_is_given_back(router: Router, worker: Worker, steps: list[int]) -> None:
    begin(router)
    until(lambda: len(steps) > 3)
    assert set(steps) == {7}
    worker.link.run_once.stop()
    until(lambda: state(worker) is State.OVER)
    assert _said(router, "task-ends") == run_once.ends("ticker", 7, End.GIVEN_BACK)
    count = len(steps)
    eventlet.sleep(0.02)
    assert len(steps) == count


def test_the_next_router_is_told_before_it_says_anything(
    router: Router, worker: Worker, steps: list[int]
) -> None:
    begin(router)
    assert not worker.link.unanswered
    router.die()
    until(lambda: worker.link.generation == 2)
    assert worker.link.unanswered
    router.accept()
    assert _said(router, "task-holds")["number"] == 7
    assert worker.link.unanswered
    # Sent is enough: it need not be read yet.
    welcome(router)
    assert not worker.link.unanswered
    assert _said(router, "task") == run_once.task("ticker", Word.WANTS)
    assert worker.link.welcomed and not worker.link.unanswered
    assert state(worker) is State.RUNNING
    router.send(run_once.lost("ticker", 7))
    until(lambda: state(worker) is not State.RUNNING)
    assert _said(router, "task")["word"] in ("rests", "wants")


def test_a_connection_that_ends_unanswered(router: Router, worker: Worker) -> None:
    begin(router)
    router.die()
    until(lambda: worker.link.generation == 2 and worker.link.unanswered)
    router.accept()
    router.die()
    # Whether it has been noticed or not.
    assert not worker.link.unanswered or worker.link.generation == 3
    assert worker.link.generation == 3 or not worker.link.say_now({"type": "x"})


def test_a_router_that_does_not_know_of_tasks(
    router: Router, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    router.accept()
    router.welcome()
    until(lambda: "the router runs an older release" in caplog.text)
    assert state(worker) is State.WAITING


def test_what_is_not_understood_ends_the_connection(router: Router, worker: Worker) -> None:
    router.accept()
    welcome(router)
    router.send({"type": "task-offer", "name": "ticker"})
    until(lambda: worker.link.generation == 2)


def test_a_router_that_reads_nothing_renews_nothing(router: Router, worker: Worker) -> None:
    begin(router)
    until(lambda: not worker.link.say_now({"type": "load", "x": "x" * 60_000}))
    assert not worker.link.say_now(run_once.holds("ticker", 7, 0))
