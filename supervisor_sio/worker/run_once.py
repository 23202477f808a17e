"""The functions of ``manager.run_once()`` in one worker: when they run, and when they end.

=======  ======================================================  ===============================
state    what happens                                            then
=======  ======================================================  ===============================
WAITING  the router offers the task, and this worker answers     RUNNING
         before the offer is over
RUNNING  this worker has said once more that it holds it, and    RUNNING for RUN_ONCE_LEASE from
         before the end of its lease                             before that
         the end of its lease comes, or the router has given     LOST
         the task to another worker
         the function returns                                    DONE
         the function raises                                     WAITING
         this worker ends                                        ENDING
ENDING   the lease as with RUNNING                               ENDING, or LOST
         the function has ended                                  OVER: the router may give it away
LOST     the function has ended                                  WAITING, or OVER
WAITING  another worker's function has returned                  DONE
         this worker ends                                        OVER
=======  ======================================================  ===============================

When the router is gone the worker connects again: the socket is supervisord's. It says there what
it runs, and goes on for as long as no router has said anything on that connection: the next one
reads what waits there before it gives anything away.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import Any, Callable, Optional, Protocol, Union

from ..cluster.run_once import AsyncLease, Lease, Task
from ..common import run_once
from ..common.channel import Message
from ..common.limits import RUN_ONCE_LEASE, RUN_ONCE_RENEWAL
from ..common.run_once import End, Word

logger = logging.getLogger("supervisor_sio.worker")


class State(Enum):
    WAITING = auto()
    RUNNING = auto()
    ENDING = auto()
    LOST = auto()
    DONE = auto()
    OVER = auto()


#: Those in which this worker has a lease.
_HOLDS = frozenset((State.RUNNING, State.ENDING))


class Watch(Protocol):
    def cancel(self) -> None: ...


class Router(Protocol):
    """What the worker says goes to it; see :class:`.Link`."""

    #: Counts the connections.
    generation: int

    @property
    def unanswered(self) -> bool:
        """Whether no router has said anything on this connection yet."""

    def say_now(self, message: Message) -> bool:
        """Whether a router will read it, whatever becomes of this process."""

    def post(self, message: Message) -> None:
        """Send it soon, if there is a connection."""


class Runner(Protocol):
    """What runs functions: a part of :class:`.Runtime`."""

    #: Whether functions run in threads, which cannot be ended.
    has_threads: bool

    def call_later(self, seconds: float, task: Callable[..., Any], *args: Any) -> Watch: ...

    def run_apart(
        self,
        name: str,
        function: Callable[[], Any],
        may_run: Callable[[], bool],
        ended: Callable[[Optional[BaseException]], None],
    ) -> Watch: ...

    def log(
        self,
        logger: logging.Logger,
        level: int,
        message: str,
        *args: Any,
        exc_info: Optional[BaseException] = None,
    ) -> None: ...


@dataclass(eq=False)
class _Run:
    """A task in this process."""

    task: Task
    state: State = State.WAITING
    lease: Optional[Union[Lease, AsyncLease]] = None
    running: Optional[Watch] = None
    #: When the function was called, by the clock.
    since: float = 0.0
    #: The connection on which a router was told of it.
    told: int = 0


class RunOnce:
    """All tasks of this process; in the loop.

    :param clock: seconds of the host's monotonic clock.
    """

    def __init__(
        self, runner: Runner, router: Router, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._runner = runner
        self._router = router
        self._clock = clock
        self._runs: dict[str, _Run] = {}
        #: Whether a router is there that knows of tasks.
        self._welcome = False
        self._stopping = False

    def add(self, task: Task) -> None:
        """:raises ValueError: when another function has the name."""
        known = self._runs.get(task.name)
        if known is not None:
            if known.task.function != task.function:
                raise ValueError(f"run_once({task.name!r}): two managers have a function for it")
            return
        run = self._runs[task.name] = _Run(task)
        if self._stopping:
            run.state = State.OVER
        self._tell(run)

    @property
    def unfinished(self) -> bool:
        """Whether a function is about to end: not one in a thread that cannot know of it."""
        return any(
            run.state in (State.ENDING, State.LOST)
            and (run.task.takes_lease or not self._runner.has_threads)
            for run in self._runs.values()
        )

    def state(self, name: str) -> State:
        return self._runs[name].state

    # --- the router -----------------------------------------------------------------------

    def greet(self) -> None:
        """There is a new connection, on which nothing has been said of tasks."""
        self._welcome = False
        for run in self._runs.values():
            if run.state in _HOLDS:
                self._renew(run)

    def welcome(self, knows: bool) -> None:
        """A router has answered.

        :param knows: whether it knows of tasks: it may have been started by an older version.
        """
        self._welcome = knows
        if self._runs and not knows:
            text = "the router is of an older version, and runs no tasks: restart it"
            self._runner.log(logger, logging.ERROR, text)
        for run in self._runs.values():
            self._tell(run)

    def _tell(self, run: _Run) -> None:
        """What this worker makes of a task."""
        if self._welcome:
            words = {State.WAITING: Word.WANTS, State.RUNNING: Word.WANTS, State.DONE: Word.DONE}
            self._router.post(run_once.task(run.task.name, words.get(run.state, Word.RESTS)))

    def handle(self, message: Message) -> None:
        """:raises ChannelError: when it is not as it should be."""
        run = self._runs.get(run_once.read_name(message))
        if run is None:
            return
        kind = message["type"]
        if kind == "task-offer":
            held, until = run_once.read_held(message), run_once.read_until(message)
            if run.state is State.WAITING and not self._stopping:
                self._take(run, held.number, until)
        elif kind == "task-lost":
            number = run_once.read_held(message).number
            if run.state in _HOLDS and run.lease is not None and run.lease.number == number:
                self._lose(run, "the router has given it to another worker")
        elif kind == "task-done" and run.state is State.WAITING:
            self._set(run, State.DONE)

    def _set(self, run: _Run, state: State) -> None:
        run.state = state
        self._tell(run)

    # --- the lease ------------------------------------------------------------------------

    def _take(self, run: _Run, number: int, until: float) -> None:
        """Answer an offer."""
        name, began = run.task.name, self._clock()
        if began >= until or not self._router.say_now(run_once.holds(name, number, 0)):
            return
        if self._clock() >= until:  # another one may have been asked
            self._router.post(run_once.ends(name, number, End.GIVEN_BACK))
            return
        run.told, run.since = self._router.generation, began
        lease = run.lease = run.task.lease(number, began + RUN_ONCE_LEASE)
        run.state = State.RUNNING
        self._runner.log(logger, logging.INFO, "task %s runs here (number %d)", name, number)
        self._runner.call_later(RUN_ONCE_RENEWAL, self._look, run, lease)

        def ended(error: Optional[BaseException]) -> None:
            self._ended(run, error)

        call = partial(run.task.call, lease)
        try:
            run.running = self._runner.run_apart(name, call, lease.in_time, ended)
        except RuntimeError as error:  # the system allows no more threads
            self._ended(run, error)

    def _look(self, run: _Run, lease: Union[Lease, AsyncLease]) -> None:
        """Renew it, or note its end, for as long as the function has it."""
        if run.lease is not lease or run.state not in _HOLDS:
            return
        self._renew(run)
        left = lease.until - self._clock()
        if left <= 0:
            self._lose(run, "this worker could not say in time that it runs it")
        else:
            self._runner.call_later(min(RUN_ONCE_RENEWAL, left), self._look, run, lease)

    def _renew(self, run: _Run) -> None:
        lease, began = run.lease, self._clock()
        assert lease is not None
        if began >= lease.until:
            return
        if not (run.told == self._router.generation and self._router.unanswered):
            holds = run_once.holds(run.task.name, lease.number, began - run.since)
            if not self._router.say_now(holds):
                return
            run.told = self._router.generation
        if self._clock() < lease.until:  # else another one may have got it before that
            lease.renew(began + RUN_ONCE_LEASE)

    def _lose(self, run: _Run, reason: str) -> None:
        assert run.lease is not None and run.running is not None
        self._set(run, State.LOST)
        self._runner.log(logger, logging.WARNING, "task %s ends: %s", run.task.name, reason)
        run.lease.lose()
        run.running.cancel()

    # --- the end --------------------------------------------------------------------------

    def _ended(self, run: _Run, error: Optional[BaseException]) -> None:
        """The function has returned, or raised."""
        state, lease, name = run.state, run.lease, run.task.name
        assert lease is not None
        in_time = self._clock() < lease.until
        lease.lose()
        run.lease = run.running = None
        if state is State.RUNNING and in_time:
            if error is None:
                self._runner.log(logger, logging.INFO, "task %s is done", name)
                run.state, end = State.DONE, End.DONE
            else:
                self._runner.log(logger, logging.ERROR, "task %s failed", name, exc_info=error)
                run.state, end = State.WAITING, End.FAILED
            self._router.post(run_once.ends(name, lease.number, end))
        else:
            if isinstance(error, Exception):
                self._runner.log(logger, logging.ERROR, "task %s", name, exc_info=error)
            if state is State.ENDING:
                self._router.post(run_once.ends(name, lease.number, End.GIVEN_BACK))
            self._set(run, State.OVER if self._stopping else State.WAITING)

    def stop(self) -> None:
        """This worker ends: give each back as soon as its function has ended."""
        self._stopping = True
        for run in self._runs.values():
            if run.state is State.RUNNING:
                assert run.lease is not None and run.running is not None
                self._set(run, State.ENDING)
                run.lease.end()
                run.running.cancel()
            elif run.state in (State.WAITING, State.DONE):
                self._set(run, State.OVER)

    def abandon(self) -> None:
        """In a forked child: the tasks are the parent's."""
        for run in self._runs.values():
            run.state = State.OVER
            if run.lease is not None:
                run.lease.abandon()
        self._runs.clear()
