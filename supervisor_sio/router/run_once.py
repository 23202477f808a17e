"""The tasks of ``manager.run_once()``: the router gives each task to one worker at a time.

The states of a task:

========  =====================================================  ===================================
state     what happens                                           then
========  =====================================================  ===================================
(none)    a worker wants it, or holds it                         FREE, or HELD
FREE      ``until`` is over, and a healthy worker wants it       OFFERED to that worker
OFFERED   that worker says that it holds it                      HELD
          RUN_ONCE_OFFER is over                                 FREE
HELD      its worker renews its lease                            HELD for RUN_ONCE_LEASE from now on
          its worker gives it back, or has not renewed its       FREE
          lease in time
          its function has failed                                FREE after a pause
OFFERED,  the process of that worker has ended                   FREE
HELD      its channel has ended, but not its process             HELD for RUN_ONCE_LEASE: the worker
                                                                 may have renewed its lease, and may
                                                                 connect again
          its function has returned                              DONE
any       no connected worker knows it, and none holds it        (none)
========  =====================================================  ===================================

A new router does not know which tasks its predecessor has given away. Workers that hold tasks say
so when they connect, which they do before this router reads. A task that no worker has claimed is
FREE only when the last lease that the predecessor can have given is over; likewise after a
supervisord that was killed, because its workers may hold leases of its router.

The number of a task grows each time the task is given away: it is the time in milliseconds since
the epoch, or the largest number so far plus one. So it also grows over restarts of the router, of
supervisord and of the host, unless the host's clock is set back meanwhile.
"""

from __future__ import annotations

import itertools
import logging
import time
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Callable, NamedTuple, Optional, Protocol

from ..common import run_once
from ..common.channel import Message
from ..common.limits import RUN_ONCE_LEASE, RUN_ONCE_OFFER, RUN_ONCE_PAUSE, RUN_ONCE_TASKS
from ..common.run_once import End, Word
from .carrier import Carrier

logger = logging.getLogger("supervisor_sio.router")

#: Seconds until the next attempt when the messages of some worker cannot be read.
_RETRY = 0.25


class State(Enum):
    FREE = auto()
    OFFERED = auto()
    HELD = auto()
    DONE = auto()


class Timer(Protocol):
    def cancel(self) -> None: ...


@dataclass(eq=False)
class _Task:
    name: str
    #: In FREE, the time from which it may be offered; in other states, when they end. 0 for none.
    until: float
    #: When the state began; in HELD, when the function began.
    since: float
    state: State = State.FREE
    #: The number under which it was offered or is held; no worker can hold it under a smaller one.
    number: int = 0
    #: The tag of the worker to which it was offered, or that holds it.
    holder: str = ""
    #: By the tags of the workers that want it, in the order in which they came: the number of
    #: offers that they did not accept.
    wanted_by: dict[str, int] = field(default_factory=dict)
    #: The tags of all workers that know its function.
    known_by: set[str] = field(default_factory=set)
    #: Since this router's start: how often a worker began it, and how often it failed.
    given: int = 0
    failed: int = 0
    #: Failures in a row, since it was done or has run for RUN_ONCE_PAUSE.
    failures: int = 0


class Row(NamedTuple):
    """A task in the status."""

    name: str
    #: ``running``, ``waiting``, ``failed`` or ``done``.
    state: str
    #: The tag of the worker that runs it.
    tag: str
    number: int
    #: Seconds in that state.
    seconds: int
    #: Seconds until it is retried.
    pause: int
    #: Failures in a row.
    failures: int
    #: Since the router's start: how often a worker began it, and how often it failed.
    given: int
    failed: int


