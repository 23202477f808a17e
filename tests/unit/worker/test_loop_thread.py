"""Calls from other threads; tests/ledger/test_threads.py has those of applications."""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Iterator
from typing import Any, Callable

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import eventlet
    from eventlet import patcher

from supervisor_sio.common.limits import THREAD_CALLS, THREAD_CALLS_BYTES
from supervisor_sio.worker import loop_thread
from supervisor_sio.worker.eventlet.runtime import HubRuntime
from supervisor_sio.worker.loop_thread import LoopThread
from unit.in_the_middle import Other

threading: Any = patcher.original("threading")


def in_thread(call: Callable[[], Any]) -> Any:
    """Run a call in a thread; its outcome is in ``.outcome`` when it has ended."""

    def run() -> None:
        try:
            thread.outcome = call()
        except Exception as error:
            thread.outcome = error

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_here_is_where_it_was_made() -> None:
    thread_of_loop = LoopThread(HubRuntime())
    assert thread_of_loop.here
    thread = in_thread(lambda: thread_of_loop.here)
    thread.join()
    assert thread.outcome is False


def test_calls_run_in_the_thread_of_the_loop_and_in_order() -> None:
    thread_of_loop = LoopThread(HubRuntime())
    ran: list[Any] = []
    for start in (0, 1000):
        in_thread(
            lambda start=start: [
                thread_of_loop.run(
                    0, lambda n: ran.append((n, thread_of_loop.here)), start + number
                )
                for number in range(500)
            ]
        )
    with eventlet.Timeout(20):
        while len(ran) < 1000:
            eventlet.sleep(0.001)
    for start in (0, 1000):
        mine = [item for item in ran if start <= item[0] < start + 500]
        assert mine == [(start + number, True) for number in range(500)]
    assert thread_of_loop._bytes == 0


def test_a_call_that_fails_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    thread_of_loop = LoopThread(HubRuntime())
    ran: list[int] = []
    in_thread(
        lambda: [thread_of_loop.run(0, call) for call in (lambda: 1 // 0, lambda: ran.append(1))]
    )
    with eventlet.Timeout(20):
        while not ran:
            eventlet.sleep(0.001)
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("size", [0, THREAD_CALLS_BYTES // 10])
def test_a_thread_waits_while_too_much_waits_and_goes_on(size: int) -> None:
    thread_of_loop = LoopThread(HubRuntime())
    count = 0

    def add() -> None:
        nonlocal count
        count += 1

    thread = in_thread(lambda: [thread_of_loop.run(size, add) for _ in range(2 * THREAD_CALLS)])
    most = 11 if size else THREAD_CALLS
    deadline = time.monotonic() + 20
    while len(thread_of_loop._calls) < most and time.monotonic() < deadline:
        time.sleep(0.01)  # this thread's hub does not run
    thread.join(0.2)
    assert thread.is_alive()
    assert len(thread_of_loop._calls) == most
    with eventlet.Timeout(30):
        while thread.is_alive() or count < 2 * THREAD_CALLS:
            eventlet.sleep(0.001)


def test_a_thread_that_the_loop_waits_for_gets_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_thread, "THREAD_WAIT", 0.1)
    thread_of_loop = LoopThread(HubRuntime())
    thread = in_thread(lambda: [thread_of_loop.run(0, int) for _ in range(THREAD_CALLS + 1)])
    thread.join(20)
    assert str(thread.outcome) == (
        "the worker's loop has not run for 0.1 seconds: does it wait for this thread?"
    )
    with eventlet.Timeout(20):  # the next test has the same hub
        while thread_of_loop._calls:
            eventlet.sleep(0.001)


def test_many_calls_cost_one_wake_up() -> None:
    thread_of_loop = LoopThread(HubRuntime())
    writes: list[bytes] = []
    os_of_loop = thread_of_loop._os

    class CountingOs:
        read = os_of_loop.read

        @staticmethod
        def write(descriptor: int, data: bytes) -> None:
            writes.append(data)
            os_of_loop.write(descriptor, data)

    thread_of_loop._os = CountingOs
    ran: list[int] = []

    def call(number: int) -> None:
        ran.append(number)
        if number < 10:  # what comes while others are called
            in_thread(lambda: thread_of_loop.run(0, ran.append, 1000 + number)).join()

    in_thread(lambda: [thread_of_loop.run(0, call, n) for n in range(200)]).join()
    with eventlet.Timeout(20):
        while len(ran) < 210:
            eventlet.sleep(0.001)
    assert ran == [*range(200), *range(1000, 1010)]
    assert len(writes) == 1
    assert thread_of_loop._bytes == 0 and not thread_of_loop._calls


class Turns:
    """A runtime whose loop makes a turn when the test says so."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def run(self, call: Callable[..., None], *args: Any) -> None:
        call(*args)

    def call_soon(self, call: Callable[[], None]) -> None:
        self.due.append(call)

    def add_reader(self, *_: object) -> None: ...

    def descriptor_opened(self, *_: object) -> None: ...


class Calls(deque[Any]):
    """The calls of a :class:`LoopThread`, which another thread uses at the same time."""

    def __init__(self) -> None:
        super().__init__()
        #: Called before a call is added.
        self.adding: Callable[[], None] = lambda: None
        #: Called while the calls are read.
        self.reading: Callable[[], None] = lambda: None

    def append(self, call: Any) -> None:
        self.adding()
        super().append(call)

    def __iter__(self) -> Iterator[Any]:
        for call in super().__iter__():
            yield call
            self.reading()


@pytest.fixture
def turns() -> Turns:
    return Turns()


@pytest.fixture
def thread_of_loop(turns: Turns) -> Iterator[Any]:
    made: Any = LoopThread(turns)  # type: ignore[arg-type]
    made._calls = Calls()
    yield made
    for descriptor in (made._reader, made._writer):
        made._os.close(descriptor)


def test_a_call_that_is_added_while_others_are_read(thread_of_loop: Any) -> None:
    ran: list[int] = []
    thread_of_loop.run(0, ran.append, 1)
    other = Other(thread_of_loop, thread_of_loop.run, 0, ran.append, 2)
    thread_of_loop._calls.reading = other.call
    thread_of_loop._run_some()
    other.result()
    assert ran == [1]
    thread_of_loop._run_some()
    assert ran == [1, 2]


def test_a_call_that_is_added_when_the_last_one_has_run_is_not_forgotten(
    turns: Turns, thread_of_loop: Any
) -> None:
    """Either thread sees to the next turn: who adds it, or who has run the others."""
    running, adding = threading.Event(), threading.Event()
    thread_of_loop.run(0, lambda: (running.set(), adding.wait(30)))
    loop = Other(thread_of_loop, thread_of_loop._run_some)
    loop.begin()
    running.wait(30)

    def add() -> None:
        adding.set()
        loop.settle()

    thread_of_loop._calls.adding = add
    ran: list[int] = []
    thread_of_loop.run(0, ran.append, 1)
    loop.result()
    for call in turns.due:
        call()
    assert ran == [1]
