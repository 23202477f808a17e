"""The :class:`..runtime.Runtime` on asyncio's loop, with a thread pool for the application.

The application does not run in the loop: its handlers and requests run in the threads of a pool.
These call the loop through :attr:`ThreadsRuntime.threads`, which wakes it once for several calls.
"""

from __future__ import annotations

import logging
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Optional

from ...common.limits import LOG_LINES
from ...engine.http import Head
from ..asyncio.runtime import AsyncioRuntime
from ..base_runtime import write_log
from ..loop_thread import LoopThread
from . import wsgi
from .ahead import Ahead
from .apart import Apart
from .busy import Busy
from .client import is_to_be_asked_for
from .pool import Pool, default_threads

if TYPE_CHECKING:
    from ..connection import Connection
    from ..runtime import Watch

#: Seconds for which a computing thread may hold Python's global lock, and Python's default. The
#: loop needs the lock after each system call: beside four computing handlers an echo takes 20 ms
#: with the first value, and 200 ms with the default.
_SWITCH_INTERVAL, _DEFAULT_INTERVAL = 0.001, 0.005


class ThreadsRuntime(AsyncioRuntime):
    """An event loop, and the threads that run the application."""

    has_threads = True

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool(default_threads())
        #: For clients' acknowledgements: handlers that wait for these may occupy the other pool.
        self._answers = Pool(default_threads())
        #: For log messages, because the application's logging handlers may block.
        self._logs = Pool(1)
        #: The same object as ``threads``, available before the first connection.
        self.thread = LoopThread(self, super().run)
        self.threads = self.thread

    @classmethod
    def of_this_process(cls) -> ThreadsRuntime:
        runtime = super().of_this_process()
        assert isinstance(runtime, cls)
        return runtime

    # --- tasks and calls -------------------------------------------------------------

    def run(self, task: Callable[..., Any], *args: Any) -> None:
        """:meth:`.Runtime.run`, in a thread of the pool; call it in any thread."""
        self.pool.run(task, *args)

    soon = run

    def run_apart(
        self,
        name: str,
        function: Callable[[], Any],
        may_run: Callable[[], bool],
        ended: Callable[[Optional[BaseException]], None],
    ) -> Watch:
        return Apart(name, function, may_run, lambda error: self.thread.run(0, ended, error))

    def run_answer(self, task: Callable[..., Any], *args: Any) -> None:
        """:meth:`.Runtime.run_answer`"""
        self._answers.run(task, *args)

    def log(
        self,
        logger: logging.Logger,
        level: int,
        message: str,
        *args: Any,
        exc_info: Optional[BaseException] = None,
    ) -> None:
        if logger.isEnabledFor(level) and self._logs.waiting < LOG_LINES:
            self._logs.run(write_log, logger, level, message, args, exc_info)

    # --- the life of the worker ------------------------------------------------------

    def leave_in_child(self, at_end: Callable[[], None]) -> None:
        if self.thread.here:
            super().leave_in_child(at_end)
        else:
            self._leave(Pool.work.__code__, at_end)

    # --- the application ---------------------------------------------------------------

    async def start_up(self, app: Any) -> None:
        """:meth:`.Runtime.start_up`; a WSGI application has nothing to prepare."""
        if abs(sys.getswitchinterval() - _DEFAULT_INTERVAL) < 1e-4:  # else set by the application
            sys.setswitchinterval(_SWITCH_INTERVAL)
        Busy(self, self.pool).look()

    @property
    def busy(self) -> bool:
        return self.pool.unfinished > 0

    def serve(self, connection: Connection, head: Head) -> None:
        connection.stop_reading()
        call = partial(self.pool.run, wsgi.serve, connection, head, self.thread, self.pool)
        if head.length == 0 or is_to_be_asked_for(head):
            call()
        else:
            Ahead(connection, head, call)
