"""A function in its own thread."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any, Optional

import pytest

from supervisor_sio.common.limits import THREAD_CALLS
from supervisor_sio.worker import loop_thread
from supervisor_sio.worker.threads.runtime import ThreadsRuntime


def test_its_end_is_told_in_the_loop() -> None:
    runtime = ThreadsRuntime()
    ended: list[tuple[Any, Optional[BaseException]]] = []
    names: list[str] = []

    def function() -> None:
        names.append(threading.current_thread().name)

    def fail() -> None:
        raise SystemExit(3)

    async def test() -> None:
        def note(error: Optional[BaseException]) -> None:
            ended.append((threading.current_thread(), error))

        for call in (function, fail):
            watch = runtime.run_apart("ticker", call, lambda: True, note)
            watch.cancel()  # which it does not notice
            while not ended:
                await asyncio.sleep(0.001)
            (thread, error) = ended.pop()
            assert thread is threading.main_thread()
            assert isinstance(error, SystemExit) is (call is fail)

    runtime.run_until_complete(test())
    assert names == ["run-once-ticker"]


def test_it_does_not_begin_when_it_may_not() -> None:
    runtime = ThreadsRuntime()
    calls: list[None] = []
    ended: list[Optional[BaseException]] = []

    async def test() -> None:
        runtime.run_apart("ticker", lambda: calls.append(None), lambda: False, ended.append)
        while not ended:
            await asyncio.sleep(0.001)

    runtime.run_until_complete(test())
    (error,) = ended
    assert not calls and error is not None and not isinstance(error, Exception)


def test_its_end_is_told_though_the_loop_has_not_run_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop_thread, "THREAD_WAIT", 0.01)
    runtime = ThreadsRuntime()
    refused = threading.Event()
    ended: list[Optional[BaseException]] = []
    run = runtime.thread.run

    def run_noting(*args: Any) -> None:
        try:
            run(*args)
        except RuntimeError:
            refused.set()
            raise

    monkeypatch.setattr(runtime.thread, "run", run_noting)

    async def test() -> None:
        for _ in range(THREAD_CALLS):
            run(0, lambda: None)
        runtime.run_apart("ticker", lambda: None, lambda: True, ended.append)
        assert refused.wait(25)  # the loop does not run meanwhile
        deadline = time.monotonic() + 25
        while not ended and time.monotonic() < deadline:
            await asyncio.sleep(0.001)

    runtime.run_until_complete(test())
    assert ended == [None]
