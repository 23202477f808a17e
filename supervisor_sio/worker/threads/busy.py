"""Says in the log when all threads of the application are busy, and what waits gets no further."""

from __future__ import annotations

import logging
import time
from typing import Callable

from ..runtime import Runtime
from .pool import Pool

logger = logging.getLogger("supervisor_sio.worker")

#: Seconds between looks.
_INTERVAL = 1.0

#: Seconds in which no thread has begun anything, while something waits: as long as until a worker
#: that does not report at all is called hung, about.
_BUSY_SECONDS = 5.0


class Busy:
    """Looks at a pool each second.

    :param now: the clock, in seconds.
    """

    def __init__(
        self, runtime: Runtime, pool: Pool, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._runtime = runtime
        self._pool = pool
        self._now = now
        #: How many tasks had been begun, since when, and whether somebody was told.
        self._begun = -1
        self._since = 0.0
        self._told = False

    def look(self) -> None:
        """Look from here on; in the loop."""
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
                "and requests wait for one: --threads says how many there are"
            )
            seconds = self._now() - self._since
            self._runtime.log(logger, logging.WARNING, text, size, seconds, waiting)
