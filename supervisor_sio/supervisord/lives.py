"""How long the processes of supervisord have run, and how often they failed in a row.

Pure: events of supervisord and figures of the router in, with the time of the host's
monotonic clock, which nobody sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Optional

from ..common.limits import FAILURE_PAUSE, FAILURES_WITHOUT_PAUSE, STEADY_AFTER


@dataclass
class _Life:
    #: When the process that runs now, or the last one, was started.
    started: float
    #: When the router first and last said that it was ready.
    first_ready: Optional[float] = None
    last_ready: float = 0.0


@dataclass(frozen=True)
class Failures:
    """Of a process that ended by itself without having been ready for a while."""

    #: How often in a row.
    count: int = 0
    #: What it said last, when it ended last.
    last_line: str = ""
    #: When it is started again, where that has to wait.
    resumes: float = 0.0

    def remaining(self, now: float) -> float:
        """Seconds until it is started again; 0 where it does not wait for that."""
        return max(0.0, self.resumes - now)


_NONE = Failures()


class Lives:
    """By Supervisor's name of the process."""

    def __init__(self) -> None:
        self._lives: dict[str, _Life] = {}
        self._failures: dict[str, Failures] = {}

    def starting(self, name: str, now: float) -> None:
        self._lives[name] = _Life(now)
        if name in self._failures:  # and waits no longer
            failures = self._failures[name]
            self._failures[name] = Failures(failures.count, failures.last_line)

    def ready(self, names: Iterable[str], now: float) -> None:
        """The router's figures have these as ready."""
        for name in names:
            life = self._lives.get(name)
            if life is not None:
                life.first_ready = now if life.first_ready is None else life.first_ready
                life.last_ready = now

    def ended(self, name: str, last_line: str = "") -> None:
        """By itself: nobody had asked for that."""
        life = self._lives.get(name)
        steady = (
            life is not None
            and life.first_ready is not None
            and life.last_ready - life.first_ready >= STEADY_AFTER
        )
        count = 0 if steady else self.failures(name).count + 1
        self._failures[name] = Failures(count, last_line if count else "")

    def waits(self, name: str, now: float) -> float:
        """Seconds for which a process that has ended is not started again; 0 for at once."""
        failures = self.failures(name)
        pause = pause_after(failures.count)
        if pause:
            self._failures[name] = Failures(failures.count, failures.last_line, now + pause)
        return pause

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

    def failures(self, name: str) -> Failures:
        return self._failures.get(name, _NONE)


def pause_after(failures: int) -> float:
    """Seconds between the end of a process that failed so often in a row, and its next start.

    Twice as long each time: 1, 2, 4 and so on.
    """
    more = failures - FAILURES_WITHOUT_PAUSE
    return min(2.0 ** min(more - 1, 16), FAILURE_PAUSE) if more > 0 else 0.0
