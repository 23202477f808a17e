"""The arguments of ``manager.run_once()``, and what functions get."""

from __future__ import annotations

import asyncio
import functools
import math
import threading
import time
from typing import Any

import pytest
import socketio

from supervisor_sio import AsyncLease, AsyncZmqManager, Lease, ZmqManager
from supervisor_sio.cluster import sessions
from supervisor_sio.cluster.run_once import Task
from supervisor_sio.common.limits import RUN_ONCE_TASKS


def with_lease(lease: Lease) -> None: ...


def without() -> None: ...


async def coroutine(lease: AsyncLease) -> None: ...


def tasks_of(manager: Any) -> dict[str, Task]:
    tasks: dict[str, Task] = {}
    manager.run_tasks_by(lambda task: tasks.update({task.name: task}))
    return tasks


def test_a_function_or_a_decorator() -> None:
    manager = ZmqManager()
    assert manager.run_once("one", with_lease) is with_lease

    @manager.run_once("two")
    def two() -> str:
        return "two"

    assert two() == "two"
    tasks = tasks_of(manager)
    assert [(task.function, task.takes_lease) for task in tasks.values()] == [
        (with_lease, True),
        (two, False),
    ]
    manager.run_once("three", without)  # later as well
    assert list(tasks) == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("function", "takes"),
    [
        (lambda lease: None, True),
        (lambda *args: None, True),
        (lambda lease=None: None, True),
        (lambda *, other=1: None, False),
        (functools.partial(with_lease, None), False),
        (functools.partial(lambda first, lease: None, "x"), True),
    ],
)
def test_what_takes_a_lease(function: Any, takes: bool) -> None:
    manager = ZmqManager()
    manager.run_once("x", function)
    assert tasks_of(manager)["x"].takes_lease is takes


@pytest.mark.parametrize("name", ["", "with space", "ü", "x" * 65, None, 7, "a/b", "a\n"])
def test_what_is_not_a_name(name: Any) -> None:
    with pytest.raises(ValueError, match="a name has 1 to 64 letters, digits and ") as error:
        ZmqManager().run_once(name, without)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("manager", "function", "text"),
    [
        (ZmqManager, 7, "7 is not a function"),
        (ZmqManager, coroutine, "takes a plain function, not .*test_run_once.coroutine"),
        (AsyncZmqManager, without, "takes a coroutine function .async def., not .*without"),
        (ZmqManager, lambda one, two: None, "is called with a lease, or without an argument"),
    ],
)
def test_what_is_not_such_a_function(manager: Any, function: Any, text: str) -> None:
    with pytest.raises(TypeError, match=rf"run_once\('x'\): .*{text}"):
        manager().run_once("x", function)


def test_one_name_and_two_functions() -> None:
    manager = ZmqManager()
    manager.run_once("ticker", without)
    manager.run_once("ticker", without)
    here = without.__module__
    with pytest.raises(ValueError) as error:
        manager.run_once("ticker", with_lease)
    assert str(error.value) == (
        f"run_once('ticker') has a function already, {here}.without: give {here}.with_lease "
        "another name"
    )


def test_a_method_is_the_same_each_time() -> None:
    class Jobs:
        def tick(self) -> None: ...

    manager, jobs = ZmqManager(), Jobs()
    manager.run_once("x", jobs.tick)
    manager.run_once("x", jobs.tick)
    with pytest.raises(ValueError):
        manager.run_once("x", Jobs().tick)


def test_a_write_only_manager_runs_nothing(tmp_path: Any) -> None:
    manager = ZmqManager(f"zmq+ipc://{tmp_path}", write_only=True)
    with pytest.raises(ValueError, match="such a manager runs nothing"):
        manager.run_once("x", without)


def test_there_is_a_most() -> None:
    manager = ZmqManager()
    for number in range(RUN_ONCE_TASKS):
        manager.run_once(f"x{number}", without)
    manager.run_once("x0", without)
    with pytest.raises(ValueError, match="the limit"):
        manager.run_once("one-more", without)


# --- the lease ------------------------------------------------------------------------------


def test_a_wait_ends_with_the_lease() -> None:
    event = threading.Event()
    lease = Lease("x", 7, math.inf, event)
    assert lease.wait(0.001) and lease.held
    threading.Timer(0.01, lease.end).start()
    began = time.monotonic()
    assert not lease.wait(60) and time.monotonic() - began < 50
    assert not lease.held and lease.in_time()
    lease.lose()
    assert not lease.in_time() and not lease.wait(60)


def test_a_lease_is_over_though_nobody_says_so() -> None:
    lease = Lease("x", 7, time.monotonic() - 1, threading.Event())
    assert not lease.held and not lease.wait(60)
    lease.renew(time.monotonic() + 60)
    assert lease.held


def test_the_wait_of_a_coroutine() -> None:
    async def test() -> None:
        lease = AsyncLease("x", 7, math.inf, asyncio.Event())
        assert await lease.wait(0.001)
        asyncio.get_running_loop().call_later(0.01, lease.end)
        assert not await lease.wait(60)
        assert not await lease.wait(60)

    asyncio.run(test())


# --- without a worker of ours, and without supervisord ------------------------------------


def test_another_server_runs_them_when_there_are_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_install", None)
    manager = ZmqManager()
    socketio.Server(async_mode="threading", client_manager=manager)
    got: list[Any] = []
    manager.run_once("x", got.append)
    assert not got
    manager.initialize()
    manager.run_once("later", got.append)
    deadline = time.monotonic() + 30
    while len(got) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert sorted(lease.name for lease in got) == ["later", "x"]
    assert all(lease.held and lease.number > 1e12 for lease in got)


def test_another_server_on_asyncio_does_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_install", None)
    got: list[Any] = []

    async def test() -> None:
        manager = AsyncZmqManager()
        socketio.AsyncServer(async_mode="asgi", client_manager=manager)
        done = asyncio.Event()

        @manager.run_once("x")
        async def run(lease: AsyncLease) -> None:
            got.append(lease)
            assert await lease.wait(0.001)
            done.set()

        manager.initialize()
        await asyncio.wait_for(done.wait(), 30)

    asyncio.run(test())
    assert len(got) == 1


def test_a_worker_of_ours_runs_them_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_install", lambda *args: None)
    manager = ZmqManager()
    manager.run_once("x", lambda: pytest.fail("it runs"))
    manager.initialize()
    assert list(tasks_of(manager)) == ["x"]
