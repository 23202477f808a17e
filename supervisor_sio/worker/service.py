"""The life of a worker: from the application to ready, and from SIGTERM to the end."""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
from collections import Counter
from typing import Any, Union

import eventlet
from eventlet import hubs, patcher
from eventlet.event import Event

from ..cluster import sessions
from ..common import descriptors, figures, identity, reasons
from ..common.addresses import parse_address
from ..common.blocking import run_blocking
from ..common.channel import Message
from ..common.handover import Handover
from ..common.limits import CLOSING_AT_ONCE
from ..common.request import Kind, Request
from ..common.rundir import RunDir, RunDirError
from ..engine.engine import Engine
from . import forks, logs, queries
from .application import ApplicationError, check, check_manager, check_path, check_servers
from .connection import Connection
from .eventlet.install import install
from .eventlet.lag import HubLag
from .eventlet.runtime import HubRuntime
from .link import Link, Refused
from .refused import refusals
from .server import Server
from .signals import Signals

logger = logging.getLogger("supervisor_sio.worker")

_socket: Any = patcher.original("socket")

_COMMAND = "supervisor-sio worker"

#: Where a server by hand listens.
_LISTEN = "127.0.0.1:8000"

#: Seconds between tries to give a connection back while there is no router.
_WAIT_FOR_ROUTER = 0.05

#: Seconds between looks whether a disconnect handler is done.
_LOOK = 0.01

#: Seconds for what arrived last to be given back, after ``drain_timeout``.
_LAST_CONNECTIONS = 0.5

#: Seconds without a look at new connections, when there is no descriptor for one.
_ACCEPT_PAUSE = 0.1

#: Seconds at least for the other workers to fetch what this one has sent them.
_LAST_MESSAGES = 1.0

#: Seconds between supervisord's word that it stops a worker and the end of the signal's handler.
_SIGNAL_TIMEOUT = 2.0


def serve(app: Any, listen: str = _LISTEN) -> None:
    """Serve a WSGI application until the process is told to stop.

    Under supervisord with ``[rpcinterface:sio]`` the connections come from the
    router; by hand, on a laptop, it listens itself. Returns after SIGTERM,
    SIGINT or SIGHUP, when requests in flight are finished. The application's own
    handlers for SIGTERM and SIGINT are called as well.

    It wants ``eventlet.monkey_patch()`` before all other imports, and warns
    without it: whatever waits in a handler would stop all others.

    :param app: a WSGI application such as ``socketio.WSGIApp(sio)`` or a Flask
        application, whose Socket.IO server has a :class:`ZmqManager`.
    :param listen: where to listen when supervisord is not there to do it,
        ``host:port``.
    :raises SystemExit: with status 1 and a line on standard error when the
        application cannot be served. With 128 and the number of the signal after
        one under supervisord that is not supervisord's: it starts what ends with
        another status than 0 again.
    """
    by_hand = RunDir.from_environment() is None
    run(app, listen, who="supervisor_sio.serve" if by_hand else _COMMAND)


def run(
    app: Any, listen: str = _LISTEN, spec: str = "the application", who: str = _COMMAND
) -> None:
    """As :func:`serve`.

    :param spec: what the application is called in errors.
    :param who: says the error.
    """
    logs.show_lines_at_once()
    logs.configure_logging()
    sessions.serve_by(install)
    _warn_unpatched()
    try:
        check(app, spec)
        check_servers()
        run_dir = RunDir.from_environment()
        if run_dir is None and "SUPERVISOR_ENABLED" in os.environ:
            raise ApplicationError(
                "supervisord has no [rpcinterface:sio] section: add it, and restart supervisord"
            )
        if run_dir is None:
            _Alone(app, listen).run()
        else:
            check_manager(app, spec)
            run_dir.read_cluster()  # says what is wrong, if something is
            _Worker(app, run_dir).run()
    except (ApplicationError, Refused, RunDirError) as error:
        sys.stderr.write(f"{who}: error: {error}\n")
        raise SystemExit(1) from None


