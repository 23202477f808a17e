"""How long what is due has to wait in eventlet's hub: the worst of the last second."""

from __future__ import annotations

import time
from collections import deque

from eventlet import hubs

#: Seconds between looks, and how many of them are kept.
_INTERVAL = 0.1
_KEPT = 10


class HubLag:
    """Measures from the call of :meth:`start`."""

    def __init__(self) -> None:
        self._samples = deque([0.0], maxlen=_KEPT)
        self._due = 0.0

    @property
    def worst(self) -> float:
        """In seconds."""
        return max(self._samples)

    def start(self) -> None:
        """Measure from now on; in the thread of the hub."""
        self._due = time.monotonic() + _INTERVAL
        hubs.get_hub().schedule_call_global(_INTERVAL, self._look)

    def _look(self) -> None:
        self._samples.append(max(0.0, time.monotonic() - self._due))
        self.start()
