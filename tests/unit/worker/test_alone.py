from __future__ import annotations

import errno
import logging
from types import SimpleNamespace
from typing import Any, Callable

import pytest

from supervisor_sio.worker.alone import Alone


class Calls:
    """A runtime whose loop is the test."""

    def __init__(self) -> None:
        self.readers: list[Callable[[], None]] = []
        self.later: list[Callable[[], None]] = []

    def add_reader(self, descriptor: int, call: Callable[[], None]) -> Any:
        self.readers.append(call)
        return SimpleNamespace(cancel=lambda: self.readers.remove(call))

    def call_later(self, seconds: float, call: Callable[[], None]) -> None:
        self.later.append(call)

    def log(self, logger: logging.Logger, level: int, message: str, *args: object) -> None:
        logger.log(level, message, *args)


def test_without_a_descriptor_for_a_connection_it_looks_again_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def accept() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    alone: Any = Alone.__new__(Alone)
    alone.runtime = runtime = Calls()
    alone.stopped = SimpleNamespace(is_set=lambda: False)
    alone._listener = SimpleNamespace(accept=accept, fileno=lambda: 7)
    alone._listen()
    runtime.readers[0]()
    assert (runtime.readers, caplog.messages) == ([], ["cannot accept: Too many open files"])
    runtime.later.pop()()
    assert len(runtime.readers) == 1
    alone._stop_listening()
    alone._stop_listening()
    alone.stopped = SimpleNamespace(is_set=lambda: True)
    alone._listen()
    assert not runtime.readers
