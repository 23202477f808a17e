"""The thread pool that runs the application's handlers and requests.

``concurrent.futures.ThreadPoolExecutor`` is not used: at the end of the process it waits for all
tasks, even for one that never returns, and it creates a ``Future`` for each, which costs more than
the rest of passing a short event to a thread.
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
    """The default of ``ThreadPoolExecutor``; most threads are waiting most of the time."""
    return min(32, (os.cpu_count() or 1) + 4)


class Pool:
    """At most ``size`` threads, which start tasks in the order of :meth:`run`.

    Threads are created when they are needed, and are daemons: a handler that never returns does not
    prevent the process from ending. Each task has its own context variables, as in a new thread.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._tasks: SimpleQueue[_Task] = SimpleQueue()
        self._lock = threading.Lock()
        self._submitted = 0
        #: Finished tasks of each thread; only that thread changes its number.
        self._done: list[int] = []

    def run(self, task: Callable[..., Any], *args: Any) -> None:
        """Run a task in one of the threads; exceptions are logged. Call it in any thread.

        :raises RuntimeError: if the pool has no thread, and none can be started.
        """
        with self._lock:
            self._submitted += 1
            self._tasks.put((task, args))
            if len(self._done) < self.size and len(self._done) < self.unfinished:
                self._start_thread()

    @property
    def waiting(self) -> int:
        """Number of tasks that no thread has started."""
        return self._tasks.qsize()

    @property
    def begun(self) -> int:
        """Number of tasks that threads have started since the pool was created."""
        return self._submitted - self._tasks.qsize()

    @property
    def unfinished(self) -> int:
        """Number of waiting and running tasks."""
        return self._submitted - sum(self._done)

    def _start_thread(self) -> None:
        number = len(self._done)
        self._done.append(0)
        thread = threading.Thread(
            target=self.work, args=(number,), name=f"handler-{number}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # no thread could be started: the existing ones run the task
            self._done.pop()
            if not self._done:
                raise

    def work(self, number: int) -> None:
        """Run tasks forever; the function of the thread with this number."""
        done = self._done
        while True:
            task, args = self._tasks.get()
            try:
                Context().run(task, *args)
            except SystemExit as error:
                logger.exception("%s: this ends only the call", exits.describe(error))
            except BaseException:
                logger.exception("a handler of the application failed")
            task = args = None  # type: ignore[assignment]
            done[number] += 1
