"""The functions of ``manager.run_once()`` in one worker: when they start, and when they end.

=======  ======================================================  ===============================
state    event                                                   next state
=======  ======================================================  ===============================
WAITING  the router offers the task, and this worker answers     RUNNING
         before the offer expires
RUNNING  this worker renews its lease before the lease ends      RUNNING for RUN_ONCE_LEASE from
                                                                 the start of the renewal
         the lease expires, or the router has given the task     LOST
         to another worker
         the function returns                                    DONE
         the function raises                                     WAITING
         this worker stops                                       ENDING
ENDING   the lease is renewed, or ends, as in RUNNING            ENDING, or LOST
         the function has ended                                  OVER: the router may reassign it
LOST     the function has ended                                  WAITING, or OVER
WAITING  another worker's function has returned                  DONE
         this worker stops                                       OVER
=======  ======================================================  ===============================

When the router ends, the worker connects again, to the socket that supervisord owns. It sends there
which tasks it runs, and continues them until a router answers on that connection: the next router
reads all pending messages before it assigns a task.
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


#: The states in which this worker has a lease.
_HOLDS = frozenset((State.RUNNING, State.ENDING))


class Watch(Protocol):
    def cancel(self) -> None: ...


class Router(Protocol):
    """Sends messages to the router; see :class:`.Link`."""

    #: The number of the current connection.
    generation: int

    @property
    def unanswered(self) -> bool:
        """Whether no router has sent anything on this connection yet."""

    def say_now(self, message: Message) -> bool:
        """Send a message now; true if a router will read it, even if this process ends."""

    def post(self, message: Message) -> None:
        """Send a message soon; without a connection, drop it."""


class Runner(Protocol):
    """Runs functions: a part of :class:`.Runtime`."""

    #: Whether functions run in threads, which cannot be cancelled.
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
    #: When the function was called, by :class:`RunOnce`'s clock.
    since: float = 0.0
    #: The number of the connection on which the run was last reported.
    told: int = 0


class RunOnce:
    """All tasks of this process. Call all methods in the loop.

    :param clock: returns seconds of the host's monotonic clock.
    """

    def __init__(
        self, runner: Runner, router: Router, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._runner = runner
        self._router = router
        self._clock = clock
        self._runs: dict[str, _Run] = {}
        #: Whether a router is connected that supports tasks.
        self._welcome = False
        self._stopping = False

    def add(self, task: Task) -> None:
        """Add a task.

        :raises ValueError: if the name belongs to another function.
        """
        known = self._runs.get(task.name)
        if known is not None:
            if known.task.function != task.function:
                raise ValueError(f"run_once({task.name!r}): two managers have a task of this name")
            return
        run = self._runs[task.name] = _Run(task)
        if self._stopping:
            run.state = State.OVER
        self._tell(run)

    @property
    def unfinished(self) -> bool:
        """Whether a function was asked to end and has not; without threads that cannot be asked."""
        return any(
            run.state in (State.ENDING, State.LOST)
            and (run.task.takes_lease or not self._runner.has_threads)
            for run in self._runs.values()
        )

    def state(self, name: str) -> State:
        return self._runs[name].state

    # --- the router -----------------------------------------------------------------------

    def greet(self) -> None:
        """On a new connection: report the running tasks."""
        self._welcome = False
        for run in self._runs.values():
            if run.state in _HOLDS:
                self._renew(run)

    def welcome(self, knows: bool) -> None:
        """A router has answered on the new connection.

        :param knows: whether it supports tasks: its release may be older than that of the worker.
        """
        self._welcome = knows
        if self._runs and not knows:
            text = "the router runs an older release, which does not support tasks: restart it"
            self._runner.log(logger, logging.ERROR, text)
        for run in self._runs.values():
            self._tell(run)

    def _tell(self, run: _Run) -> None:
        """Tell the router the state of a task in this worker."""
        if self._welcome:
            words = {State.WAITING: Word.WANTS, State.RUNNING: Word.WANTS, State.DONE: Word.DONE}
            self._router.post(run_once.task(run.task.name, words.get(run.state, Word.RESTS)))

    def handle(self, message: Message) -> None:
        """Handle a message of the router.

        :raises ChannelError: if it is malformed.
        """
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
        """Accept an offer and start the function, unless the offer has expired."""
        name, began = run.task.name, self._clock()
        if began >= until or not self._router.say_now(run_once.holds(name, number, 0)):
            return
        if self._clock() >= until:  # the router may have offered the task to another worker
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
        except RuntimeError as error:  # no thread could be started
            self._ended(run, error)

    def _look(self, run: _Run, lease: Union[Lease, AsyncLease]) -> None:
        """Renew the lease, or notice that it has expired, as long as the function runs."""
        if run.lease is not lease or run.state not in _HOLDS:
            return
        self._renew(run)
        left = lease.until - self._clock()
        if left <= 0:
            self._lose(run, "this worker could not renew its lease in time")
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
        if self._clock() < lease.until:  # otherwise another worker may have it by now
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
                self._runner.log(
                    logger, logging.ERROR, "task %s failed while ending", name, exc_info=error
                )
            if state is State.ENDING:
                self._router.post(run_once.ends(name, lease.number, End.GIVEN_BACK))
            self._set(run, State.OVER if self._stopping else State.WAITING)

    def stop(self) -> None:
        """The worker stops: end all functions, and give each task back when it has ended."""
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
        """In a forked child: drop all tasks, which are the parent's."""
        for run in self._runs.values():
            run.state = State.OVER
            if run.lease is not None:
                run.lease.abandon()
        self._runs.clear()
