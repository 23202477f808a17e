"""asyncio's and uvloop's loops as a worker's runtime."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest

from supervisor_sio.worker.asyncio.runtime import AsyncioRuntime
from unit.worker.due import Item

from .rig import until


@pytest.fixture
def runtime(loop: asyncio.AbstractEventLoop) -> AsyncioRuntime:
    return AsyncioRuntime(loop)


def test_what_is_due_is_told_also_if_something_before_it_fails(
    runtime: AsyncioRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    items = [Item(), Item(fails=True), Item()]

    async def test() -> None:
        for item in items:
            runtime.deadlines.after(item, 0.05)
        await until(lambda: [item.due for item in items] == [1, 1, 1])

    runtime.run_until_complete(test())
    assert "a mistake" in caplog.text


def test_tasks_and_calls_come_in_their_order_and_end_nothing(
    runtime: AsyncioRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[object] = []

    async def wait() -> None:
        done.append("begun")
        await asyncio.sleep(0.01)
        done.append("ended")

    async def fail_later() -> None:
        await asyncio.sleep(0)
        raise ValueError("a mistake")

    def fail() -> None:
        raise ValueError("a mistake")

    async def test() -> None:
        runtime.call_soon(fail)
        runtime.call_soon(done.append, 2)
        runtime.soon(fail_later)
        runtime.soon(fail)
        runtime.call_soon(lambda: runtime.run(done.append, 3))
        runtime.soon(wait)
        runtime.call_later(0.001, fail)
        runtime.run(done.append, 1)
        runtime.run(fail)
        await until(lambda: "ended" in done)

    runtime.run_until_complete(test())
    assert done == [1, 2, 3, "begun", "ended"]
    assert [r.levelno for r in caplog.records] == [logging.ERROR] * 5
    assert not runtime._tasks


def test_a_task_is_kept_until_it_ends(runtime: AsyncioRuntime) -> None:
    import gc

    done: list[int] = []

    async def wait() -> None:
        await asyncio.get_running_loop().create_future()

    async def wait_here() -> None:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.05, lambda: future.done() or future.set_result(0))
        await future
        done.append(1)

    async def test() -> None:
        runtime.run(wait_here)
        task = runtime.spawn(wait())
        await asyncio.sleep(0)
        gc.collect()
        await until(lambda: done and len(runtime._tasks) == 1)
        task.cancel()
        task.cancel()
        await until(lambda: not runtime._tasks)

    runtime.run_until_complete(test())


@pytest.mark.tries(3)
def test_what_came_while_nothing_ran_comes_before_what_is_due(runtime: AsyncioRuntime) -> None:
    """For example a pong that arrived while a handler computed, or the process was stopped."""
    item, other = Item(), Item()
    pair = socket.socketpair()
    watches: list[Any] = []

    def calculate() -> None:
        pair[0].recv(1)
        pair[0].send(b"pong")
        watches[0].cancel()
        watches.append(runtime.add_reader(pair[1].fileno(), read))
        time.sleep(1.3)

    def read() -> None:
        watches[1].cancel()
        runtime.deadlines.remove(item)

    async def test() -> None:
        watches.append(runtime.add_reader(pair[0].fileno(), calculate))
        for one in (item, other):
            runtime.deadlines.after(one, 1)
        pair[1].send(b"x")
        await until(lambda: other.due)

    runtime.run_until_complete(test())
    for sock in pair:
        sock.close()
    assert not item.due


def test_descriptors(runtime: AsyncioRuntime) -> None:
    ours, theirs = socket.socketpair()
    seen: list[str] = []

    async def test() -> None:
        reading = runtime.add_reader(ours.fileno(), lambda: seen.append(str(ours.recv(9))))
        writing = runtime.add_writer(ours.fileno(), lambda: seen.append("w"))
        await until(lambda: seen)
        writing.cancel()
        seen.clear()
        theirs.send(b"x")
        await until(lambda: seen == ["b'x'"])
        for watch in (reading, writing, reading):
            watch.cancel()
        theirs.send(b"x")
        await asyncio.sleep(0.01)
        assert seen == ["b'x'"]

    runtime.run_until_complete(test())
    for sock in (ours, theirs):
        sock.close()


def test_a_reset_that_comes_with_data(runtime: AsyncioRuntime) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        sock, _ = server.accept()
    sock.setblocking(False)
    read: list[object] = []

    def readable() -> None:
        try:
            read.append(sock.recv(100))
        except OSError as error:
            read.append(type(error))
            watch.cancel()

    async def test() -> None:
        await until(lambda: len(read) == 2, 5)

    watch = runtime.add_reader(sock.fileno(), readable)
    client.sendall(b"last words")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    with sock:
        runtime.run_until_complete(test())
    assert read == [b"last words", ConnectionResetError]


def test_a_reader_that_was_called_and_cancelled_is_not_started_anew(
    runtime: AsyncioRuntime,
) -> None:
    first, second = socket.socketpair()
    called: list[str] = []

    def readable() -> None:
        called.append("first")
        watch.cancel()

    async def test() -> None:
        await until(lambda: bool(called))
        await asyncio.sleep(1.2)  # longer than readers of uvloop wait to be started anew

    with first, second:
        watch = runtime.add_reader(first.fileno(), readable)
        second.send(b"x")
        runtime.run_until_complete(test())
    assert called == ["first"]


def test_callbacks_have_no_context_of_a_task(runtime: AsyncioRuntime) -> None:
    """Otherwise one request's context variables would be kept, and seen by others."""
    user: ContextVar[str] = ContextVar("user")
    seen: list[Any] = []
    ours, theirs = socket.socketpair()

    def note() -> None:
        seen.append(user.get(None))

    async def test() -> None:
        user.set("somebody")
        theirs.send(b"x")
        watch = runtime.add_reader(ours.fileno(), note)
        runtime.call_soon(note)
        runtime.call_soon(runtime.call_soon, note)
        runtime.call_later(0.001, note)
        await until(lambda: len(seen) >= 4)
        watch.cancel()
        runtime.call_later(0.001, note).cancel()

    runtime.run_until_complete(test())
    for sock in (ours, theirs):
        sock.close()
    assert set(seen) == {None}


