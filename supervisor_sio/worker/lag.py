"""Measures the lag of the worker's loop: how late timers run, the worst of the last second."""

from __future__ import annotations

import time
from collections import deque

from .runtime import Runtime

#: Seconds between samples, and the number of samples kept.
_INTERVAL = 0.1
_KEPT = 10


class LoopLag:
    """Samples the lag from the call of :meth:`start` on."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._samples = deque([0.0], maxlen=_KEPT)
        self._due = 0.0

    @property
    def worst(self) -> float:
        """The largest sample, in seconds."""
        return max(self._samples)

    def start(self) -> None:
        """Start sampling; call it in the loop's thread."""
        self._due = time.monotonic() + _INTERVAL
        self._runtime.call_later(_INTERVAL, self._look)

    def _look(self) -> None:
        self._samples.append(max(0.0, time.monotonic() - self._due))
        self.start()
