"""Logs when all threads of the application are busy and no waiting task starts."""

from __future__ import annotations

import logging
import time
from typing import Callable

from ..runtime import Runtime
from .pool import Pool

logger = logging.getLogger("supervisor_sio.worker")

#: Seconds between checks.
_INTERVAL = 1.0

#: Seconds without a started task, while tasks wait, after which a warning is logged; about as long
#: as ``hung_timeout``, after which a silent worker is shown as hung.
_BUSY_SECONDS = 5.0


class Busy:
    """Checks a pool each second.

    :param now: returns the time in seconds.
    """

    def __init__(
        self, runtime: Runtime, pool: Pool, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._runtime = runtime
        self._pool = pool
        self._now = now
        #: How many tasks had started, since when that is so, and whether the warning was logged.
        self._begun = -1
        self._since = 0.0
        self._told = False

    def look(self) -> None:
        """Start checking; call it in the loop."""
        self._runtime.call_later(_INTERVAL, self.look)
        begun, waiting, size = self._pool.begun, self._pool.waiting, self._pool.size
        if begun != self._begun or not waiting:
            if self._told:
                self._runtime.log(logger, logging.INFO, "a thread of the application is free again")
            self._begun, self._since, self._told = begun, self._now(), False
        elif not self._told and self._now() - self._since >= _BUSY_SECONDS:
            self._told = True
            text = (
                "all %d threads of the application have been busy for %.0f seconds, and %d events "
                "and requests wait for one: --threads sets their number"
            )
            seconds = self._now() - self._since
            self._runtime.log(logger, logging.WARNING, text, size, seconds, waiting)