def test_an_event(runtime: AsyncioRuntime) -> None:
    async def test() -> None:
        event = runtime.event()
        assert await event.wait(0.01) is False and not event.is_set()
        runtime.call_later(0.01, event.set)
        assert await event.wait() is True
        event.set()
        assert await event.wait(0) is True
        await runtime.sleep(0)

    runtime.run_until_complete(test())


def test_signals(runtime: AsyncioRuntime) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    seen: list[int] = []

    async def test() -> None:
        runtime.on_signal([signal.SIGUSR1, signal.SIGUSR2], seen.append)
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR2)
        await until(lambda: len(seen) == 2)
        for number in seen:
            runtime.loop.remove_signal_handler(number)

    runtime.run_until_complete(test())
    signal.signal(signal.SIGUSR1, before)
    assert sorted(seen) == [signal.SIGUSR1, signal.SIGUSR2]


def test_what_runs_at_the_end_is_cancelled(runtime: AsyncioRuntime) -> None:
    ended: list[int] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(1)

    async def test() -> int:
        runtime.run(wait)
        await asyncio.sleep(0)
        return 7

    assert runtime.run_until_complete(test()) == 7
    assert ended == [1]


def test_a_generator_that_does_not_end_is_not_waited_for(
    runtime: AsyncioRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor_sio.worker.asyncio.runtime._LAST_TASKS", 0.05)
    steps: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            steps.append("ending")
            await asyncio.sleep(5)
            steps.append("ended")

    kept = numbers()

    async def work() -> None:
        await kept.__anext__()

    runtime.run_until_complete(work())
    assert steps == ["ending"]