def _warn_unpatched() -> None:
    waits = [name for name in ("socket", "time") if not patcher.is_monkey_patched(name)]
    if waits:
        logger.warning(
            "eventlet has not patched %s: a handler that waits there stops all clients of this "
            "worker; begin the program with: import eventlet; eventlet.monkey_patch()",
            " and ".join(waits),
        )


class _Service:
    """What a worker and a server by hand have in common."""

    def __init__(self, app: Any) -> None:
        descriptors.raise_limit()
        self.runtime = HubRuntime.of_this_process()
        self.runtime.begin()
        self.server = Server(app, self.runtime, self.keeps, self.hand_back, self.changed)
        self.drain_timeout = 10.0
        self._stop: Event = Event()
        self.signals = Signals(self.stop)
        os.register_at_fork(after_in_child=self.abandon)

    def keeps(self, request: Request) -> bool:
        return True

    def hand_back(self, connection: Connection, prefix: bytes) -> None:
        connection.moved(False)

    def changed(self) -> None:
        pass

    def stop(self) -> None:
        if not self._stop.ready():
            self._stop.send()

    def finish(self) -> None:
        """Close the sessions and wait for requests in flight.

        Sessions end as if the connection broke: a client comes back at once,
        which it would not do after an orderly end.
        """
        deadline = time.monotonic() + self.drain_timeout
        self.server.draining = True
        self.server.release_idle()
        with eventlet.Timeout(self.drain_timeout, False):
            pool = eventlet.GreenPool(CLOSING_AT_ONCE)
            for engine in self.runtime.engines:
                for sid in list(engine.sessions):
                    pool.spawn_n(_close_session, engine, sid)
            pool.waitall()
            self.server.end_websockets()
            self._wait_for_connections()
            self.signals.wait()
        self.hand_over(max(_LAST_MESSAGES, deadline - time.monotonic()))
        self.leave()
        with eventlet.Timeout(_LAST_CONNECTIONS, False):
            self._wait_for_connections()

    def hand_over(self, timeout: float) -> None:
        """Make sure that the others have what this process has sent them.

        :param timeout: seconds to wait at most.
        """

    def leave(self) -> None:
        """Make sure that nothing more is coming."""

    def abandon(self) -> None:
        """In a forked child: let go of everything that is the parent's."""
        self.runtime.leave_in_child(_close_managers)
        self.signals.release()
        self.server.abandon()
        sessions.abandon()

    def _wait_for_connections(self) -> None:
        while self.server.connections:
            eventlet.sleep(0.02)


