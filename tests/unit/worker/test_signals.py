from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from supervisor_sio.common.blocking import run_blocking
from supervisor_sio.worker.signals import Signals


class Loop:
    """A runtime whose tasks run when the test lets them."""

    def __init__(self) -> None:
        self.watched: list[int] = []
        self.take: Callable[[int], None] = lambda number: None
        self.tasks: list[Any] = []

    def on_signal(self, numbers: list[int], call: Callable[[int], None]) -> None:
        self.watched, self.take = list(numbers), call
        for number in numbers:
            signal.signal(number, lambda *_: None)

    def spawn(self, coroutine: Any) -> None:
        self.tasks.append(coroutine)

    async def sleep(self, seconds: float) -> None:
        run_blocking(self.tasks.pop(0))


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    watched = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_DFL) for number in watched]
    yield
    for number, handler in zip(watched, before):
        signal.signal(number, handler)


def test_the_first_signal_is_the_reason() -> None:
    loop: Any = Loop()
    stops: list[int] = []
    signals = Signals(loop, lambda: stops.append(1))
    assert loop.watched == [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    loop.take(signal.SIGINT)
    loop.take(signal.SIGTERM)
    assert (signals.first, len(stops), loop.tasks) == (signal.SIGINT, 2, [])
    run_blocking(signals.wait())


def test_the_handlers_of_the_application_are_called_in_tasks_and_awaited(
    caplog: pytest.LogCaptureFixture,
) -> None:
    called: list[tuple[Any, Any]] = []

    def end(number: Any, frame: Any) -> None:
        called.append((number, frame))
        raise SystemExit(3)

    def fail(number: Any, frame: Any) -> None:
        raise ValueError("a mistake")

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, fail)
    loop: Any = Loop()
    signals = Signals(loop, lambda: None)
    loop.take(signal.SIGTERM)
    loop.take(signal.SIGINT)
    assert not called
    run_blocking(signals.wait())
    assert called == [(signal.SIGTERM, None)]
    assert "the application's handler of SIGINT" in caplog.text and "a mistake" in caplog.text


def test_a_hangup_that_somebody_handles_is_not_watched() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    loop: Any = Loop()
    Signals(loop, lambda: None)
    assert loop.watched == [signal.SIGTERM, signal.SIGINT]


def test_in_a_forked_child_the_handlers_are_what_they_were() -> None:
    signal.signal(signal.SIGTERM, print)
    loop: Any = Loop()
    signals = Signals(loop, lambda: None)
    assert signal.getsignal(signal.SIGTERM) is not print
    signals.release()
    assert signal.getsignal(signal.SIGTERM) is print
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
