"""When all threads are busy, that is logged once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from supervisor_sio.worker.threads.busy import Busy


class Runtime:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.calls = 0

    def call_later(self, seconds: float, call: Any) -> None:
        self.calls += 1

    def log(self, logger: Any, level: int, text: str, *args: Any) -> None:
        self.lines.append(text % args)


def test_it_is_said_once_and_when_it_is_over() -> None:
    runtime, pool, clock = Runtime(), SimpleNamespace(begun=0, waiting=0, size=4), [0.0]
    busy = Busy(runtime, pool, lambda: clock[0])  # type: ignore[arg-type]

    def look(begun: int, waiting: int) -> list[str]:
        pool.begun, pool.waiting = begun, waiting
        clock[0] += 1
        busy.look()
        lines, runtime.lines = runtime.lines, []
        return lines

    for _ in range(10):
        assert not look(4, 0)  # they may be busy while nobody waits
    for number in range(10):
        assert not look(4 + number, 30)  # or while there is progress
    told = [line for _ in range(20) for line in look(20, 31)]
    assert told == [
        "all 4 threads of the application have been busy for 5 seconds, and 31 events and requests "
        "wait for one: --threads sets their number"
    ]
    assert look(21, 30) == ["a thread of the application is free again"]
    assert not look(22, 0)
    assert runtime.calls == 42
