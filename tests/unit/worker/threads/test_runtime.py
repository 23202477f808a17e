"""The loop, with the thread pool."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from typing import Any, Iterator

import pytest

from supervisor_sio.common.limits import LOG_LINES
from supervisor_sio.worker.threads.runtime import ThreadsRuntime
from unit.pythons import NEW_PYTHON

pytestmark = NEW_PYTHON


@pytest.fixture
def runtime() -> Iterator[ThreadsRuntime]:
    interval = sys.getswitchinterval()
    runtime = ThreadsRuntime()
    yield runtime
    runtime.loop.close()
    sys.setswitchinterval(interval)


@pytest.mark.parametrize("before, after", [(0.005, 0.001), (0.02, 0.02)])
def test_threads_that_compute_let_the_loop_run(
    runtime: ThreadsRuntime, before: float, after: float
) -> None:
    sys.setswitchinterval(before)
    runtime.loop.run_until_complete(runtime.start_up(None))
    assert sys.getswitchinterval() == pytest.approx(after)


def test_tasks_run_in_threads_and_what_they_call_in_the_loop(runtime: ThreadsRuntime) -> None:
    ran: list[Any] = []

    async def wait() -> None:
        runtime.run(
            lambda: runtime.thread.run(
                0, lambda thread: ran.append((thread, runtime.thread.here)), threading.get_ident()
            )
        )
        while not ran:
            await asyncio.sleep(0.001)

    runtime.loop.run_until_complete(asyncio.wait_for(wait(), 10))
    ((thread, in_loop),) = ran
    assert thread != threading.get_ident() and in_loop


def test_a_log_that_waits_does_not_stop_the_loop(runtime: ThreadsRuntime) -> None:
    go_on = threading.Event()
    lines: list[str] = []

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            go_on.wait(20)
            lines.append(record.getMessage())

    logger = logging.getLogger("test.slow")
    logger.propagate = False
    logger.addHandler(Slow())
    for number in range(2 * LOG_LINES):
        runtime.log(logger, logging.WARNING, "%d", number)
    runtime.log(logger, logging.DEBUG, "nobody wants it")
    go_on.set()
    deadline = threading.Event()
    while runtime._logs.unfinished:
        assert not deadline.wait(0.01)
    # One of them was being written.
    assert lines in ([str(n) for n in range(LOG_LINES)], [str(n) for n in range(LOG_LINES + 1)])
