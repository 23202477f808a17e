"""Ends a process whose application has threads that do not end.

The threads of the worker's own pool are daemons. For all other non-daemon threads (the
application's own, and the pools in which asyncio and FastAPI run blocking calls) Python would wait
without limit.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from concurrent.futures import Executor, ThreadPoolExecutor

from ..common.limits import LAST_THREADS_SECONDS

logger = logging.getLogger("supervisor_sio.worker")

#: Seconds between checks.
_LOOK = 0.01


def end_in_time(status: int) -> None:
    """Ensure that the process ends within ``LAST_THREADS_SECONDS`` of its main thread.

    :param status: exit status of the process.
    """
    threading.Thread(target=_end, args=(status,), name="end", daemon=True).start()


def _end(status: int) -> None:
    probe = ThreadPoolExecutor(1)
    while not _is_main_over(probe):
        time.sleep(_LOOK)
    # Now Python waits for the remaining threads, and then calls the atexit functions.
    deadline = time.monotonic() + LAST_THREADS_SECONDS
    while _last_threads():
        if time.monotonic() > deadline:
            names = ", ".join(thread.name for thread in _last_threads())
            logger.warning("ending the process while threads of the application run: %s", names)
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(status)
        time.sleep(_LOOK)


def _is_main_over(probe: Executor) -> bool:
    """Whether Python waits for threads, which for executors begins before the main thread ends."""
    if not threading.main_thread().is_alive():
        return True
    try:
        probe.submit(int)
    except RuntimeError:
        return True
    return False


def _last_threads() -> list[threading.Thread]:
    return [
        thread
        for thread in threading.enumerate()
        if not thread.daemon and thread is not threading.main_thread()
    ]
