"""The end of a process whose application has threads that do not end.

Those of the pool are daemons. Of others that the application has started, Python waits for each
that is none, however long it takes.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time

from ...common.limits import LAST_THREADS_SECONDS

logger = logging.getLogger("supervisor_sio.worker")

#: Seconds between looks whether there are some yet.
_LOOK = 0.01


def end_in_time(status: int) -> None:
    """Let the process end soon after its main thread, whatever other threads do.

    :param status: of the process.
    """
    threading.Thread(target=_end, args=(status,), name="end", daemon=True).start()


def _end(status: int) -> None:
    threading.main_thread().join()
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


def _last_threads() -> list[threading.Thread]:
    return [
        thread
        for thread in threading.enumerate()
        if not thread.daemon and thread is not threading.main_thread()
    ]
