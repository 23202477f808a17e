"""A greenlet that is ended when its condition does not hold any more."""

from __future__ import annotations

import socket
import warnings
from typing import Any, Callable, Optional

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import eventlet
    from eventlet import event, greenio, hubs, semaphore
    from eventlet.green import threading

from greenlet import GreenletExit

from supervisor_sio.worker.eventlet.runtime import HubRuntime


class Run:
    def __init__(self, function: Callable[[Run], Any]) -> None:
        self.may_run = True
        self.steps = 0
        self.cleaned = False
        self.ended: list[Optional[BaseException]] = []
        self.watch = HubRuntime().run_apart(
            "test", lambda: function(self), lambda: self.may_run, self.ended.append
        )

    def wait(self) -> Any:
        with eventlet.Timeout(20):
            while not self.ended:
                eventlet.sleep(0.001)
        (error,) = self.ended
        return error


def steps(run: Run) -> None:
    try:
        while True:
            run.steps += 1
            eventlet.sleep(0.001)
    finally:
        eventlet.sleep(0)  # what waits in its end is not ended
        run.cleaned = True


def test_what_it_returns_and_raises() -> None:
    assert Run(lambda run: None).wait() is None
    assert isinstance(Run(lambda run: 1 / 0).wait(), ZeroDivisionError)
    assert isinstance(Run(lambda run: eventlet.Timeout(0.001) and eventlet.sleep(1)).wait(),
                      eventlet.Timeout)  # fmt: skip


def test_it_begins_in_another_turn_and_says_its_end_in_the_hub() -> None:
    run = Run(lambda run: None)
    run.ended = ended = []
    assert not ended
    where: list[Any] = []
    HubRuntime().run_apart(
        "test", lambda: None, lambda: True, lambda error: where.append(eventlet.getcurrent())
    )
    with eventlet.Timeout(20):
        while not where:
            eventlet.sleep(0.001)
    assert where == [hubs.get_hub().greenlet]


def test_it_is_cancelled() -> None:
    run = Run(steps)
    eventlet.sleep(0.01)
    run.watch.cancel()
    run.watch.cancel()
    assert isinstance(run.wait(), GreenletExit) and run.cleaned


def test_it_is_cancelled_before_it_has_begun() -> None:
    run = Run(steps)
    run.watch.cancel()
    assert isinstance(run.wait(), GreenletExit) and run.steps == 0


def test_it_does_not_begin_when_it_may_not() -> None:
    run = Run(steps)
    run.may_run = False
    assert isinstance(run.wait(), GreenletExit) and run.steps == 0
    run.watch.cancel()
    eventlet.sleep(0.001)
    assert len(run.ended) == 1


def test_it_is_cancelled_when_it_has_ended() -> None:
    run = Run(lambda run: None)
    run.wait()
    run.watch.cancel()
    eventlet.sleep(0.001)
    assert run.ended == [None]


def _sleep(run: Run) -> None:
    eventlet.sleep(0.01)


def _event(run: Run) -> None:
    one = event.Event()
    eventlet.spawn_after(0.01, one.send)
    one.wait()


def _semaphore(run: Run) -> None:
    one = semaphore.Semaphore(0)
    eventlet.spawn_after(0.01, one.release)
    one.acquire()


def _thread_event(run: Run) -> None:
    one = threading.Event()
    eventlet.spawn_after(0.01, one.set)
    one.wait(5)


def _socket(run: Run) -> None:
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    eventlet.spawn_after(0.01, writer.send, b"x")
    greenio.GreenSocket(reader).recv(1)


def _timeout(run: Run) -> None:
    with eventlet.Timeout(0.01, False):
        event.Event().wait()


def _thread_timeout(run: Run) -> None:
    threading.Event().wait(0.01)


def _greenthread(run: Run) -> None:
    eventlet.spawn_after(0.01, lambda: None).wait()


@pytest.mark.parametrize(
    "wait",
    [_sleep, _event, _semaphore, _thread_event, _socket, _timeout, _thread_timeout, _greenthread],
)
def test_whatever_it_waits_for_it_does_not_go_on_when_it_may_not(
    wait: Callable[[Run], None],
) -> None:
    def function(run: Run) -> None:
        run.steps += 1
        wait(run)
        run.steps += 1

    run = Run(function)
    while not run.steps:
        eventlet.sleep(0)
    run.may_run = False
    assert isinstance(run.wait(), GreenletExit) and run.steps == 1


def test_its_clean_up_may_wait_when_it_may_not_run() -> None:
    run = Run(steps)
    eventlet.sleep(0.01)
    run.may_run = False
    before = run.steps
    assert isinstance(run.wait(), GreenletExit)
    assert run.cleaned and run.steps == before
