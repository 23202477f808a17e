"""The threads in which the application runs: its handlers, and requests through it.

``concurrent.futures.ThreadPoolExecutor`` is not used: at the end of the process it waits for
every task, also for one that never returns, and it makes a ``Future`` for each, which costs more
than all the rest of handing a short event over.
"""

from __future__ import annotations

import logging
import os
import threading
from contextvars import Context
from queue import SimpleQueue
from typing import Any, Callable

from .. import exits

logger = logging.getLogger("supervisor_sio.worker")

_Task = tuple[Callable[..., Any], tuple[Any, ...]]


def default_threads() -> int:
    """As many as ``ThreadPoolExecutor`` has; most of them wait for something most of the time."""
    return min(32, (os.cpu_count() or 1) + 4)


class Pool:
    """At most ``size`` threads; tasks begin in the order in which they came.

    The threads are made when they are needed, and are daemons: one that is stuck in a handler
    does not keep the process from ending. Each task has context variables of its own, as in a
    new thread.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._tasks: SimpleQueue[_Task] = SimpleQueue()
        self._lock = threading.Lock()
        self._submitted = 0
        #: Tasks that are done, of each thread: only that thread counts them.
        self._done: list[int] = []

    def run(self, task: Callable[..., Any], *args: Any) -> None:
        """Run it in one of the threads; from any thread. What it raises is logged.

        :raises RuntimeError: when there is no thread, and the system allows none.
        """
        with self._lock:
            self._submitted += 1
            self._tasks.put((task, args))
            if len(self._done) < self.size and len(self._done) < self.unfinished:
                self._start_thread()

    @property
    def waiting(self) -> int:
        """Tasks that no thread has begun."""
        return self._tasks.qsize()

    @property
    def begun(self) -> int:
        """Tasks that threads have begun, since the start."""
        return self._submitted - self._tasks.qsize()

    @property
    def unfinished(self) -> int:
        """Tasks that wait or run."""
        return self._submitted - sum(self._done)

    def _start_thread(self) -> None:
        number = len(self._done)
        self._done.append(0)
        thread = threading.Thread(
            target=self.work, args=(number,), name=f"handler-{number}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # the system allows no more; those that are there have more to do
            self._done.pop()
            if not self._done:
                raise

    def work(self, number: int) -> None:
        """What the thread of this number does."""
        done = self._done
        while True:
            task, args = self._tasks.get()
            try:
                Context().run(task, *args)
            except SystemExit as error:
                logger.exception("%s: it ends, and not the worker", exits.describe(error))
            except BaseException:
                logger.exception("a handler of the application failed")
            task = args = None  # type: ignore[assignment]
            done[number] += 1
