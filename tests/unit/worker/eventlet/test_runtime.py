"""The hub as a worker's runtime."""

from __future__ import annotations

import logging
import socket
import warnings
from collections.abc import Iterator

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import eventlet
    from eventlet import hubs, patcher

from supervisor_sio.worker.eventlet.runtime import HubRuntime
from unit.worker.due import Item
from unit.worker.turns import let_run


@pytest.fixture
def runtime() -> Iterator[HubRuntime]:
    yield HubRuntime()


def until(condition: object, seconds: float = 20) -> None:
    with eventlet.Timeout(seconds):
        while not condition():  # type: ignore[operator]
            eventlet.sleep(0.005)


def test_what_is_due_is_told_also_if_something_before_it_fails(
    runtime: HubRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    items = [Item(), Item(fails=True), Item()]
    for item in items:
        runtime.deadlines.after(item, 0.05)
    until(lambda: [item.due for item in items] == [1, 1, 1])
    assert "a mistake" in caplog.text


def test_it_does_not_tick_while_nothing_is_due(runtime: HubRuntime) -> None:
    item = Item()
    runtime.deadlines.after(item, 0.05)
    until(lambda: item.due)
    until(lambda: runtime._timer is None)
    runtime.deadlines.after(item, 0.01)
    until(lambda: item.due == 2)


def test_tasks_and_calls_come_in_their_order_and_end_nothing(
    runtime: HubRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[object] = []

    def wait() -> None:
        done.append("begun")
        eventlet.sleep(0.01)
        done.append("ended")

    def fail() -> None:
        raise ValueError("a mistake")

    runtime.soon(wait)
    runtime.call_soon(fail)
    runtime.call_soon(done.append, 2)
    runtime.soon(fail)
    runtime.call_soon(lambda: runtime.run(done.append, 3))
    runtime.run(done.append, 1)  # at once, also outside of the hub
    runtime.run(fail)
    until(lambda: "ended" in done)
    assert done == [1, "begun", 2, 3, "ended"]
    assert [r.levelno for r in caplog.records] == [logging.ERROR] * 3


def test_the_date_is_that_of_http(runtime: HubRuntime) -> None:
    assert runtime.date().endswith(" GMT") and len(runtime.date()) == 29
    assert runtime.date() is runtime.date()


def test_a_hub_that_is_chosen_before_it_serves_is_the_one() -> None:
    done: list[int] = []

    def in_its_thread() -> None:
        runtime = HubRuntime()
        old = runtime.hub
        hubs.use_hub("poll")
        runtime.begin()
        assert runtime.hub is hubs.get_hub() is not old
        runtime.call_soon(done.append, 1)
        until(lambda: done)
        done.append(2)

    thread = patcher.original("threading").Thread(target=in_its_thread)
    thread.start()
    thread.join(30)
    assert done == [1, 2]


@pytest.mark.tries(3)
def test_what_came_while_nothing_ran_comes_before_what_is_due(runtime: HubRuntime) -> None:
    """For example a pong that arrived while a handler computed, or the process was stopped."""
    item, other = Item(), Item()
    pair = socket.socketpair()

    def calculate(descriptor: int) -> None:
        pair[0].recv(1)
        pair[0].send(b"pong")
        runtime.hub.remove(listeners[0])
        listeners.append(runtime.hub.add(runtime.hub.READ, pair[1].fileno(), read, print, None))
        patcher.original("time").sleep(1.3)

    def read(descriptor: int) -> None:
        runtime.hub.remove(listeners[1])
        runtime.deadlines.remove(item)

    listeners = [runtime.hub.add(runtime.hub.READ, pair[0].fileno(), calculate, print, None)]
    for one in (item, other):
        runtime.deadlines.after(one, 1)
    pair[1].send(b"x")
    until(lambda: other.due)
    for sock in pair:
        sock.close()
    assert not item.due


class Owner:
    def __init__(self) -> None:
        self.lost = 0

    def descriptor_lost(self) -> None:
        self.lost += 1


def test_a_descriptor_is_watched_until_that_is_cancelled(runtime: HubRuntime) -> None:
    pair = socket.socketpair()
    calls: list[str] = []
    reading = runtime.add_reader(pair[0].fileno(), lambda *_: calls.append("read"))
    writing = runtime.add_writer(pair[0].fileno(), lambda *_: calls.append("write"))
    until(lambda: "write" in calls)
    writing.cancel()
    writing.cancel()
    let_run(0.01)
    assert calls.count("read") == 0
    count = len(calls)
    pair[1].send(b"x")
    until(lambda: calls.count("read") >= 2)  # it was not read
    reading.cancel()
    assert calls.count("write") == count
    count = len(calls)
    let_run(0.02)
    assert len(calls) == count
    for sock in pair:
        sock.close()


def test_the_owner_of_a_descriptor_is_told_that_it_is_another_file_now(runtime: HubRuntime) -> None:
    pair, owner = socket.socketpair(), Owner()
    watches = [
        runtime.add_reader(pair[0].fileno(), print, owner),
        runtime.add_writer(pair[0].fileno(), lambda *_: None, owner),
    ]
    runtime.descriptor_opened(pair[0].fileno())
    until(lambda: owner.lost == 2)
    for watch in watches:
        watch.cancel()
    for sock in pair:
        sock.close()


def test_a_call_comes_later_unless_it_is_cancelled(runtime: HubRuntime) -> None:
    calls: list[int] = []
    runtime.call_later(0.02, calls.append, 2)
    runtime.call_later(0.01, calls.append, 1)
    cancelled = runtime.call_later(0.005, calls.append, 3)
    cancelled.cancel()
    until(lambda: len(calls) == 2)
    cancelled.cancel()
    assert calls == [1, 2]


def test_coroutines_wait_in_greenlets_of_their_own(
    runtime: HubRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    event, done = runtime.event(), []

    async def wait(name: str) -> None:
        assert await event.wait()
        done.append(name)

    async def fail() -> None:
        raise ValueError("a mistake")

    async def live() -> str:
        waiting = [runtime.spawn(wait(name)) for name in "ab"]
        runtime.spawn(fail())
        assert not await event.wait(0.01)
        waiting[0].cancel()
        runtime.call_soon(event.set)
        await runtime.sleep(0.01)
        event.set()
        assert event.is_set() and await event.wait(0)
        return "lived"

    assert runtime.run_until_complete(live()) == "lived"
    assert done == ["b"]
    assert "a mistake" in caplog.text


def test_a_log_that_waits_is_not_waited_for_in_the_hub(runtime: HubRuntime) -> None:
    logged: list[str] = []

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            eventlet.sleep(0.01)
            logged.append(record.getMessage())

    logger = logging.Logger("slow")
    logger.addHandler(Slow())
    runtime.call_soon(runtime.log, logger, logging.INFO, "in %s", "the hub")
    runtime.log(logger, logging.INFO, "in a greenlet")
    until(lambda: sorted(logged) == ["in a greenlet", "in the hub"])
