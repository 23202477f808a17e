"""The end of a process whose application has threads that do not end.

Those of our pool are daemons. Of the others (the application's own, and those in which asyncio and
FastAPI call what may block) Python waits for each that is none, however long it takes.
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

#: Seconds between looks whether there are some yet.
_LOOK = 0.01


def end_in_time(status: int) -> None:
    """Let the process end soon after its main thread, whatever other threads do.

    :param status: of the process.
    """
    threading.Thread(target=_end, args=(status,), name="end", daemon=True).start()


def _end(status: int) -> None:
    probe = ThreadPoolExecutor(1)
    while not _is_main_over(probe):
        time.sleep(_LOOK)
    # From here on Python waits for these, and then calls what atexit knows.
    deadline = time.monotonic() + LAST_THREADS_SECONDS
    while _last_threads():
        if time.monotonic() > deadline:
            names = ", ".join(thread.name for thread in _last_threads())
            logger.warning("threads of the application run yet, the process ends: %s", names)
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(status)
        time.sleep(_LOOK)


def _is_main_over(probe: Executor) -> bool:
    """Whether Python waits for threads; for those of executors while the main thread lives."""
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
