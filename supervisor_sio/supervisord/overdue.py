"""Which workers are over a limit: ``max_memory``, ``max_lifetime``, ``hung_timeout``. Pure.

What is known of each process is in a record of its own, which ends with it; only how often in a row
a worker was over ``max_memory`` right after its start is kept from one process to the next.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum
from typing import Callable, NamedTuple, Optional

from ..common.limits import RECYCLE_EARLY, RECYCLE_JITTER, RECYCLE_PAUSE

#: Seconds between two looks after which there was no router, or supervisord could not run.
_NO_ROUTER = 2.5


class Reason(Enum):
    """The values are labels of the metric."""

    MEMORY = "memory"
    LIFETIME = "lifetime"
    HUNG = "hung"


class Limits(NamedTuple):
    """Of every worker; ``None`` for none. Bytes, and seconds."""

    max_memory: Optional[int] = None
    max_lifetime: Optional[float] = None
    hung_timeout: Optional[float] = None


class Seen(NamedTuple):
    """A worker of supervisord's as it is now."""

    name: str
    #: The pid of the process that supervisord has started; 0 when there is none.
    process: int
    #: As ``sio status`` has it.
    state: str
    #: Whether Supervisor has it as RUNNING, and not as STARTING or STOPPING.
    steady: bool
    #: Whether the router knows it.
    joined: bool
    #: Whether its sessions move to its successor.
    takes: bool
    #: Resident bytes.
    memory: int
    #: Seconds since its start.
    age: float
    #: Seconds without a report, when it hangs.
    silent: float
    #: Its ``stopwaitsecs``.
    stop_time: float


class Due(NamedTuple):
    """Why a worker is to be recycled, and in how many seconds."""

    reason: Reason
    #: Such as ``memory 512 MB of 500``.
    text: str
    pause: float


@dataclass
class _Life:
    """What is known of one process."""

    process: int
    #: Its own ``max_lifetime``.
    lifetime: float
    #: When it was seen to be ready first, and to be over ``max_memory``.
    ready_at: Optional[float] = None
    over_at: Optional[float] = None
    #: Since when the router does not know it any more.
    absent_since: Optional[float] = None

    @property
    def began_over(self) -> bool:
        """Whether it has never been ready with less than ``max_memory``."""
        return self.ready_at is not None and self.over_at == self.ready_at

    @property
    def was_early(self) -> bool:
        """Whether it was over ``max_memory`` right after its start."""
        if self.ready_at is None or self.over_at is None:
            return False
        return self.over_at - self.ready_at < RECYCLE_EARLY


class Overdue:
    """To be shown all workers every second or so.

    :param chance: a number from 0 to 1, for each process another one.
    """

    def __init__(self, limits: Limits, chance: Callable[[], float] = random.random) -> None:
        self.limits = limits
        self._chance = chance
        self._lives: dict[str, _Life] = {}
        #: By name, how often in a row it was over ``max_memory`` right after its start.
        self._early: dict[str, int] = {}
        self._noted_at = 0.0
        self._said_too_low = False

    def note(self, now: float, seen: dict[str, Seen]) -> str:
        """Take notice of all workers; the result is for the log, if there is something to say."""
        for name in self._lives.keys() - seen.keys():
            del self._lives[name]
            self._early.pop(name, None)
        lines = [self._note_one(now, worker) for worker in seen.values()]
        self._noted_at = now
        return "".join(lines)

    def _note_one(self, now: float, worker: Seen) -> str:
        life = self._lives.get(worker.name)
        if life is None or life.process != worker.process:
            life = self._lives[worker.name] = _Life(worker.process, self._lifetime())
        # One that hangs does not connect to a new router, which so knows nothing of it.
        if worker.joined or not worker.steady or life.ready_at is None:
            life.absent_since = None
        elif life.absent_since is None or now - self._noted_at > _NO_ROUTER:
            life.absent_since = now
        if worker.state != "ready":
            return ""
        life.ready_at = now if life.ready_at is None else life.ready_at
        if not self._is_over_memory(worker):
            if life.began_over:
                life.over_at = None  # it needed more only while it started
            return ""
        life.over_at = now if life.over_at is None else life.over_at
        if not life.began_over or self._said_too_low:
            return ""
        self._said_too_low = True
        return (
            f"max_memory is too low: {worker.name} has {_megabytes(worker.memory)} MB of "
            f"{_megabytes(self.limits.max_memory)} when it is ready, so it is not recycled for its "
            "memory; set a larger one"
        )

    def _lifetime(self) -> float:
        longest = self.limits.max_lifetime
        if longest is None:
            return float("inf")
        return longest * (1 - RECYCLE_JITTER * self._chance())

    def _is_over_memory(self, worker: Seen) -> bool:
        return self.limits.max_memory is not None and worker.memory >= self.limits.max_memory

    def silent(self, now: float, worker: Seen) -> float:
        """Seconds without a report of one that hangs, or 0."""
        absent_since = self._lives[worker.name].absent_since
        return worker.silent if absent_since is None else now - absent_since

    def due(self, now: float, worker: Seen) -> Optional[Due]:
        """Why it is to be recycled, if so; it does not count whether it can be now."""
        life = self._lives[worker.name]
        if worker.state != "ready" or not worker.steady or life.ready_at is None:
            return None  # who drains one, or stops it, is at it already
        if self._is_over_memory(worker) and not life.began_over:
            limit = _megabytes(self.limits.max_memory)
            pause = life.ready_at + pause_after(self._early.get(worker.name, 0)) - now
            text = f"memory {_megabytes(worker.memory)} MB of {limit}"
            return Due(Reason.MEMORY, text, max(0.0, pause))
        if worker.age >= life.lifetime:
            text = f"lifetime {worker.age:.0f} s of {self.limits.max_lifetime:g}"
            return Due(Reason.LIFETIME, text, 0.0)
        return None

    def exempt(self, name: str) -> str:
        """Why it is not recycled for its memory, if so."""
        if not self._lives[name].began_over:
            return ""
        limit = _megabytes(self.limits.max_memory)
        return f"is not recycled for its memory: it began with the {limit} MB of max_memory"

    def recycled(self, name: str) -> float:
        """It is recycled for its memory now: seconds that its next process has at least."""
        if self._lives[name].was_early:
            self._early[name] = self._early.get(name, 0) + 1
        else:
            self._early.pop(name, None)
        return pause_after(self._early.get(name, 0))


def pause_after(times: int) -> float:
    """Seconds from when a worker is ready until it may be recycled for its memory, when it was over
    ``max_memory`` right after its start so often in a row."""
    return min(RECYCLE_EARLY * 2.0 ** min(times - 1, 16), RECYCLE_PAUSE) if times else 0.0


def _megabytes(size: Optional[int]) -> int:
    return (size or 0) // 2**20
