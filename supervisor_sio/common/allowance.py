"""A token bucket: how often something may happen. Pure."""

from __future__ import annotations

import time
from typing import Callable


class Allowance:
    """Allow ``per_second`` uses a second on average, and a burst of ``most`` after a quiet time.

    Threads may share it: of two uses at the same instant, one may not be counted.

    :param most: size of the burst.
    :param now: the clock, in seconds.
    """

    def __init__(
        self, per_second: float, most: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._most = most
        self._now = now
        self._left = most
        self._looked = now()

    @property
    def left(self) -> bool:
        """Whether one more use is allowed."""
        self._refill()
        return self._left >= 1

    def use(self) -> None:
        """Count one use."""
        self._refill()
        self._left = max(self._left - 1, 0)

    def _refill(self) -> None:
        now = self._now()
        self._left = min(self._left + (now - self._looked) * self._per_second, self._most)
        self._looked = now
