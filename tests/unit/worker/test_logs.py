"""What an application's mistakes in its logging must not do to a worker."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator

import pytest

from supervisor_sio.worker import base_runtime, logs
from supervisor_sio.worker.asyncio.runtime import AsyncioRuntime
from supervisor_sio.worker.threads import pool

from .due import Item


class _OfRequest(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        raise LookupError("no current request")


@pytest.fixture(params=["logger", "handler"])
def logger(request: pytest.FixtureRequest) -> Iterator[logging.Logger]:
    """One of ours, with a filter that raises, or with a handler that has such a filter."""
    logger, handler = logging.getLogger("unit.logs"), logging.StreamHandler()
    wrong: logging.Filterer = logger if request.param == "logger" else handler
    filter = _OfRequest()
    logger.addHandler(handler)
    wrong.addFilter(filter)
    logs.adopt(logger)
    yield logger
    logger.removeFilter(filter)
    logger.removeHandler(handler)


def fail() -> None:
    raise ValueError("a mistake")


def test_why_a_line_is_not_logged(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    logger.warning("%d of them", 3)
    err = capsys.readouterr().err
    assert "LookupError: no current request" in err and "%d of them" in err


def test_all_deadlines_are_told(logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_runtime, "logger", logger)
    items = [Item(fails=True), Item(), Item()]

    async def wait() -> None:
        runtime = AsyncioRuntime(asyncio.get_running_loop())
        for item, seconds in zip(items, (0.05, 0.05, 0.3)):
            runtime.deadlines.after(item, seconds)
        while not all(item.due for item in items):
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(wait(), 10))


def test_the_threads_go_on(logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "logger", logger)
    done, threads = threading.Event(), pool.Pool(1)
    threads.run(fail)
    threads.run(done.set)
    assert done.wait(10)
