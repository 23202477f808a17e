"""How long what is due has to wait in the worker's loop: the worst of the last second."""

from __future__ import annotations

import time
from collections import deque

from .runtime import Runtime

#: Seconds between looks, and how many of them are kept.
_INTERVAL = 0.1
_KEPT = 10


class LoopLag:
    """Measures from the call of :meth:`start`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._samples = deque([0.0], maxlen=_KEPT)
        self._due = 0.0

    @property
    def worst(self) -> float:
        """In seconds."""
        return max(self._samples)

    def start(self) -> None:
        """Measure from now on; in the thread of the loop."""
        self._due = time.monotonic() + _INTERVAL
        self._runtime.call_later(_INTERVAL, self._look)

    def _look(self) -> None:
        self._samples.append(max(0.0, time.monotonic() - self._due))
        self.start()
