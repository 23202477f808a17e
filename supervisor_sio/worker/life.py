"""What a worker under supervisord and one started by hand share: start, serving, shutdown."""

from __future__ import annotations

import logging
import os
import time
from typing import Any, Coroutine

from ..cluster import sessions
from ..cluster.run_once import Task
from ..common import descriptors
from ..common.limits import CLOSING_AT_ONCE
from ..common.request import Request
from ..engine.engine import Engine
from . import exits
from .application import ApplicationError
from .connection import Connection
from .recovery import recoveries
from .run_once import RunOnce
from .runtime import Runtime
from .server import Server
from .signals import Signals
from .tracebacks import FEW_TRACEBACKS

logger = logging.getLogger("supervisor_sio.worker")

#: Seconds between checks for the end of something.
_LOOK = 0.01

#: Seconds after ``drain_timeout`` to hand back the connections that arrived last.
_LAST_CONNECTIONS = 0.5

#: Least seconds for the application to shut down, and again for the other workers to receive
#: what this one has sent them.
_LAST_MESSAGES = 1.0

#: Seconds of ``drain_timeout`` reserved for sessions that are not passed on; at most half of it.
_LAST_SESSIONS = 1.0


class Life:
    """Runs an imported and checked application until the end of the process."""

    #: The tasks of ``run_once()`` in this process.
    run_once: RunOnce

    def __init__(self, app: Any, runtime: Runtime) -> None:
        descriptors.raise_limit()
        self.runtime = runtime
        self.server = Server(app, runtime, self.keeps, self.hand_back, self.changed)
        #: In seconds.
        self.drain_timeout = 10.0
        self.stopped = runtime.event()
        self.signals = Signals(runtime, self.stop)
        os.register_at_fork(after_in_child=self.abandon)

    def run(self) -> None:
        """Serve until the worker is stopped.

        :raises SystemExit: if the exit status is not 0, or the application calls ``sys.exit()``.
        """
        FEW_TRACEBACKS.look(self.runtime)
        try:
            status = self.runtime.run_until_complete(self.live())
        except SystemExit as error:
            text = "%s: the worker ends with status %d"
            logger.error(text, exits.describe(error), exits.status(error))
            raise
        self.wait_for_last_emits()
        if status:
            raise SystemExit(status)

    async def live(self) -> int:
        """Serve until :meth:`stop`, and drain.

        :return: the status of the process.
        """
        raise NotImplementedError

    async def start_up(self) -> None:
        """Run the application's startup until it has finished, or :meth:`stop` is called.

        Without it if the worker is already stopped: nothing would shut the application down.

        :raises ApplicationError: if the startup fails.
        """
        if self.stopped.is_set():
            return
        done = self.runtime.event()
        failed: list[ApplicationError] = []

        async def run() -> None:
            try:
                await self.runtime.start_up(self.server.app)
            except ApplicationError as error:
                failed.append(error)
            finally:
                done.set()

        task = self.runtime.spawn(run())
        while not done.is_set() and not self.stopped.is_set():
            await done.wait(_LOOK)
        task.cancel()
        if failed:
            raise failed[0]

    def take_tasks(self) -> None:
        """Run the functions of ``run_once()``, also those that are added later.

        :raises ApplicationError: if two managers use the same name for different functions.
        """
        for server in sessions.servers():
            try:
                server.manager.run_tasks_by(self._add_task)
            except ValueError as error:
                raise ApplicationError(str(error)) from None

    def _add_task(self, task: Task) -> None:
        """Add a task; may be called in any thread."""
        threads = self.runtime.threads
        if threads is None or threads.here:
            self.run_once.add(task)
        else:
            threads.run(0, self.run_once.add, task)

    def keeps(self, request: Request) -> bool:
        """Whether a request on a kept connection is for this worker."""
        return True

    def hand_back(self, connection: Connection, prefix: bytes) -> None:
        """See :class:`.Server`."""
        connection.moved(False)

    def changed(self) -> None:
        """The figures may have changed."""

    def stop(self) -> None:
        """Begin the shutdown; call it in the loop."""
        self.stopped.set()

    async def finish(self) -> None:
        """Pass the sessions on, or close them, and wait for requests in flight.

        Sessions are closed as if the connection broke, because clients then reconnect at once;
        after an orderly close they would not.
        """
        deadline = time.monotonic() + self.drain_timeout
        self.run_once.stop()
        self.server.draining = True
        self.server.release_idle()
        last = min(_LAST_SESSIONS, self.drain_timeout / 2)
        try:
            await self.pass_on(self.drain_timeout - last)
        except Exception:  # the remaining sessions are closed below
            logger.exception("error while passing sessions on")
        seconds = max(last, deadline - time.monotonic())
        await within(self.runtime, seconds, self._drain())
        await within(self.runtime, self._left(deadline), self.runtime.shut_down())
        await self.hand_over(self._left(deadline))
        await self.leave()
        await within(self.runtime, _LAST_CONNECTIONS, self._wait_for_connections())

    async def pass_on(self, seconds: float) -> None:
        """Pass the sessions on to another process, where that is possible.

        :param seconds: the time to do so.
        """

    @staticmethod
    def _left(deadline: float) -> float:
        return max(_LAST_MESSAGES, deadline - time.monotonic())

    async def is_last(self) -> bool:
        """Whether no other process will take over the lost clients."""
        return True

    async def _end_recovery(self) -> None:
        """Stop recovery here: another worker takes the lost clients over, or they are expired."""
        ending = recoveries(self.runtime)
        if not ending:
            return
        is_last = await self.is_last()
        for recovery in ending:
            if is_last:
                recovery.finish()
            else:
                recovery.close()

    async def _drain(self) -> None:
        await self._end_recovery()
        await self._close_sessions()
        self.server.end_websockets()
        # A lost client's handler that does not finish in time is called again by its next worker.
        while self._has_connections or any(one.has_handlers for one in recoveries(self.runtime)):
            await self.runtime.sleep(2 * _LOOK)
            # Also close sessions whose handshakes have ended since, so that no poll stays pending.
            await self._close_sessions()
        await self._close_sessions()  # also sessions without a connection
        await self.signals.wait()

    async def _close_sessions(self) -> None:
        """Disconnect all clients, with at most ``CLOSING_AT_ONCE`` handlers at a time."""
        open_ones = [(engine, sid) for engine in self.runtime.engines for sid in engine.sessions]
        closing: list[tuple[Engine, str]] = []
        while open_ones or closing:
            before = len(closing)
            closing = [one for one in closing if has_handler(*one)]
            stuck = len(closing) == before == CLOSING_AT_ONCE or not open_ones
            while open_ones and len(closing) < CLOSING_AT_ONCE:
                one = open_ones.pop()
                if close_session(*one):
                    closing.append(one)
            await self.runtime.sleep(_LOOK if stuck else 0)

    @property
    def _has_connections(self) -> bool:
        return bool(self.server.connections) or self.runtime.busy or self.run_once.unfinished

    async def _wait_for_connections(self) -> None:
        while self._has_connections:
            await self.runtime.sleep(2 * _LOOK)

    async def hand_over(self, timeout: float) -> None:
        """Wait until the other processes have received what this one has sent them.

        :param timeout: most seconds to wait.
        """

    async def leave(self) -> None:
        """Make sure that no new connections arrive."""

    def wait_for_last_emits(self) -> None:
        """Wait until the other processes have received what the application has sent until its
        loop ended; this may block."""

    def abandon(self) -> None:
        """In a forked child: release everything that belongs to the parent."""
        self.runtime.leave_in_child(_close_managers)
        self.signals.release()
        self.server.abandon()
        sessions.abandon()


def close_session(engine: Engine, sid: str) -> bool:
    """Close a session as if its connection broke.

    :return: whether its disconnect handlers will run soon.
    """
    session = engine.sessions.get(sid)
    if session is None:
        return False  # it has ended meanwhile
    try:
        session.close(abort=True)
    except Exception:
        logger.exception("error while closing session %s", sid)
        return False
    return True


def has_handler(engine: Engine, sid: str) -> bool:
    """Whether a disconnect handler of a closed session has yet to finish."""
    session = engine.sessions.get(sid)
    # A forgotten session has no handler left, even if it waits for its last poll.
    return session is not None and not session.forgotten


async def within(runtime: Runtime, seconds: float, coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine, and cancel it after this many seconds."""
    done = runtime.event()

    async def run() -> None:
        try:
            await coroutine
        finally:
            done.set()

    task = runtime.spawn(run())
    if not await done.wait(seconds):
        task.cancel()


def _close_managers() -> None:
    for server in sessions.servers():
        server.manager.finish()
