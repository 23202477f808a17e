"""A worker under supervisord, which gets its connections from the router."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import Counter
from functools import partial
from typing import Any, Callable, Union

from ..cluster import environs, sessions
from ..common import figures, identity, reasons, recovery, takeover
from ..common.channel import Message
from ..common.handover import Handover
from ..common.modes import ASYNCIO
from ..common.request import Kind, Request
from ..common.rundir import RunDir
from . import forks, queries
from .access import AccessLog
from .adoption import Adopter
from .application import ApplicationError, check_path, mode_for
from .claims import Said, no_answer
from .connection import Connection
from .event_reports import EventReports
from .lag import LoopLag
from .life import Life, within
from .link import Link, Refused
from .recovery import Recovery, recoveries
from .refused import refusals
from .runtime import Runtime
from .takeover import Departure, homes

logger = logging.getLogger("supervisor_sio.worker")

#: Seconds between checks whether a router has sent its settings.
_WAIT_FOR_ROUTER = 0.05

#: Most seconds to wait for supervisord's signal, and the end of the application's handler for it.
_SIGNAL_TIMEOUT = 2.0

#: The fraction of the time for passing on sessions that is used to wait for arriving ones.
_PART_FOR_ARRIVALS = 0.5


class Worker(Life):
    """A worker under supervisord."""

    def __init__(self, app: Any, runtime: Runtime, run_dir: RunDir) -> None:
        super().__init__(app, runtime)
        self._app = app
        self._run_dir = run_dir
        #: How many handshakes that the current router has placed here the figures include.
        self._handshakes = 0
        self._tag = identity.tag()
        self._refused: Union[Refused, ApplicationError, None] = None
        #: Whether supervisord stops this worker.
        self._stop_wanted = False
        self.link = Link(
            runtime,
            run_dir,
            self._take_settings,
            self._take_connection,
            self._lose_connection,
            self._figures,
            self._take_members,
            lambda question: runtime.spawn(self._answer(question)),
            self._answer_claim,
            self._stopping,
            self._refuse,
        )
        self.run_once = self.link.run_once
        self._lag = LoopLag(runtime)
        self._event_reports = EventReports(runtime, self.link)
        self._departure = Departure(runtime, self.server, self.link)
        self._adopter = Adopter(runtime, self.server, self.link)

    async def live(self) -> int:
        managers = [server.manager for server in sessions.servers()]
        if not managers:
            is_async = mode_for(self._app) is ASYNCIO
            logger.warning("%s", sessions.why_no_manager(is_async=is_async))
        self._lag.start()
        self._prepare_recovery()
        self.link.start()
        for server in sessions.servers():
            # python-socketio does this when the first client connects; a ready worker has to
            # receive the emits of other workers before.
            if not server.manager_initialized:
                server.manager_initialized = True
                try:
                    server.manager.initialize()
                except RuntimeError as error:  # two managers have the same channel
                    raise ApplicationError(str(error)) from None
        for manager in managers:
            await manager.wait_joined(self.stopped.is_set, self.runtime.sleep)
        await self.start_up()
        environs.serve(self._app, self.runtime.lifespan_state)
        while not self.server.paths and not self.stopped.is_set():
            await self.runtime.sleep(_WAIT_FOR_ROUTER)
        if not self.stopped.is_set():
            takes = takeover.FORMAT if homes(self.runtime) else 0
            recovers = any(one.manager.recovers for one in recoveries(self.runtime))
            if takes or recovers:
                self.link.adopt_by(self._adopter, takes, recovery.FORMAT if recovers else 0)
            self.take_tasks()
            self.link.ready({manager.hears: manager.tally for manager in managers if manager.hears})
            logger.info("ready (tag %s)", self._tag)
        await self.stopped.wait()
        has_router = self.link.welcomed
        self.link.draining()
        await self.finish()
        # supervisord announces the stop before it sends the signal, for which the application may
        # have a handler.
        await within(self.runtime, _SIGNAL_TIMEOUT, self._wait_for_signal())
        for one in recoveries(self.runtime):
            one.manager.close_journal()
        self.link.close()
        return self._status(has_router)

    def _prepare_recovery(self) -> None:
        """Register the managers' journals with the router, and let them ask other workers."""
        if recoveries(self.runtime):
            self.runtime.prepare_threads()  # segments are started in any thread
        for one in recoveries(self.runtime):
            one.ask_others = self.link.claims.ask
            one.manager.keep_journal_by(
                partial(self._segment_begun, one), partial(one.in_loop, self._drop_segment, one)
            )

    def _segment_begun(self, one: Recovery, log: str, number: int, descriptor: int) -> None:
        """A journal has started a segment; it calls this in any thread, and waits for it."""
        one.in_loop(self._keep_segment, one, log, number, os.dup(descriptor))

    def _keep_segment(self, one: Recovery, log: str, number: int, descriptor: int) -> None:
        seconds = one.manager.recovery
        source = recovery.Source(self._tag, one.manager.hears or "")
        segment = recovery.Segment(source, log, number, recovery.FORMAT, seconds, None)
        self.link.journals.add(segment, descriptor)

    def _drop_segment(self, one: Recovery, log: str, number: int) -> None:
        self.link.journals.drop(recovery.Source(self._tag, one.manager.hears or ""), log, number)

    def _answer_claim(self, question: Said, answered: Callable[[Said], None]) -> None:
        for one in recoveries(self.runtime):
            if one.manager.hears == question[0].get("channel"):
                one.answer(question, answered)
                return
        answered(no_answer())

    async def is_last(self) -> bool:
        await self.link.drains()
        return self.link.all_stop or not self.link.welcomed

    async def _wait_for_signal(self) -> None:
        while self._stop_wanted and self.signals.first is None:
            await self.runtime.sleep(0.01)
        await self.signals.wait()

    def _status(self, has_router: bool) -> int:
        if self._refused is not None:
            raise self._refused
        number = self.signals.first
        if number is None or self._stop_wanted:
            return 0
        who = "not by supervisord" if has_router else "by an unknown sender: no router is connected"
        logger.warning("stopped by %s, %s", number.name, who)
        return 128 + number

    def _stopping(self, wanted: bool) -> None:
        self._stop_wanted = self._stop_wanted or wanted
        self.stop()

    def _refuse(self, refused: Union[Refused, ApplicationError]) -> None:
        self._refused = refused
        self.stop()

    # --- messages from the router -----------------------------------------------------

    def _take_settings(self, message: Message) -> None:
        try:
            check_path(self._app, message["path"])
        except ApplicationError as error:
            self._refuse(error)
            return
        self.server.paths = tuple(path.encode() for path in message["path"])
        self.drain_timeout = float(message["drain_timeout"])
        self.server.head_timeout = float(message["head_timeout"])
        self.server.keepalive_timeout = float(message["keepalive_timeout"])
        # A router of an older release does not send the following settings.
        if not message.get("access_log"):
            self.server.runtime.access = None
        elif self.server.runtime.access is None:
            self.server.runtime.access = AccessLog()
        self._event_reports.turn(bool(message.get("event_metrics")))
        ours = logging.getLogger("supervisor_sio")
        if ours.handlers:  # none if the application has configured logging
            ours.setLevel(message["log_level"])
        self._handshakes = 0

    def _take_members(self, members: list[Any]) -> None:
        for server in sessions.servers():
            hears = server.manager.hears
            heard = [row for row in members if hears in row[2]]
            server.manager.set_members(
                {tag: remote for tag, remote, _, _ in heard},
                {tag for tag, _, _, alias in heard if alias},
            )

    async def _answer(self, question: Message) -> None:
        try:
            rows, total = queries.answer(question)
            for message in queries.packets(question, rows, total):
                await self.link.send(message)
                await self.runtime.sleep(0)  # let the loop run: 25,000 rooms take 0.1 s
        except Exception as error:
            logger.exception("cannot answer supervisorctl")
            await self.link.send(queries.failed(question, error))

    def _take_connection(self, descriptor: int, connection: Handover) -> None:
        # SocketType saves memory, and the explicit family and type save two system calls.
        sock = socket.SocketType(-1, socket.SOCK_STREAM, 0, descriptor)
        sock.setblocking(False)
        made = Connection(
            self.server,
            sock,
            connection.peer,
            connection.local,
            connection.scheme,
            connection.prefix,
            connection.placed,
            self._count_handshake() if connection.handshake else None,
        )
        made.open()

    def _lose_connection(self, connection: Handover) -> None:
        peer = connection.peer
        source = peer[0] if isinstance(peer, tuple) else "a local client"
        self.runtime.count(reasons.NO_DESCRIPTOR, source)
        if connection.handshake:
            self._count_handshake()()  # it will not become a session

    def _count_handshake(self) -> Callable[[], None]:
        generation = self.link.generation

        def counted() -> None:
            if self.link.generation == generation:
                self._handshakes += 1
                self.link.changed()

        return counted

    # --- messages to the router ---------------------------------------------------------

    def _figures(self) -> Message:
        return {"type": "load", **figures.report(self._count())}

    def _count(self) -> dict[str, int]:
        """The figures of this worker by name."""
        return {
            "sessions": sessions.count(),
            "connections": self.server.connections,
            "handshakes_seen": self._handshakes,
            **self._heard(),
            **reasons.by_figure(refusals.by_reason),
            "opened": sessions.traffic.opened,
            "events_in": sessions.traffic.received,
            "events_out": sessions.traffic.sent,
            "cpu_ms": int(time.process_time() * 1000),
            "hub_lag_ms": int(self._lag.worst * 1000),
            "taken_over": self._adopter.taken_over,
            "passed_on": self._departure.passed_on,
        }

    def _heard(self) -> dict[str, int]:
        heard: Counter[str] = Counter()
        for server in sessions.servers():
            heard.update(server.manager.figures())
        return heard

    def keeps(self, request: Request) -> bool:
        if request.kind is Kind.HANDSHAKE:
            # The router places handshakes; without a router this worker serves them.
            return not self.link.up and not self.server.draining
        if request.kind is Kind.SESSION and request.tag:
            if request.tag != self._tag and request.tag not in self._adopter.tags:
                return False
            return not self._departure.passing
        return not self.server.draining

    def hand_back(self, connection: Connection, prefix: bytes) -> None:
        known = Handover(connection.peer, connection.local, connection.scheme, False, False, prefix)
        self.link.hand_back(known, connection)

    def changed(self) -> None:
        self.link.changed()

    # --- the end --------------------------------------------------------------------------

    async def pass_on(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        await self._adopter.stop(seconds * _PART_FOR_ARRIVALS)
        await self._departure.pass_on(deadline - time.monotonic())

    async def hand_over(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        for server in sessions.servers():
            left = deadline - time.monotonic()
            await server.manager.leave(left, self.runtime.sleep, lambda: self.link.alone)

    async def leave(self) -> None:
        await self.link.leave()

    def wait_for_last_emits(self) -> None:
        for server in sessions.servers():
            server.manager.wait_for_last_emits()

    def abandon(self) -> None:
        super().abandon()
        self.link.abandon()
        forks.close_connections_to(self._run_dir.path)
