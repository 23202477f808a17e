"""The router process: creates and connects its parts, runs and ends them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, Callable, Optional

from ..common import clusters
from ..common.certificates import describe, make_context
from ..common.channel import ChannelError, Message, Packet
from ..common.descriptors import ceiling, raise_limit
from ..common.limits import RUN_ONCE_LEASE
from ..common.memory_file import HOST_FILES
from ..common.processes import is_descendant
from ..common.redis_client import QueueError, make_client
from ..common.refusals import Refusals
from ..common.rundir import ClusterInfo, RunDir
from ..relay.proxy import Relay
from ..relay.registrar import Registrar
from .commands import Commands
from .connection import Connection
from .emitter import Emitter
from .entrance import Entrance
from .events import Event
from .held import Held
from .held_shelf import HeldShelf
from .listener import EventListener
from .placement import Placement
from .pool import Pool
from .rebalancing import Rebalancing
from .report import Report
from .reserve import RESERVE, affordable, reserve
from .shelf import Shelf
from .stand_ins import StandIns, place
from .supervisord import SupervisordChannel, connect, in_messages
from .throttle import Throttle
from .tls import Terminator
from .workers import Workers

if TYPE_CHECKING:
    from ..bridge.bridge import Bridge
    from .exporter import Exporter

logger = logging.getLogger("supervisor_sio.router")

#: Minimum seconds between two sets of figures after changes of the workers.
_GATHER = 0.05

#: Seconds for the last answers to pass through TLS.
_LAST_ANSWERS = 0.1


class Router:
    """All parts of the process; :meth:`run` returns the exit status.

    :raises OSError: when a certificate cannot be read.
    """

    def __init__(self, run_dir: RunDir, supervisord: socket.socket, welcome: Packet) -> None:
        settings = welcome.message
        # Supervisor's levels have the numbers of logging's levels, and two below DEBUG.
        logging.getLogger("supervisor_sio").setLevel(settings["log_level"])
        descriptors = welcome.descriptors
        files = [descriptors.pop() for _ in HOST_FILES if settings["message_queue"]][::-1]
        *listeners, workers, xsub, xpub = descriptors[:-4]
        into_shelf, out_of_shelf, into_held, out_of_held = descriptors[-4:]
        metrics = listeners.pop() if settings["metrics"] else None
        self._loop = asyncio.get_running_loop()
        self._stopped: asyncio.Future[int] = self._loop.create_future()
        self._supervisord = SupervisordChannel(supervisord, self._execute)
        self._events = EventListener(self._take_event, lambda: self._stop(1))
        #: Whether supervisord stops this process; it says so before it sends the signal.
        self._stop_wanted = False
        self._listeners = [socket.socket(fileno=descriptor) for descriptor in listeners]
        tls_files = (settings["tls_certfile"], settings["tls_keyfile"])
        self._terminator: Optional[Terminator] = None
        if settings["tls_certfile"]:
            context = make_context(*tls_files)
            self._terminator = Terminator(context, settings["head_timeout"])
        limit = raise_limit()
        self._max_pending = affordable(
            settings["max_pending"], limit, tls=self._terminator is not None
        )
        if self._max_pending < settings["max_pending"]:
            logger.info(
                "max_pending is %d: the limit of %d open files allows no more",
                self._max_pending,
                limit,
            )
        self._refusals = Refusals(logger)
        self._pool = Pool(settings["balance"])
        self._shelf = Shelf(socket.socket(fileno=into_shelf), socket.socket(fileno=out_of_shelf))
        cluster = run_dir.read_cluster()
        self._stand_ins = StandIns(run_dir, cluster)
        held_shelf = HeldShelf(socket.socket(fileno=into_held), socket.socket(fileno=out_of_held))
        # With TLS, connections end with this process, and the next router cannot continue them.
        outlived = self._terminator is None
        self._placement = Placement(
            self._pool,
            settings["hold_timeout"],
            self._max_pending,
            self._shelf if outlived else None,
            # A supervisord of an older version has neither this option nor ``running``.
            settings.get("spread_timeout", 0.0),
        )
        for name in settings.get("running", ()):  # these will connect soon
            self._placement.starting(name)
        self._held = Held(
            pool=self._pool,
            placement=self._placement,
            carriers=lambda: self._workers,
            hold_timeout=settings["hold_timeout"],
            shelf=held_shelf if outlived else None,
            ceiling=lambda: ceiling(self._reserve()),
            refusals=self._refusals,
            listen=self._stand_ins.listen,
            place=place,
            members_changed=lambda: self._workers.members_changed(),
            all_stops=self._all_stops,
        )
        #: Supervisor's names of processes that are workers.
        self._names: set[str] = set(settings["workers"])
        self._entrance = Entrance(
            paths=tuple(path.encode() for path in settings["path"]),
            head_timeout=settings["head_timeout"],
            max_pending=self._max_pending,
            proxy_protocol=settings["proxy_protocol"],
            terminator=self._terminator,
            refusals=self._refusals,
            place=self._placement.place,
            has_room=lambda network: (
                self._waiting() < self._max_pending or self._placement.make_room(network)
            ),
            waiting=self._waiting,
            ceiling=lambda: ceiling(self._reserve()),
            origins=lambda: self._workers.origins,
        )
        self._placement.entrance = self._entrance
        self._exporter: Optional[Exporter] = None
        #: Workers that supervisord has recycled, by reason; not sent by an older version.
        self._recycled: dict[str, int] = dict(settings.get("recycled", {}))
        #: Options for which this Python lacks a package, with the reason.
        self._faults: list[str] = []
        if metrics is not None:
            sock = socket.socket(fileno=metrics)
            try:
                from .exporter import Exporter  # imports prometheus_client, so only when needed
            except ImportError:
                sock.close()
                self._fault(
                    "metrics",
                    f"needs the prometheus_client package: {sys.executable} -m pip install "
                    "'supervisor-sio[metrics]'",
                )
            else:
                self._exporter = Exporter(sock)
        self._workers = Workers(
            listener=socket.socket(fileno=workers),
            placement=self._placement,
            welcome={
                "run_once": True,
                # A supervisord of an older version does not have these options.
                "access_log": settings.get("access_log", False),
                "event_metrics": settings.get("event_metrics", False),
                **{
                    name: settings[name]
                    for name in (
                        *("path", "drain_timeout", "head_timeout", "keepalive_timeout"),
                        *("log_level", "supervisord"),
                    )
                },
            },
            place_again=self._place_again,
            drained=lambda name, pid: self._commands.is_drained(name, pid),
            refusals=self._refusals,
            # Connections that workers hand back may use a part of the reserve, because most are
            # handed over again at once.
            ceiling=lambda: ceiling(self._reserve() - RESERVE // 2),
            changed=Throttle(self._loop, _GATHER, self._send_figures),
            members_here=self._members_here,
            hear_supervisord=self._supervisord.read,
            ended=lambda tag, name, sent: self._registrar.ended(tag, name, sent),
            held=self._held,
            sure_at=_sure_at(settings, time.monotonic()),
            meter=self._exporter.metrics if self._exporter is not None else None,
        )
        self._relay = Relay(run_dir.xsub, xsub, run_dir.xpub, xpub)
        self._registrar = Registrar(run_dir, cluster)
        self._bridge: Optional[Bridge] = None
        if settings["message_queue"]:
            self._bridge = self._make_bridge(settings, run_dir, cluster, files)
        self._registrar.bridged = self._bridge is not None
        self._report = Report(
            pool=self._pool,
            workers=self._workers,
            relay=self._relay,
            refusals=self._refusals,
            waiting=self._waiting,
            queue=lambda: self._bridge.figures() if self._bridge is not None else {},
            faults=self._faults,
            recycled=self._recycled,
            rebalancing=lambda: self._rebalancing.shown(),
        )
        self._rebalancing = Rebalancing(
            pool=self._pool,
            ask=self._workers.queries.release,
            expected=lambda: self._placement.expected,
            held=self._workers.held_sessions,
            call_later=self._loop.call_later,
            changed=self._send_figures,
        )
        self._emitter = Emitter(f"zmq+ipc://{run_dir.path}")
        self._commands = Commands(
            drained=dict(settings["drained"]),
            pool=self._pool,
            placement=self._placement,
            queries=self._workers.queries,
            rebalancing=self._rebalancing,
            emitter=self._emitter,
            answers=self._supervisord,
            figures=self._send_figures,
            terminator=self._terminator,
            tls_files=tls_files,
        )

    def _make_bridge(
        self, settings: Message, run_dir: RunDir, cluster: ClusterInfo, files: list[int]
    ) -> Optional[Bridge]:
        from ..bridge.bridge import Bridge  # imports python-socketio, so only when needed

        try:
            make_client(settings["message_queue"])
        except QueueError as error:
            self._fault("message_queue", str(error))
            return None
        return Bridge(
            settings["message_queue"],
            run_dir,
            cluster,
            files,
            lambda members: self._call_soon(self._workers.set_elsewhere, members),
        )

    def _fault(self, option: str, reason: str) -> None:
        """Report an option that does not work; clients are served all the same."""
        self._faults.append(f"{option}: {reason}")
        logger.error("%s %s: %s", clusters.section(), option, reason)

    async def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop_by_signal, number)
        self._supervisord.listen()
        self._events.listen()
        self._registrar.start()
        self._held.restore()
        self._workers.listen()
        self._take_over()
        self._entrance.listen(self._listeners)
        if self._bridge is not None:
            self._bridge.start()
        self._tick()
        if self._exporter is not None:
            self._exporter.start()
        logger.info("router ready (pid %d)", os.getpid())
        status = await self._stopped
        self._entrance.close()
        self._supervisord.read()
        if self._supervisord.open and not self._workers.all_stop and self._terminator is None:
            # Another router will start, now or later; new clients wait for it in the kernel.
            self._shelf.keep([*self._placement.release(), *self._entrance.release()])
            self._held.release()
        else:
            self._placement.close()
            self._held.close()
        if self._terminator is not None:
            await asyncio.sleep(_LAST_ANSWERS)
        if self._exporter is not None:
            await self._loop.run_in_executor(None, self._exporter.close)
        if self._bridge is not None:
            leaves = self._workers.all_stop
            await self._loop.run_in_executor(None, self._bridge.close, leaves)
        await self._emitter.close()
        self._registrar.close()
        self._relay.close()
        self._supervisord.read()  # supervisord may have said that it stops all workers, too
        return status

    def _take_over(self) -> None:
        """Continue with the connections that waited at the router before this one."""
        kept = self._shelf.take()
        for connection, deadline in kept:
            if connection.kind is None and (connection.prefix or connection.proxy_header_due):
                self._entrance.examine_again(connection)
            else:
                self._placement.place(connection, deadline)
        self._placement.keep()
        if kept:
            logger.info("%d connections waited for this router", len(kept))

    def _stop(self, status: int) -> None:
        if not self._stopped.done():
            self._stopped.set_result(status)

    def _stop_by_signal(self, number: int) -> None:
        """Exit with status 0 only if supervisord stops this process: it does not restart the router
        after status 0."""
        self._supervisord.read()
        if not self._stop_wanted:
            logger.warning("stopped by %s, not by supervisord", signal.Signals(number).name)
        self._stop(0 if self._stop_wanted else 128 + number)

    def _members_here(self, members: list[Any]) -> None:
        self._registrar.set_members([*self._workers.elsewhere, *members])
        self._stand_ins.set_members(members)
        if self._bridge is not None:
            self._bridge.set_members(members)

    def _all_stops(self) -> bool:
        self._supervisord.read()
        return self._workers.all_stop

    def _call_soon(self, call: Callable[[Any], None], argument: Any) -> None:
        """Call from a thread of the bridge, which may run a little longer than the loop."""
        try:
            self._loop.call_soon_threadsafe(call, argument)
        except RuntimeError:
            pass

    def _waiting(self) -> int:
        return len(self._entrance) + len(self._placement)

    def _reserve(self) -> int:
        return reserve(
            workers=len(self._workers),
            metrics=self._exporter is not None,
            handshakes=self._max_pending if self._terminator is not None else 0,
            listeners=self._held.listeners,
        )

    def _place_again(self, connection: Connection) -> None:
        """Place a connection that a worker handed back, or that was in transit to a lost worker."""
        if connection.kind is None and connection.prefix:
            self._entrance.examine_again(connection)
        else:
            # Its request is known, or it is idle, so that any worker can read its next request.
            self._placement.place(connection)

    def _tick(self) -> None:
        """Called once a second: check deadlines, and send the figures to supervisord."""
        self._loop.call_later(1.0, self._tick)
        self._entrance.expire(time.monotonic())
        self._placement.tick()
        self._held.look()
        self._workers.claims.look()
        self._send_figures()
        if self._exporter is not None:
            self._exporter.metrics.tick()
        if not self._relay.alive:
            logger.critical("the relay has stopped, so the router ends and is restarted")
            self._stop(1)

    # --- supervisord ----------------------------------------------------------

    def _take_event(self, event: Event) -> None:
        """:raises ValueError: when the event does not come from supervisord."""
        if event.name == "PROCESS_STATE_FATAL" and event.process in self._names:
            self._held.no_successor(event.process)
        if event.name == "PROCESS_STATE_STOPPING":
            # The worker will say so itself, but this may come first. It may also come late, because
            # events wait until this process counts as running; then the pid tells the worker from a
            # successor of the same name.
            self._workers.stopping(int(event.values.get("pid", "")))

    def _execute(self, command: Message) -> None:
        """:raises CommandError: when the command cannot be executed."""
        if command["type"] == "stopping":
            self._note_stopping(command["pid"])
        elif command["type"] == "starting":
            # Not by events, which could come after the worker has connected: this process gets none
            # before it counts as running itself.
            self._names.add(command["name"])
            self._placement.starting(command["name"])
        elif command["type"] == "ended":
            self._placement.not_starting(command["name"])
        elif command["type"] == "recycled":
            self._recycled.update(command["recycled"])
        else:
            self._commands.execute(command)

    def _note_stopping(self, pid: int) -> None:
        """supervisord will send this process its stop signal; 0 means all processes."""
        if not pid:
            self._stop_wanted = self._workers.all_stop = True
        elif is_descendant(os.getpid(), pid):
            self._stop_wanted = True
        else:
            self._workers.stopping(pid)

    def _send_figures(self) -> None:
        self._names.update(member.name for member in self._pool)
        self._supervisord.figures(in_messages(self._report.totals(), self._report.rows()))
        if self._exporter is not None:
            self._exporter.metrics.update(self._report.snapshot())


def _sure_at(settings: Message, now: float) -> float:
    """The time until which a worker may hold a task that an earlier router has given it.

    A supervisord of an older version does not send when that router ended, so assume now.
    """
    ended = settings.get("router_ended", now)
    return 0.0 if ended is None else float(ended) + RUN_ONCE_LEASE


def run() -> int:
    """The body of ``supervisor-sio router``; returns the exit status."""
    run_dir = RunDir.from_environment()
    if run_dir is None or "SUPERVISOR_ENABLED" not in os.environ:
        reason = clusters.why_none() or (
            "the router must be started by supervisord: write [eventlistener:sio] with command = "
            "supervisor-sio router and events = PROCESS_STATE, and a section [rpcinterface:sio]"
        )
        print(f"supervisor-sio router: error: {reason}", file=sys.stderr)
        return 2
    try:
        supervisord, welcome = connect(run_dir)
    except (OSError, ChannelError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        logger.error("no listening sockets from supervisord (%s): %s", run_dir.supervisord, reason)
        return 1

    async def main() -> int:
        try:
            router = Router(run_dir, supervisord, welcome)
        except OSError as error:
            files = welcome.message["tls_certfile"], welcome.message["tls_keyfile"]
            logger.error("%s tls_certfile: %s", clusters.section(), describe(error, *files))
            return 1
        return await router.run()

    return asyncio.run(main())
