"""Recycle workers that are over a limit, see :mod:`.overdue`. Pure.

They are recycled one at a time, each as ``sio reload`` restarts a worker:

=========  ==================================================  =====================================
step       what happens                                        then
=========  ==================================================  =====================================
IDLE       a worker is due, no worker starts, ends or fails,   ANNOUNCED
           and nothing has changed for RECYCLE_QUIET
ANNOUNCED  RECYCLE_NOTICE is over                              DRAINING; STOPPING if its sessions
                                                               move, or no other worker is ready
           another worker has changed: an operator is at work  IDLE
DRAINING   it has been drained for DRAIN_TIME                  STOPPING
           another worker has changed, or RECYCLE_DRAIN is     IDLE, and it is undrained
           over
STOPPING   its process has ended                               STARTING
           its ``stopwaitsecs`` are over                       it is killed
STARTING   its new process is ready                            IDLE
           that fails, or RECYCLE_START is over                IDLE; no worker is recycled until it
                                                               is ready
any        it is removed, or an operator has stopped it        IDLE
=========  ==================================================  =====================================

Supervisor's state of the process stays RUNNING until the process ends, so ``supervisorctl stop``
and ``restart`` work all the time, and take precedence.

A worker that hangs longer than ``hung_timeout`` is killed at once, without waiting for its turn,
because it serves no client.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum, auto
from typing import Any, Iterable, Iterator, NamedTuple, Optional

from ..common.limits import (
    DRAIN_TIME,
    RECYCLE_DRAIN,
    RECYCLE_EARLY,
    RECYCLE_NOTICE,
    RECYCLE_QUIET,
    RECYCLE_START,
)
from .overdue import Due, Overdue, Reason, Seen


class Step(Enum):
    """The values appear in the status."""

    IDLE = ""
    ANNOUNCED = "the next"
    DRAINING = "drained, waiting for its clients to finish connecting"
    STOPPING = "waiting for its process to end"
    STARTING = "waiting for the new process to be ready"


class Do(Enum):
    DRAIN = auto()
    UNDRAIN = auto()
    STOP = auto()  # send its stopsignal
    KILL = auto()
    SAY = auto()  # only log the line


class Action(NamedTuple):
    do: Do
    name: str = ""
    #: A line for the log, or "".
    line: str = ""


#: Stable states. In any other state, a worker starts, ends or fails.
_SETTLED = ("ready", "hung", "drained", "stopped")

#: States of a worker that was started and has ended by itself.
_BROKEN = ("failing", "fatal", "backoff", "exited", "unknown")

#: States of a new process that will not become ready.
_FAILED = ("failing", "fatal")

#: Seconds that a step may take; STOPPING has the worker's ``stopwaitsecs``.
_LIMITS = {
    Step.ANNOUNCED: RECYCLE_NOTICE,
    Step.DRAINING: RECYCLE_DRAIN,
    Step.STARTING: RECYCLE_START,
}

#: The process and state of each worker, by name.
_Marks = dict[str, tuple[int, str]]


class Recycling:
    """Decides what to do; :meth:`look` must be called about once a second."""

    def __init__(self, overdue: Overdue) -> None:
        self._overdue = overdue
        self._step = Step.IDLE
        self._since = 0.0
        #: The worker that is being recycled, and why.
        self._worker: Optional[Seen] = None
        self._due = Due(Reason.MEMORY, "", 0.0)
        #: The other workers' processes and states when the recycling began.
        self._others: _Marks = {}
        self._drained_since: Optional[float] = None
        self._marks: _Marks = {}
        self._changed_at = 0.0
        #: The killed processes, by name.
        self._killed: dict[str, int] = {}
        #: Processes whose recycling was cancelled while drained, by name, until they are undrained.
        self._given_up: dict[str, int] = {}
        #: The broken worker that was logged as keeping others from being recycled.
        self._said_broken = ""
        #: The workers that are over a limit and not recycled now, with the reason.
        self._waiting: list[tuple[str, str]] = []
        limits = zip((Reason.MEMORY, Reason.LIFETIME, Reason.HUNG), overdue.limits)
        self.recycled = Counter({reason.value: 0 for reason, limit in limits if limit is not None})

    @property
    def on(self) -> bool:
        return bool(self.recycled)

    def look(self, now: float, workers: Iterable[Seen]) -> list[Action]:
        """Return the actions to execute now.

        :param now: seconds of a monotonic clock.
        :param workers: all workers, as the router reported them within the last seconds.
        """
        seen = {worker.name: worker for worker in workers}
        marks = {worker.name: (worker.process, worker.state) for worker in seen.values()}
        if marks != self._marks:
            self._marks, self._changed_at = marks, now
        line = self._overdue.note(now, seen)
        return [
            *([Action(Do.SAY, line=line)] if line else []),
            *self._kill_hung(now, seen),
            *self._undrain(seen),
            *self._go_on(now, seen),
        ]

    def ends(self, name: str, process: int) -> Optional[Reason]:
        """Why recycling ended this process; ``None`` if it did not."""
        if self._step is Step.STOPPING and self._worker is not None:
            if (name, process) == (self._worker.name, self._worker.process):
                return self._due.reason
        return Reason.HUNG if self._killed.get(name) == process else None

    def shown(self, now: float) -> dict[str, Any]:
        """The struct ``recycling`` of the status."""
        busy = self._step is not Step.IDLE
        return {
            "state": "on" if self.on else "off",
            "worker": self._name if busy else "",
            "reason": self._due.reason.value if busy else "",
            "text": self._due.text if busy else "",
            "step": self._step.value,
            "seconds": int(now - self._since) if busy else 0,
            "limit": float(self._limit),
            "waiting": [{"worker": name, "text": text} for name, text in self._waiting],
            "recycled": dict(self.recycled),
        }

    @property
    def _name(self) -> str:
        return self._worker.name if self._worker is not None else ""

    @property
    def _limit(self) -> float:
        """The longest time of this step in seconds, up to the next look."""
        if self._step is Step.STOPPING and self._worker is not None:
            return self._worker.stop_time
        return _LIMITS.get(self._step, 0.0)

    # --- workers that hang ----------------------------------------------------------------

    def _kill_hung(self, now: float, seen: dict[str, Seen]) -> Iterator[Action]:
        for name, process in list(self._killed.items()):
            if name not in seen or seen[name].process != process:
                del self._killed[name]
        longest = self._overdue.limits.hung_timeout
        for worker in seen.values():
            silent = self._overdue.silent(now, worker)
            if self._step is Step.STOPPING and worker.name == self._name:
                silent = worker.silent  # after it has left the router, it has its stopwaitsecs
            if longest is not None and silent >= longest and worker.process:
                if worker.name not in self._killed:
                    self.recycled[Reason.HUNG.value] += 1
                    reason = f"it hangs: no report for {silent:.0f} s (hung_timeout {longest:g})"
                    yield self._kill(worker, reason)

    def _kill(self, worker: Seen, reason: str) -> Action:
        self._killed[worker.name] = worker.process
        return Action(
            Do.KILL, worker.name, f"killing {worker.name} (pid {worker.process}): {reason}"
        )

    # --- which worker is next -------------------------------------------------------------

    def _choose(self, now: float, seen: dict[str, Seen]) -> Optional[tuple[Seen, Due]]:
        """The due worker with the most memory if any is due for memory, else the oldest one."""
        unsettled = [worker for worker in seen.values() if worker.state not in _SETTLED]
        found: list[tuple[bool, float, Seen, Due]] = []
        self._waiting = []
        for worker in seen.values():
            if self._step is not Step.IDLE and worker.name == self._name:
                continue
            due, text = self._overdue.due(now, worker), self._overdue.exempt(worker.name)
            if due is not None:
                text = f"is due, {due.text}"
                if due.pause:
                    text += f" in {due.pause:.0f} s, because it grew right after its start"
                else:
                    if unsettled:
                        text += f", waits for {unsettled[0].name} ({unsettled[0].state})"
                    for_memory = due.reason is Reason.MEMORY
                    most = worker.memory if for_memory else worker.age
                    found.append((for_memory, most, worker, due))
            if text:
                self._waiting.append((worker.name, text))
        return max(found, key=lambda one: one[:2])[2:] if found else None

    def _begin(self, now: float, seen: dict[str, Seen], worker: Seen, due: Due) -> Iterator[Action]:
        broken = [other for other in seen.values() if other.state in _BROKEN]
        if broken and broken[0].name != self._said_broken:
            self._said_broken = broken[0].name
            line = f"{worker.name} is due ({due.text}), but waits: {broken[0].name} does not run"
            yield Action(Do.SAY, worker.name, line)
        if all(other.state in _SETTLED for other in seen.values()):
            self._said_broken = ""
            self._worker, self._due = worker, due
            self._others = self._marks_of_others()
            self._waiting = [row for row in self._waiting if row[0] != worker.name]
            self._set(Step.ANNOUNCED, now)

    # --- the steps ----------------------------------------------------------------------

    def _go_on(self, now: float, seen: dict[str, Seen]) -> Iterator[Action]:
        chosen = self._choose(now, seen)
        if self._step is Step.IDLE:
            if chosen is not None and now - self._changed_at >= RECYCLE_QUIET:
                yield from self._begin(now, seen, *chosen)
            return
        worker = seen.get(self._name)
        if worker is None or worker.state == "stopped":
            self._set(Step.IDLE, now)
        elif self._step is Step.ANNOUNCED:
            yield from self._announced(now, seen, worker)
        elif self._step is Step.DRAINING:
            yield from self._draining(now, worker)
        elif self._step is Step.STOPPING:
            yield from self._stopping(now, worker)
        else:
            yield from self._starting(now, worker)

    def _announced(self, now: float, seen: dict[str, Seen], worker: Seen) -> Iterator[Action]:
        if self._has_ended(worker) or worker.state != "ready" or self._others_changed():
            self._set(Step.IDLE, now)
        elif now - self._since >= RECYCLE_NOTICE:
            others = any(other.state == "ready" for other in seen.values() if other is not worker)
            if others and not worker.takes:
                self._drained_since = None
                self._set(Step.DRAINING, now)
                yield Action(Do.DRAIN, worker.name)
            else:
                yield self._stop(now, worker)

    def _draining(self, now: float, worker: Seen) -> Iterator[Action]:
        if self._has_ended(worker):
            self._set(Step.IDLE, now)
        elif self._others_changed() or now - self._since >= RECYCLE_DRAIN:
            self._set(Step.IDLE, now)
            self._given_up[worker.name] = worker.process
            yield Action(Do.UNDRAIN, worker.name)
        elif worker.state != "drained":
            self._drained_since = None
            # Repeated, because the router may have died before it read the first one.
            yield Action(Do.DRAIN, worker.name)
        elif self._drained_since is None:
            self._drained_since = now
        elif now - self._drained_since >= DRAIN_TIME:
            yield self._stop(now, worker)

    def _undrain(self, seen: dict[str, Seen]) -> Iterator[Action]:
        """Undrain cancelled workers, repeatedly: a router may die before it reads the command, and
        its successor drains the same workers again, even those that register later.
        """
        for name, process in list(self._given_up.items()):
            worker = seen.get(name)
            if worker is None or worker.process != process:
                del self._given_up[name]
            elif worker.joined and worker.state != "drained":
                del self._given_up[name]
            else:
                yield Action(Do.UNDRAIN, name)

    def _stop(self, now: float, worker: Seen) -> Action:
        self.recycled[self._due.reason.value] += 1
        line = f"recycling {worker.name} (pid {worker.process}): {self._due.text}"
        if self._due.reason is Reason.MEMORY:
            pause = self._overdue.recycled(worker.name)
            if pause:
                line += (
                    f" within {RECYCLE_EARLY:g} s after it was ready; its next process runs for "
                    f"{pause:.0f} s at least"
                )
        self._set(Step.STOPPING, now)
        return Action(Do.STOP, worker.name, line)

    def _stopping(self, now: float, worker: Seen) -> Iterator[Action]:
        if self._has_ended(worker):
            self._set(Step.STARTING, now)
        elif now - self._since >= worker.stop_time and worker.name not in self._killed:
            reason = f"it has not ended within {worker.stop_time:g} s (stopwaitsecs)"
            yield self._kill(worker, reason)

    def _starting(self, now: float, worker: Seen) -> Iterator[Action]:
        if worker.state == "ready":
            self._set(Step.IDLE, now)
        elif worker.state in _FAILED or now - self._since >= RECYCLE_START:
            self._set(Step.IDLE, now)
            yield Action(
                Do.SAY,
                worker.name,
                f"{worker.name} was recycled, and its new process is not ready "
                f"({worker.state}): no further worker is recycled until it is",
            )

    def _set(self, step: Step, now: float) -> None:
        self._step, self._since = step, now

    def _has_ended(self, worker: Seen) -> bool:
        """Whether the process that is being recycled has ended; another one may run by now."""
        return self._worker is None or worker.process != self._worker.process

    def _marks_of_others(self) -> _Marks:
        return {name: mark for name, mark in self._marks.items() if name != self._name}

    def _others_changed(self) -> bool:
        return self._marks_of_others() != self._others
