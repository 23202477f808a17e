"""The thread pool that runs the application."""

from __future__ import annotations

import contextvars
import gc
import logging
import subprocess
import sys
import threading
import time
import weakref
from typing import Any, Callable

import pytest

from supervisor_sio.worker.threads.pool import Pool, default_threads
from unit.in_the_middle import Other


def wait_for(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.002)


def test_tasks_begin_in_the_order_in_which_they_came() -> None:
    pool = Pool(1)
    begun: list[int] = []
    for number in range(1000):
        pool.run(begun.append, number)
    wait_for(lambda: not pool.unfinished)
    assert begun == list(range(1000))


def test_no_more_threads_than_its_size_and_none_before_it_is_needed() -> None:
    before = threading.active_count()
    pool = Pool(3)
    go = threading.Event()
    threads: set[Any] = set()

    def task() -> None:
        threads.add(threading.current_thread())
        go.wait(30)

    assert threading.active_count() == before
    for _ in range(10):
        pool.run(task)
    wait_for(lambda: len(threads) == 3)
    assert (pool.waiting, pool.unfinished) == (7, 10)
    go.set()
    wait_for(lambda: not pool.unfinished)
    assert len(threads) == 3
    assert all(thread.daemon for thread in threads)


def test_one_task_after_the_other_needs_one_thread() -> None:
    pool = Pool(8)
    threads: set[Any] = set()
    for _ in range(20):
        pool.run(lambda: threads.add(threading.current_thread()))
        wait_for(lambda: not pool.unfinished)
    assert len(threads) == 1


def test_it_works_when_all_threads_but_one_are_stuck() -> None:
    pool = Pool(4)
    stuck = threading.Event()
    for _ in range(3):
        pool.run(stuck.wait, 30)
    done: list[int] = []
    for number in range(100):
        pool.run(done.append, number)
    wait_for(lambda: len(done) == 100)
    assert pool.unfinished == 3
    stuck.set()


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(3), KeyboardInterrupt()])
def test_what_a_task_raises_is_logged_and_the_thread_goes_on(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    pool = Pool(1)

    def fail() -> None:
        raise error

    with caplog.at_level(logging.ERROR):
        pool.run(fail)
        done = threading.Event()
        pool.run(done.set)
        assert done.wait(30)
    (record,) = caplog.records
    assert record.exc_info is not None and record.exc_info[1] is error


def test_each_task_has_context_variables_of_its_own() -> None:
    pool = Pool(1)
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
    seen: list[str] = []
    pool.run(variable.set, "somebody")
    pool.run(lambda: seen.append(variable.get()))
    wait_for(lambda: seen)
    assert seen == ["nobody"]


def test_nothing_of_a_task_is_kept() -> None:
    class Thing:
        pass

    pool = Pool(1)
    thing = Thing()
    gone = weakref.ref(thing)
    pool.run(lambda _thing: None, thing)
    wait_for(lambda: not pool.unfinished)
    del thing
    gc.collect()
    assert gone() is None


def test_the_system_allows_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(4)
    go, done = threading.Event(), [0]

    def task() -> None:
        go.wait(30)
        done[0] += 1

    pool.run(task)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for _ in range(5):
        pool.run(task)
    go.set()
    wait_for(lambda: not pool.unfinished)
    assert done == [6]
    with pytest.raises(RuntimeError, match="new thread"):
        Pool(1).run(task)


def test_many_threads_may_submit() -> None:
    pool = Pool(4)
    done: list[int] = []
    threads = [
        threading.Thread(target=lambda: [pool.run(done.append, 1) for _ in range(500)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(lambda: not pool.unfinished)
    assert len(done) == 4000


def test_threads_that_submit_at_once_start_no_more_than_its_size() -> None:
    class Interrupted(Pool):
        """Another thread submits a task while this one looks whether to start a thread."""

        @property
        def unfinished(self) -> int:
            other.call()
            return super().unfinished

    pool, ran = Interrupted(1), threading.Event()
    other = Other(pool, pool.run, ran.set)
    pool.run(ran.wait, 30)
    other.result()
    assert len(pool._done) == 1
    ran.set()


def test_a_task_that_never_returns_does_not_keep_the_process() -> None:
    program = (
        "import threading, time\n"
        "from supervisor_sio.worker.threads.pool import Pool\n"
        "pool, begun = Pool(2), threading.Event()\n"
        "pool.run(lambda: (begun.set(), time.sleep(600)))\n"
        "begun.wait()\n"
    )
    began = time.monotonic()
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
    assert time.monotonic() - began < 30


def test_the_default_is_that_of_a_thread_pool() -> None:
    from concurrent.futures import ThreadPoolExecutor

    assert default_threads() == ThreadPoolExecutor()._max_workers  # type: ignore[attr-defined]