class _Worker(_Service):
    """A worker under supervisord."""

    def __init__(self, app: Any, run_dir: RunDir) -> None:
        super().__init__(app)
        self._app = app
        self._run_dir = run_dir
        self._handshakes = 0
        self._tag = identity.tag()
        self._refused: Union[Refused, ApplicationError, None] = None
        #: Whether it is supervisord that stops this worker.
        self._stop_wanted = False
        self.link = Link(
            run_dir,
            self._take_settings,
            self._take_connection,
            self._lose_connection,
            self._figures,
            self._take_members,
            lambda question: eventlet.spawn_n(self._answer, question),
            self._stopping,
        )
        self._hub_lag = HubLag()

    def run(self) -> None:
        managers = [server.manager for server in sessions.servers()]
        if not managers:
            logger.warning("%s", sessions.why_no_manager())
        self._hub_lag.start()
        reader = eventlet.spawn(self._run_link)
        for server in sessions.servers():
            # python-socketio does this with the first client; to be ready means
            # to hear the other workers already.
            if not server.manager_initialized:
                server.manager_initialized = True
                try:
                    server.manager.initialize()
                except RuntimeError as error:  # two of them have the same channel
                    raise ApplicationError(str(error)) from None
        for manager in managers:
            run_blocking(manager.wait_joined(self._stop.ready, _sleep))
        while not self.server.paths and not self._stop.ready():
            eventlet.sleep(_WAIT_FOR_ROUTER)
        if not self._stop.ready():
            self.link.ready({manager.hears: manager.tally for manager in managers if manager.hears})
            logger.info("ready (tag %s)", self._tag)
        self._stop.wait()
        has_router = self.link.welcomed
        self.link.draining()
        self.finish()
        # supervisord tells before it sends the signal: the application may have a handler for it.
        with eventlet.Timeout(_SIGNAL_TIMEOUT, False):
            while self._stop_wanted and self.signals.first is None:
                eventlet.sleep(0.01)
            self.signals.wait()
        reader.kill()
        if self._refused is not None:
            raise self._refused
        number = self.signals.first
        if number is not None and not self._stop_wanted:
            who = "not by supervisord" if has_router else "with no router there to say by whom"
            logger.warning("stopped by %s, %s", number.name, who)
            raise SystemExit(128 + number)

    def _stopping(self, wanted: bool) -> None:
        self._stop_wanted = self._stop_wanted or wanted
        self.stop()

    def _run_link(self) -> None:
        try:
            self.link.run()
        except Refused as refused:
            self._refused = refused
        finally:
            self.stop()

    def _take_settings(self, message: Message) -> None:
        try:
            check_path(self._app, message["path"])
        except ApplicationError as error:
            self._refused = error
            self.stop()
            return
        self.server.paths = tuple(path.encode() for path in message["path"])
        self.drain_timeout = float(message["drain_timeout"])
        self.server.head_timeout = float(message["head_timeout"])
        self.server.keepalive_timeout = float(message["keepalive_timeout"])
        ours = logging.getLogger("supervisor_sio")
        if ours.handlers:  # else the application has arranged its logging
            ours.setLevel(message["log_level"])
        self._handshakes = 0

    def _take_members(self, members: list[Any]) -> None:
        for server in sessions.servers():
            hears = server.manager.hears
            server.manager.set_members(
                {tag: remote for tag, remote, channels in members if hears in channels}
            )

    def _answer(self, question: Message) -> None:
        try:
            rows, total = queries.answer(question)
            for message in queries.packets(question, rows, total):
                self.link.send(message)
                eventlet.sleep(0)  # 25,000 rooms take a tenth of a second
        except Exception as error:
            logger.exception("a question of supervisorctl")
            self.link.send(queries.failed(question, error))

    def _take_connection(self, descriptor: int, connection: Handover) -> None:
        made = Connection(
            self.server,
            _plain_socket(descriptor),
            connection.peer,
            connection.local,
            connection.scheme,
            connection.prefix,
            connection.placed,
            self._count_handshake() if connection.handshake else None,
        )
        self.runtime.call_soon(made.open)

    def _lose_connection(self, connection: Handover) -> None:
        peer = connection.peer
        source = peer[0] if isinstance(peer, tuple) else "a local client"
        refusals.count(reasons.NO_DESCRIPTOR, source)
        if connection.handshake:
            self._count_handshake()()  # there will be no session of it

    def _count_handshake(self) -> Any:
        generation = self.link.generation

        def counted() -> None:
            if self.link.generation == generation:
                self._handshakes += 1
                self.link.changed()

        return counted

    def _figures(self) -> Message:
        return {"type": "load", **figures.report(self._count())}

    def _count(self) -> dict[str, int]:
        """The figures of this worker, by their names."""
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
            "hub_lag_ms": int(self._hub_lag.worst * 1000),
        }

    def _heard(self) -> dict[str, int]:
        heard: Counter[str] = Counter()
        for server in sessions.servers():
            heard.update(server.manager.figures())
        return heard

    def hand_over(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        for server in sessions.servers():
            run_blocking(server.manager.leave(deadline - time.monotonic(), _sleep))

    def leave(self) -> None:
        self.link.leave()

    def abandon(self) -> None:
        super().abandon()
        self.link.abandon()
        forks.close_connections_to(self._run_dir.path)

    def keeps(self, request: Request) -> bool:
        if request.kind is Kind.HANDSHAKE:
            # To be balanced; while no router is there to do it, this worker will do.
            return not self.link.up and not self.server.draining
        if request.kind is Kind.SESSION and request.tag:
            return request.tag == self._tag
        return not self.server.draining

    def hand_back(self, connection: Connection, prefix: bytes) -> None:
        self.runtime.run(self._hand_back, connection, prefix)

    def _hand_back(self, connection: Connection, prefix: bytes) -> None:
        known = Handover(connection.peer, connection.local, connection.scheme, False, False, prefix)
        while not self.link.hand_back(known, connection.fileno()):
            if self.server.draining:
                connection.moved(False)
                return
            eventlet.sleep(_WAIT_FOR_ROUTER)  # supervisord is about to start the next one
        connection.moved(True)

    def changed(self) -> None:
        self.link.changed()


class _Alone(_Service):
    """A server by hand: one process that listens itself."""

    def __init__(self, app: Any, listen: str) -> None:
        try:
            address = parse_address(listen)
            if address.path:
                raise ValueError(f"{listen!r} is not host:port")
            self._listener = eventlet.listen(
                (address.host, address.port),
                family=_socket.AF_INET6 if ":" in address.host else _socket.AF_INET,
                backlog=1024,
                reuse_port=False,  # else a second server would get half of the connections
            )
            self._listener.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        except (ValueError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            if getattr(error, "errno", None) == errno.EADDRINUSE:
                another = f"{listen[: -len(str(address.port))]}{address.port % 65535 + 1}"
                reason = (
                    "address already in use; stop the program that listens there, or "
                    f'serve(app, listen="{another}")'
                )
            raise ApplicationError(f"cannot listen on {listen}: {reason}") from None
        super().__init__(app)
        self._accepting: Any = None

    def run(self) -> None:
        host, port = self._listener.getsockname()[:2]
        print(f"Serving on http://{host}:{port}/ (Ctrl-C stops)", file=sys.stderr)
        self._local = host, port
        self._listen()
        self._stop.wait()
        self._stop_listening()
        self._listener.close()
        self.finish()

    def abandon(self) -> None:
        super().abandon()
        forks.close_socket(self._listener.fd)

    def _listen(self) -> None:
        """Accept connections; in the hub, where a greenlet would cost two system calls for each."""
        if not self._stop.ready():
            hub = self.runtime.hub
            self._accepting = hub.add(
                hub.READ, self._listener.fileno(), self._accept, lambda _: None, None
            )

    def _stop_listening(self) -> None:
        accepting, self._accepting = self._accepting, None
        if accepting is not None:
            self.runtime.hub.remove(accepting)

    def _accept(self, _descriptor: int) -> None:
        try:
            # accept() of the green socket would give a green socket, which closes
            # the connection when it is collected, whoever else still has it.
            sock, peer = self._listener.fd.accept()
        except BlockingIOError:
            return
        except OSError as error:
            self.runtime.run(logger.warning, "cannot accept: %s", error.strerror)
            self._stop_listening()
            self.runtime.hub.schedule_call_global(_ACCEPT_PAUSE, self._listen)
            return
        hubs.notify_opened(sock.fileno())
        sock.setblocking(False)
        Connection(self.server, sock, peer, self._local).open()


async def _sleep(seconds: float) -> None:
    eventlet.sleep(seconds)


def _close_managers() -> None:
    for server in sessions.servers():
        server.manager.finish()


def _close_session(engine: Engine, sid: str) -> None:
    session = engine.sessions.get(sid)
    if session is None:
        return  # it ended while others did
    try:
        session.close(abort=True)
    except Exception:
        logger.exception("closing session %s", sid)
        return
    eventlet.sleep(0)  # for most that is enough
    # Its disconnect handler runs. One that was closed before may have to be fetched yet.
    while sid in engine.sessions and not session.forgotten:
        eventlet.sleep(_LOOK)


def _plain_socket(descriptor: int) -> Any:
    sock = _socket.SocketType(fileno=descriptor)  # without the attributes of socket.socket
    sock.setblocking(False)
    return sock
