"""How long the processes of supervisord have run, and how often they failed in a row.

Pure: events of supervisord and figures of the router in, with the time of the host's
monotonic clock, which nobody sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Optional

from ..common.limits import STEADY_AFTER


@dataclass
class _Life:
    #: When the process that runs now, or the last one, was started.
    started: float
    #: When the router first and last said that it was ready.
    first_ready: Optional[float] = None
    last_ready: float = 0.0


class Lives:
    """By Supervisor's name of the process."""

    def __init__(self) -> None:
        self._lives: dict[str, _Life] = {}
        self._failures: dict[str, int] = {}

    def starting(self, name: str, now: float) -> None:
        self._lives[name] = _Life(now)

    def ready(self, names: Iterable[str], now: float) -> None:
        """The router's figures have these as ready."""
        for name in names:
            life = self._lives.get(name)
            if life is not None:
                life.first_ready = now if life.first_ready is None else life.first_ready
                life.last_ready = now

    def ended(self, name: str) -> None:
        """By itself: nobody had asked for that."""
        life = self._lives.get(name)
        steady = (
            life is not None
            and life.first_ready is not None
            and life.last_ready - life.first_ready >= STEADY_AFTER
        )
        self._failures[name] = 0 if steady else self.failures(name) + 1

    def stopped(self, name: str) -> None:
        """Because somebody asked for it."""
        self._failures.pop(name, None)

    def forget(self, known: Iterable[str]) -> None:
        """All but these are gone from supervisord's configuration."""
        for name in self._lives.keys() - set(known):
            del self._lives[name]
            self._failures.pop(name, None)

    def started(self, name: str) -> float:
        """0 when it never was."""
        life = self._lives.get(name)
        return life.started if life is not None else 0.0

    def failures(self, name: str) -> int:
        """How often in a row it ended by itself without having been ready for a while."""
        return self._failures.get(name, 0)