class RunOnce:
    """All tasks, and the workers that hold them.

    :param carrier_of: returns the channel to the worker with a tag, if it is connected.
    :param catch_up: accepts waiting workers, and handles all messages that workers have sent; false
        when that is not possible now.
    :param all_stop: whether supervisord stops all its processes.
    :param call_later: calls a function after this many seconds.
    :param sure_at: until then, a worker may hold a task of an earlier router without having said
        so to this one; in seconds of ``clock``.
    """

    def __init__(
        self,
        carrier_of: Callable[[str], Optional[Carrier]],
        catch_up: Callable[[], bool],
        all_stop: Callable[[], bool],
        call_later: Callable[[float, Callable[[], None]], Timer],
        sure_at: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._carrier_of = carrier_of
        self._catch_up = catch_up
        self._all_stop = all_stop
        self._call_later = call_later
        self._sure_at = sure_at
        self._clock = clock
        self._wall = wall
        self._tasks: dict[str, _Task] = {}
        #: The largest number so far.
        self._last = 0
        self._timer: Optional[Timer] = None
        self._timer_at = 0.0
        self._looking = False

    # --- messages from workers ----------------------------------------------------------

    @staticmethod
    def handles(kind: str) -> bool:
        """Whether :meth:`handle` takes messages of this type."""
        return run_once.handles(kind)

    def handle(self, carrier: Carrier, message: Message) -> None:
        """:raises ChannelError: when the message is malformed."""
        kind = message["type"]
        if kind == "task":
            self._take_word(carrier, run_once.read_name(message), run_once.read_word(message))
        elif kind == "task-holds":
            held, seconds = run_once.read_held(message), run_once.read_seconds(message)
            self._take_claim(carrier, *held, seconds)
        elif kind == "task-ends":
            self._take_end(carrier, *run_once.read_held(message), run_once.read_end(message))
        self.look()

    def _take_word(self, carrier: Carrier, name: str, word: Word) -> None:
        task = self._task(carrier, name)
        if task is None:
            return
        tag = _tag(carrier)
        task.known_by.add(tag)
        if word is Word.WANTS:
            task.wanted_by.setdefault(tag, 0)
        else:
            task.wanted_by.pop(tag, None)
        if word is Word.DONE and task.state is State.FREE:
            self._set(task, State.DONE)
        if word is Word.WANTS and task.state is State.DONE:
            carrier.tell(run_once.done(name))

    def _task(self, carrier: Carrier, name: str) -> Optional[_Task]:
        task = self._tasks.get(name)
        if task is None:
            if len(self._tasks) >= RUN_ONCE_TASKS:
                who = carrier.member.name if carrier.member is not None else ""
                text = "task %s of worker %s is not run: there are %d tasks already"
                logger.error(text, name, who, RUN_ONCE_TASKS)
                return None
            task = self._tasks[name] = _Task(name, self._sure_at, self._clock())
        return task

    def _take_claim(self, carrier: Carrier, name: str, number: int, seconds: float) -> None:
        task = self._task(carrier, name)
        tag, now = _tag(carrier), self._clock()
        if task is None or task.state is State.DONE or number < task.number:
            carrier.tell(run_once.lost(name, number))
            return
        self._last = max(self._last, number)
        task.known_by.add(tag)
        if (task.state, task.holder, task.number) != (State.HELD, tag, number):
            other = self._carrier_of(task.holder) if task.holder not in ("", tag) else None
            if other is not None:
                other.tell(run_once.lost(name, task.number))
            if task.state is State.OFFERED and task.holder == tag:
                task.given += 1
                text = "task %s: worker %s runs it (number %d)"
                logger.info(text, name, _name(carrier), number)
            self._set(task, State.HELD, tag, number)
            task.since = now - seconds
            if tag in task.wanted_by:
                task.wanted_by[tag] = 0
        task.until = now + RUN_ONCE_LEASE

    def _take_end(self, carrier: Carrier, name: str, number: int, end: End) -> None:
        task = self._tasks.get(name)
        if task is None or (task.holder, task.number) != (_tag(carrier), number):
            return
        if task.state not in (State.OFFERED, State.HELD):
            return
        if end is End.DONE:
            logger.info("task %s is done: it has returned at worker %s", name, _name(carrier))
            self._set(task, State.DONE)
            for tag in list(task.known_by):  # a worker may be lost while it is told
                other = self._carrier_of(tag)
                if other is not None and other is not carrier:
                    other.tell(run_once.done(name))
        elif end is End.FAILED:
            self._fail(task, carrier)
        else:
            self._free(task)

    def _fail(self, task: _Task, carrier: Carrier) -> None:
        self._free(task)
        task.failed += 1
        task.failures += 1
        pause = float(min(2 ** min(task.failures - 1, 10), RUN_ONCE_PAUSE))
        text = "task %s has failed at worker %s, next try in %g s"
        logger.warning(text, task.name, _name(carrier), pause)
        tag = _tag(carrier)
        if tag in task.wanted_by:
            # All other workers are asked before it.
            task.wanted_by[tag] = max(task.wanted_by.values()) + 1
        task.until = self._clock() + pause

    def _set(self, task: _Task, state: State, holder: str = "", number: int = 0) -> None:
        now = self._clock()
        ran_long = task.state is State.HELD and now - task.since >= RUN_ONCE_PAUSE
        if ran_long or state is State.DONE:
            task.failures = 0
        task.state, task.holder, task.since = state, holder, now
        task.number = max(task.number, number)
        task.until = 0.0

    def _free(self, task: _Task) -> None:
        """Free a task whose worker no longer holds it, and cannot renew its lease."""
        self._set(task, State.FREE, number=task.number + 1)

    # --- events of workers ----------------------------------------------------------------

    def has(self, tag: str) -> bool:
        """Whether the worker with this tag may run a task."""
        return any(task.holder == tag for task in self._tasks.values())

    def lost(self, carrier: Carrier) -> None:
        """The channel to a worker has ended; see :meth:`died` for its process."""
        tag, now = _tag(carrier), self._clock()
        for task in list(self._tasks.values()):
            task.wanted_by.pop(tag, None)
            task.known_by.discard(tag)
            if task.holder == tag:
                # Its last renewal, or its answer to the offer, may not have been read.
                task.state, task.until = State.HELD, now + RUN_ONCE_LEASE
        self._forget()
        self.look()

    def died(self, tag: str) -> None:
        """The process of a worker has ended."""
        for task in self._tasks.values():
            if task.holder == tag:
                logger.info("task %s: the process of its worker has ended", task.name)
                self._free(task)
        self._forget()
        self.look()

    def _forget(self) -> None:
        """Drop the tasks that no worker holds or knows."""
        for name, task in list(self._tasks.items()):
            if not task.known_by and not task.holder:
                del self._tasks[name]

    # --- giving tasks away ----------------------------------------------------------------

    def look(self) -> None:
        """Offer free tasks; called whenever a worker for them may have become ready."""
        if self._looking:
            return
        self._looking = True
        try:
            # The time before reading: a lease that ends later may be renewed by an unread message.
            now = self._clock()
            if self._is_due(now) and not self._catch_up():
                self._look_at(self._clock() + _RETRY)
                return
            for task in list(self._tasks.values()):
                self._look_after(task, now)
            self._forget()
        finally:
            self._looking = False
        self._look_later()

    def _is_due(self, now: float) -> bool:
        """Whether the time of a task is over, so that unread messages must be read first."""
        return any(task.until and now >= task.until for task in self._tasks.values())

    def _look_after(self, task: _Task, now: float) -> None:
        if task.until and now < task.until:
            return
        if task.state is State.HELD:
            text = "task %s: its worker has not renewed its lease for %g s"
            logger.warning(text, task.name, RUN_ONCE_LEASE)
        if task.state in (State.HELD, State.OFFERED):
            # If the worker was only late, it may still claim the task before another worker has it.
            self._set(task, State.FREE)
        if task.state is State.FREE:
            task.until = 0.0
            if not self._all_stop():
                self._offer(task)

    def _offer(self, task: _Task) -> None:
        carrier = self._choose(task)
        if carrier is None:
            return
        tag = _tag(carrier)
        number = max(int(self._wall() * 1000), self._last + 1, task.number + 1)
        self._last = number
        task.wanted_by[tag] += 1  # reset when it accepts
        self._set(task, State.OFFERED, tag, number)
        task.until = self._clock() + RUN_ONCE_OFFER
        carrier.tell(run_once.offer(task.name, number, task.until))

    def _choose(self, task: _Task) -> Optional[Carrier]:
        """The worker that ignored the fewest offers and has the fewest tasks; of these the
        youngest, so that a task moves only once while all workers restart one after the other."""
        order = itertools.count()
        found: list[tuple[tuple[int, bool, int, int], Carrier]] = []
        for tag, in_vain in task.wanted_by.items():
            carrier, age = self._carrier_of(tag), next(order)
            member = carrier.member if carrier is not None else None
            if carrier is None or member is None or not member.ready:
                continue
            if member.draining or member.hung:
                continue
            tasks = sum(other.holder == tag for other in self._tasks.values())
            found.append(((in_vain, member.drained, tasks, -age), carrier))
        return min(found, key=lambda one: one[0])[1] if found else None

    def _look_later(self) -> None:
        times = [task.until for task in self._tasks.values() if task.until]
        if times:
            self._look_at(min(times))

    def _look_at(self, when: float) -> None:
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._call_later(max(0.0, when - self._clock()), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.look()

    # --- the status -----------------------------------------------------------------------

    def rows(self) -> list[Row]:
        now = self._clock()
        return [self._row(task, now) for _, task in sorted(self._tasks.items())]

    @staticmethod
    def _row(task: _Task, now: float) -> Row:
        state = {State.HELD: "running", State.DONE: "done"}.get(task.state, "waiting")
        pause = 0.0
        if task.state is State.FREE and task.failures and task.until > now:
            state, pause = "failed", task.until - now
        tag = task.holder if task.state is State.HELD else ""
        counted = task.failures, task.given, task.failed
        return Row(
            task.name, state, tag, task.number, int(now - task.since), int(pause + 0.5), *counted
        )


def _tag(carrier: Carrier) -> str:
    assert carrier.member is not None
    return carrier.member.tag


def _name(carrier: Carrier) -> Any:
    assert carrier.member is not None
    return carrier.member.name
