"""Track since when processes of supervisord have run, and how often they failed in a row. Pure.

It is fed with supervisord's events and the router's figures, and with times of the host's monotonic
clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Optional

from ..common.limits import FAILURE_PAUSE, FAILURES_WITHOUT_PAUSE, STEADY_AFTER


@dataclass
class _Life:
    #: When the current process, or the last one, was started.
    started: float
    #: When the router first and last reported it as ready.
    first_ready: Optional[float] = None
    last_ready: float = 0.0


@dataclass(frozen=True)
class Failures:
    """Failures of a process: it ended by itself without having been ready for STEADY_AFTER."""

    #: Failures in a row.
    count: int = 0
    #: The last line of its log at its last end.
    last_line: str = ""
    #: When it is started again, if it is held back.
    resumes: float = 0.0

    def remaining(self, now: float) -> float:
        """Seconds until it is started again; 0 if it is not held back."""
        return max(0.0, self.resumes - now)


_NONE = Failures()


class Lives:
    """The lives and failures of all processes, by Supervisor's name."""

    def __init__(self) -> None:
        self._lives: dict[str, _Life] = {}
        self._failures: dict[str, Failures] = {}

    def starting(self, name: str, now: float) -> None:
        self._lives[name] = _Life(now)
        if name in self._failures:  # it is no longer held back
            failures = self._failures[name]
            self._failures[name] = Failures(failures.count, failures.last_line)

    def ready(self, names: Iterable[str], now: float) -> None:
        """The router reports these processes as ready."""
        for name in names:
            life = self._lives.get(name)
            if life is not None:
                life.first_ready = now if life.first_ready is None else life.first_ready
                life.last_ready = now

    def ended(self, name: str, last_line: str = "") -> None:
        """A process has ended by itself."""
        life = self._lives.get(name)
        steady = (
            life is not None
            and life.first_ready is not None
            and life.last_ready - life.first_ready >= STEADY_AFTER
        )
        count = 0 if steady else self.failures(name).count + 1
        self._failures[name] = Failures(count, last_line if count else "")

    def waits(self, name: str, now: float) -> float:
        """Hold back an ended process; returns for how many seconds, 0 for none.

        One that was ready served clients: it is down no longer than it has lived. If all workers
        are killed again and again, they serve at least half of the time.
        """
        failures, life = self.failures(name), self._lives.get(name)
        pause = pause_after(failures.count)
        if life is not None and life.first_ready is not None:
            pause = min(pause, now - life.started)
        if pause:
            self._failures[name] = Failures(failures.count, failures.last_line, now + pause)
        return pause

    def stopped(self, name: str) -> None:
        """A process was stopped on request; its failures are forgotten."""
        self._failures.pop(name, None)

    def forget(self, known: Iterable[str]) -> None:
        """Drop all processes but these, which supervisord still has."""
        for name in self._lives.keys() - set(known):
            del self._lives[name]
            self._failures.pop(name, None)

    def started(self, name: str) -> float:
        """When the process was started; 0 if never."""
        life = self._lives.get(name)
        return life.started if life is not None else 0.0

    def failures(self, name: str) -> Failures:
        return self._failures.get(name, _NONE)


def pause_after(failures: int) -> float:
    """Seconds from the end of a process to its next start after so many failures in a row.

    The pause doubles with each failure: 1, 2, 4 and so on.
    """
    more = failures - FAILURES_WITHOUT_PAUSE
    return min(2.0 ** min(more - 1, 16), FAILURE_PAUSE) if more > 0 else 0.0
