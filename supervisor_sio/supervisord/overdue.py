"""Find workers over a limit: ``max_memory``, ``max_lifetime``, ``hung_timeout``. Pure.

Each process has a record, which ends with it. Only the number of times in a row that a worker was
over ``max_memory`` right after its start is kept from one process to the next.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum
from typing import Callable, NamedTuple, Optional

from ..common.limits import RECYCLE_EARLY, RECYCLE_JITTER, RECYCLE_PAUSE

#: If there are more seconds than this between two looks, no router was running, or supervisord
#: was blocked.
_NO_ROUTER = 2.5


class Reason(Enum):
    """Why a worker is recycled; the values are labels of the metric."""

    MEMORY = "memory"
    LIFETIME = "lifetime"
    HUNG = "hung"


class Limits(NamedTuple):
    """The limits of every worker, in bytes and seconds; ``None`` for no limit."""

    max_memory: Optional[int] = None
    max_lifetime: Optional[float] = None
    hung_timeout: Optional[float] = None


class Seen(NamedTuple):
    """The current state of a worker that supervisord has started."""

    name: str
    #: The pid of the process that supervisord has started; 0 if none runs.
    process: int
    #: Its state in ``sio status``.
    state: str
    #: Whether Supervisor's state of it is RUNNING, not STARTING or STOPPING.
    steady: bool
    #: Whether it is registered at the router.
    joined: bool
    #: Whether its sessions move to its successor.
    takes: bool
    #: Resident bytes.
    memory: int
    #: Seconds since its start.
    age: float
    #: Seconds without a report, if it hangs.
    silent: float
    #: Its ``stopwaitsecs``.
    stop_time: float


class Due(NamedTuple):
    """Why a worker must be recycled, and in how many seconds."""

    reason: Reason
    #: Text such as ``memory 512 MB of 500``.
    text: str
    pause: float


@dataclass
class _Life:
    """The record of one process."""

    process: int
    #: Its ``max_lifetime``, shortened at random.
    lifetime: float
    #: When it was first seen ready, and first seen over ``max_memory``.
    ready_at: Optional[float] = None
    over_at: Optional[float] = None
    #: Since when it is no longer registered at the router.
    absent_since: Optional[float] = None

    @property
    def began_over(self) -> bool:
        """Whether it has always been over ``max_memory`` while ready."""
        return self.ready_at is not None and self.over_at == self.ready_at

    @property
    def was_early(self) -> bool:
        """Whether it was over ``max_memory`` right after its start."""
        if self.ready_at is None or self.over_at is None:
            return False
        return self.over_at - self.ready_at < RECYCLE_EARLY


class Overdue:
    """Decides which workers are due; :meth:`note` must be called about once a second.

    :param chance: returns a random number from 0 to 1.
    """

    def __init__(self, limits: Limits, chance: Callable[[], float] = random.random) -> None:
        self.limits = limits
        self._chance = chance
        self._lives: dict[str, _Life] = {}
        #: By name, how many times in a row a worker was over ``max_memory`` right after its start.
        self._early: dict[str, int] = {}
        self._noted_at = 0.0
        self._said_too_low = False

    def note(self, now: float, seen: dict[str, Seen]) -> str:
        """Record the state of all workers; returns a line for the log, or ""."""
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
        # A worker that hangs does not register at a new router.
        if worker.joined or not worker.steady or life.ready_at is None:
            life.absent_since = None
        elif life.absent_since is None or now - self._noted_at > _NO_ROUTER:
            life.absent_since = now
        if worker.state != "ready":
            return ""
        life.ready_at = now if life.ready_at is None else life.ready_at
        if not self._is_over_memory(worker):
            if life.began_over:
                life.over_at = None  # it needed more memory only during its start
            return ""
        life.over_at = now if life.over_at is None else life.over_at
        if not life.began_over or self._said_too_low:
            return ""
        self._said_too_low = True
        return (
            f"max_memory is too low: {worker.name} has {_megabytes(worker.memory)} MB of "
            f"{_megabytes(self.limits.max_memory)} when it is ready, so it is not recycled for its "
            "memory; set a larger limit"
        )

    def _lifetime(self) -> float:
        longest = self.limits.max_lifetime
        if longest is None:
            return float("inf")
        return longest * (1 - RECYCLE_JITTER * self._chance())

    def _is_over_memory(self, worker: Seen) -> bool:
        return self.limits.max_memory is not None and worker.memory >= self.limits.max_memory

    def silent(self, now: float, worker: Seen) -> float:
        """Seconds without a report if the worker hangs, else 0."""
        absent_since = self._lives[worker.name].absent_since
        return worker.silent if absent_since is None else now - absent_since

    def due(self, now: float, worker: Seen) -> Optional[Due]:
        """Why the worker must be recycled, or ``None``, regardless of whether it can be now."""
        life = self._lives[worker.name]
        if worker.state != "ready" or not worker.steady or life.ready_at is None:
            return None  # it is being drained or stopped already
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
        """Why the worker is exempt from ``max_memory``, or ""."""
        if not self._lives[name].began_over:
            return ""
        limit = _megabytes(self.limits.max_memory)
        return f"is not recycled for its memory: it began with the {limit} MB of max_memory"

    def recycled(self, name: str) -> float:
        """Note that the worker is recycled for its memory; returns the seconds for which its next
        process is not."""
        if self._lives[name].was_early:
            self._early[name] = self._early.get(name, 0) + 1
        else:
            self._early.pop(name, None)
        return pause_after(self._early.get(name, 0))


def pause_after(times: int) -> float:
    """Seconds from when a worker is ready until it may be recycled for its memory, after it was
    over ``max_memory`` right after its start this many times in a row."""
    return min(RECYCLE_EARLY * 2.0 ** min(times - 1, 16), RECYCLE_PAUSE) if times else 0.0


def _megabytes(size: Optional[int]) -> int:
    return (size or 0) // 2**20
