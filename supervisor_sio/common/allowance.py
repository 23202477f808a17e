"""How often something may happen. Pure."""

from __future__ import annotations

import time
from typing import Callable


class Allowance:
    """So many times a second in the long run, and more at once after a quiet time.

    Threads may use it together: one of two at the same instant may not be counted.

    :param most: how many times at once.
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
        """Whether it may happen once more."""
        self._refill()
        return self._left >= 1

    def use(self) -> None:
        """It has happened."""
        self._refill()
        self._left = max(self._left - 1, 0)

    def _refill(self) -> None:
        now = self._now()
        self._left = min(self._left + (now - self._looked) * self._per_second, self._most)
        self._looked = now
