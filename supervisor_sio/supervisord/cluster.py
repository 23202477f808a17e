"""What supervisord owns for a cluster: the shared port, the run directory, the router's channel."""

from __future__ import annotations

import itertools
import os
import socket
import sys
import time
from typing import Any, Callable, Optional, Union

from supervisor import events
from supervisor.options import EventListenerPoolConfig, make_namespec, split_namespec
from supervisor.states import ProcessStates, getProcessStateDescription
from supervisor.xmlrpc import Faults, RPCError

from ..common import channel, memory_file
from ..common.certificates import describe, make_context
from ..common.channel import Message
from ..common.clusters import CLUSTER, CLUSTERS, ctl_command
from ..common.commands import ENDED_BY_ITSELF, PROGRAM, program_of, subcommand_of
from ..common.limits import MAX_CANDIDATES, MAX_NAMES, RUN_ONCE_LEASE, SHELF_BUFFER
from ..common.memory_file import HOST_FILES
from ..common.processes import is_descendant, process_memory
from ..common.redis_client import PackageMissing, QueueError, make_client, without_password
from ..common.rundir import ENVIRONMENT_VARIABLE, ClusterInfo, OwnedRunDir, RunDirError
from ..settings import Settings, SettingsError
from . import listeners
from .deferred import in_ascii
from .dispatchers import RouterChannel, RouterListener, Supervisord
from .guard import Guard
from .last_line import last_line
from .lives import Lives
from .overdue import Reason
from .pauses import hold_back, starts_again
from .programs import Programs
from .recycler import Recycler
from .scaling import Scaler
from .status import ProcessInfo, RouterInfo, build_status

_NO_ROUTER = "no router is running; try again in a second, or see: {} status"


class Cluster:
    """What supervisord owns for a cluster, from its start to its stop or reload.

    :param programs: the cluster's processes; by default all processes of supervisord.
    :raises SettingsError: when the run directory or an address cannot be used; nothing stays open
        then.
    """

    def __init__(
        self, supervisord: Supervisord, settings: Settings, programs: Optional[Programs] = None
    ) -> None:
        self._supervisord = supervisord
        self._settings = settings
        self._programs = programs or Programs(supervisord)
        self._guard = Guard(supervisord.options.logger)
        self._lives = Lives()
        self._scaler = Scaler(supervisord)
        self._recycler = Recycler(
            supervisord,
            settings,
            lambda kind, name: self.command(kind, name=name),
            self._tell_stopping,
        )
        self._router: Optional[RouterChannel] = None
        self._waiting: list[RouterChannel] = []
        self._known_workers: set[str] = set()
        self._bound: list[socket.socket] = []
        self._addresses = [("listen", address) for address in settings.listen]
        if settings.metrics is not None:
            self._addresses.append(("metrics", settings.metrics))
        self._run_dir_sockets: list[socket.socket] = []
        #: Memory files for the router's state towards other hosts; empty ones take no memory.
        self._host_files: list[int] = []
        try:
            self._run_dir = OwnedRunDir(settings.run_dir, settings.chown[0])
        except RunDirError as error:
            raise SettingsError("run_dir", str(error)) from None
        dropped = supervisord.options.uid not in (None, 0)
        try:
            for option, address in self._addresses:
                self._bound.append(listeners.bind(address, settings.backlog, option, dropped))
            self._check_certificate()
            self._check_message_queue()
            self._open_run_dir()
        except SettingsError:
            self.close()
            raise
        #: Variables in the environment of the cluster's processes.
        self._variables = {
            ENVIRONMENT_VARIABLE: self._run_dir.path,
            CLUSTER: self._programs.cluster,
        }
        for variable in self._variables:
            os.environ.pop(variable, None)  # set by a supervisord that started this one
        os.environ[CLUSTERS] = ",".join(self._programs.clusters)
        for event, callback in (
            (events.ProcessStateStartingEvent, self._on_starting),
            (events.ProcessStateExitedEvent, self._on_end),
            (events.ProcessStateBackoffEvent, self._on_end),
            (events.ProcessStateStoppedEvent, self._on_stopped),
            (events.SupervisorRunningEvent, self._on_running),
            (events.SupervisorStoppingEvent, self._on_stopping),
            (events.ProcessStateStoppingEvent, self._on_process_stopping),
            (events.Tick3600Event, self._on_hour),
        ):
            events.subscribe(event, self._guard.subscriber(callback))

    def _check_certificate(self) -> None:
        files = self._settings.tls_certfile, self._settings.tls_keyfile
        if files[0]:
            try:
                make_context(files[0], files[1])
            except OSError as error:
                raise SettingsError("tls_certfile", describe(error, files[0], files[1])) from None

    def _check_message_queue(self) -> None:
        if self._settings.message_queue:
            try:
                make_client(self._settings.message_queue)
            except PackageMissing:
                pass  # the router may have another Python, and checks it itself
            except QueueError as error:
                raise SettingsError("message_queue", str(error)) from None

    def _open_run_dir(self) -> None:
        settings, run_dir = self._settings, self._run_dir
        try:
            run_dir.write_cluster(
                ClusterInfo(
                    channel=settings.channel,
                    buffer_messages=settings.buffer_messages,
                    buffer_maxbytes=settings.buffer_maxbytes,
                    message_maxbytes=settings.message_maxbytes,
                    bridged=settings.message_queue is not None,
                )
            )
            for path, kind in (
                (run_dir.router, socket.SOCK_SEQPACKET),
                (run_dir.xsub, socket.SOCK_STREAM),
                (run_dir.xpub, socket.SOCK_STREAM),
            ):
                self._run_dir_sockets.append(run_dir.bind(path, kind))
            # The router stores waiting clients and held sessions in one end of each pair, and the
            # next router reads them from the other. Meanwhile they are in the kernel, and take no
            # descriptors of supervisord.
            for _ in range(2):
                pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SHELF_BUFFER)
                self._run_dir_sockets.extend(pair)
            if settings.message_queue:
                for name in HOST_FILES:
                    self._host_files.append(memory_file.write(name, b""))
            own = run_dir.bind(run_dir.supervisord, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise SettingsError("run_dir", str(error)) from None
        try:
            run_dir.admit(settings.chmod, settings.chown)
        except OSError as error:
            raise SettingsError("chown", f"{run_dir.path}: {error.strerror}") from None
        self._listener = RouterListener(
            self._supervisord, own, self._guard, self._refuse_process, self._accept
        )

    def _refuse_process(self, pid: int) -> Optional[str]:
        """Why a process may not be the router, or ``None``.

        Only the router may receive the ports and settings: other processes may run as another user,
        and the URL of ``message_queue`` has a password.
        """
        for process in self._programs:
            if (
                isinstance(process.group.config, EventListenerPoolConfig)
                and process.pid
                and subcommand_of(process.config.command) == "router"
                and is_descendant(pid, process.pid)
            ):
                return None
        return (
            "only an event listener of this supervisord with command = supervisor-sio router "
            "gets the listening sockets"
        )

    def _accept(self, connection: socket.socket) -> None:
        self._waiting = [waiting for waiting in self._waiting if not waiting.closed]
        if len(self._waiting) == MAX_CANDIDATES:
            # A router identifies itself at once, so the oldest connection is not one.
            self._waiting.pop(0).close()
        settings = self._settings
        welcome = {
            "type": "welcome",
            "version": channel.VERSION,
            # All settings, so that a new option needs no line here.
            **vars(settings),
            "listen": [str(address) for address in settings.listen],
            "metrics": settings.metrics is not None,
            "router_ended": self._router_ended(),
            "log_level": self._supervisord.options.loglevel,
            "drained": self._drained(),
            "workers": self._workers(),
            "running": self._workers(running=True),
            "recycled": self._recycler.recycled,
            "supervisord": os.getpid(),
        }
        descriptors = [sock.fileno() for sock in self._bound + self._run_dir_sockets]
        descriptors += self._host_files
        self._waiting.append(
            RouterChannel(
                self._supervisord,
                connection,
                self._guard,
                (welcome, descriptors),
                self._admit,
                self._hear,
            )
        )

    def _router_ended(self) -> Optional[float]:
        """When the router before the next one had ended, if there was one.

        That of a supervisord that was killed had ended when this one began: it had the ports.
        """
        return self._router.ended if self._router else self._run_dir.found_left

    def _drained(self) -> dict[str, int]:
        """The workers that the operator has drained, for a new router."""
        members = self._router.figures.get("workers", []) if self._router else []
        drained = [[row["name"], row["pid"]] for row in members if row["state"] == "drained"]
        return dict(_as_many_as_fit(drained))

    def _workers(self, running: bool = False) -> list[str]:
        """The names of the processes that are or will be workers; or only of the running ones."""
        names = [
            (_name(process), process.config.command)
            for process in self._programs
            if process.pid or not running
        ]
        return _as_many_as_fit([name for name, command in names if self._is_worker(name, command)])

    def _is_worker(self, name: str, command: str) -> bool:
        """Whether a process is a worker, as far as is known before it registers at the router."""
        return name in self._known_workers or subcommand_of(command) == "worker"

    def scale(self, name: str, wanted: Union[int, str]) -> dict[str, Any]:
        """Scale a group. :raises RPCError: when it cannot be scaled, or is another cluster's."""
        self._check_group(name)
        return self._scaler.scale(name, wanted)

    def remove(self, name: str) -> Callable[[], Any]:
        """Remove a process. :raises RPCError: when it does not exist, or is another cluster's."""
        self._check_group(split_namespec(name)[0])
        return self._guard.deferred("a removal", self._scaler.remove(name))

    def _check_group(self, name: str) -> None:
        other = self._programs.elsewhere(name)
        if other is not None:
            raise RPCError(Faults.FAILED, f"it is in the cluster {other}, not in this one")

    def command(self, kind: str, **arguments: Any) -> Callable[[], Any]:
        """Send a command to the router. :raises RPCError: when no router is running."""
        if self._open_router is None:
            raise RPCError(Faults.FAILED, _NO_ROUTER.format(ctl_command(self._programs.cluster)))
        return self._open_router.command({"type": kind, **arguments})

    def query(
        self,
        finish: Callable[[list[Any], Message], Any],
        convert: Callable[[Any], Any] = lambda row: row,
        **question: Any,
    ) -> Any:
        """Ask the workers; ``finish`` makes the answer from the rows, each passed to ``convert``.

        :raises RPCError: when no router is running.
        """
        if self._open_router is None:
            raise RPCError(Faults.FAILED, _NO_ROUTER.format(ctl_command(self._programs.cluster)))
        return self._open_router.command(
            {"type": "query", "tag": "", **question},
            lambda rows, answer: in_ascii(finish(rows, answer)),
            convert,
        )

    def _admit(self, candidate: RouterChannel) -> Optional[str]:
        if self._open_router is not None:
            return f"another router is running already (pid {self._open_router.pid})"
        self._router = candidate
        self._waiting.remove(candidate)
        return None

    def status(self) -> dict[str, Any]:
        router: Optional[RouterInfo] = None
        if self._open_router is not None:
            there = self._open_router
            router = RouterInfo(there.pid, there.since, there.figures)
        now = time.monotonic()
        processes = [
            ProcessInfo(
                name=_name(process),
                pid=process.pid or 0,
                state=getProcessStateDescription(process.get_state()),
                started=self._lives.started(_name(process)),
                command=process.config.command,
                failures=failures.count,
                last_line=failures.last_line,
                spawn_error=_spawn_error(process),
                pause=failures.remaining(now),
                tail=_name(process) + ("" if process.config.redirect_stderr else " stderr"),
            )
            for process in self._programs
            for failures in (self._lives.failures(_name(process)),)
        ]
        members = router.figures.get("workers", []) if router else []
        self._known_workers |= {member["name"] for member in members}
        self._known_workers &= {process.name for process in processes}
        self._lives.forget(process.name for process in processes)
        pids = {process.pid for process in processes} | {member["pid"] for member in members}
        if router:
            pids.add(router.pid)
        status = build_status(
            listen=[str(address) for address in self._settings.listen],
            router=router,
            processes=sorted(processes),
            known_workers=self._known_workers,
            memory={pid: process_memory(pid) for pid in pids if pid},
            now=now,
            belongs=is_descendant,
            queue=without_password(self._settings.message_queue or ""),
            errors=self._guard.caught,
            recycling=self._recycler.shown(),
        )
        return {"cluster": self._programs.cluster, **status}

    def _on_starting(self, event: Any) -> None:
        """Prepare the start of a process: set our variables, and let supervisord find our command.

        Next, supervisord looks up the command and forks; the process inherits the environment.
        ``supervisor-sio`` is also looked up in the directory of this Python, which need not be on
        the PATH. The PATH of the process does not change, and a PATH in the program's
        ``environment`` has precedence.
        """
        self._set_variables(event.process)
        name, config = _name(event.process), event.process.config
        if program_of(config.command) == PROGRAM and "PATH" not in (config.environment or ()):
            config.get_path = lambda: [
                *type(config).get_path(config),
                os.path.dirname(sys.executable),
            ]
        if event.process not in self._programs:
            return
        self._lives.starting(name, time.monotonic())
        router = self._open_router
        if router is not None and self._is_worker(name, config.command):
            router.tell_starting(name)

    def _set_variables(self, process: Any) -> None:
        """Set our variables for our process; remove only our own values for others, because another
        cluster may have set its values already."""
        for variable, value in self._variables.items():
            if process in self._programs:
                os.environ[variable] = value
            elif os.environ.get(variable) == value:
                del os.environ[variable]

    def _on_end(self, event: Any) -> None:
        process, name = event.process, _name(event.process)
        if process not in self._programs:
            return
        if event.from_state == ProcessStates.EXITED:
            return  # it was held back before its next start, see below
        if not self._is_worker(name, process.config.command):
            self._lives.ended(name, last_line(process.config))
            return
        if self._open_router is not None:
            self._open_router.tell_ended(name)
        exited = isinstance(event, events.ProcessStateExitedEvent)
        recycled_for = self._recycler.ends(name, process.pid)
        if recycled_for in (Reason.MEMORY, Reason.LIFETIME):
            self._lives.stopped(name)
        else:
            self._lives.ended(name, last_line(process.config))
        # After BACKOFF, supervisord itself waits before the next start.
        if exited and (recycled_for or starts_again(process, event.expected)):
            pause = self._lives.waits(name, time.monotonic())
            if pause or recycled_for:
                # Also with autorestart=false: the worker was recycled, it did not end by itself.
                hold_back(process, pause, self._guard)
            if pause:
                self._supervisord.options.logger.info(
                    f"sio: {name} failed {self._lives.failures(name).count} times in a row, "
                    f"starts again in {pause:.0f} s"
                )

    def _on_stopped(self, event: Any) -> None:
        if event.process not in self._programs:
            return
        name = _name(event.process)
        self._lives.stopped(name)
        if self._open_router is not None:
            self._open_router.tell_ended(name)

    def _hear(self, figures: Message) -> None:
        workers = figures.get("workers", [])
        ready = [worker["name"] for worker in workers if worker["state"] == "ready"]
        self._lives.ready(ready, time.monotonic())
        if figures["last"]:
            self._guard.call("the recycling of workers", self._recycle, None)

    def _recycle(self) -> None:
        router = self._router
        # A router of an older version does not send the time of its figures.
        if router is None or not self._recycler.is_due(router.figures.get("at")):
            return
        if self._recycler.look(self.status()["workers"]):
            router.tell_recycled(self._recycler.recycled)

    def _on_running(self, event: object) -> None:
        self._run_dir.note_pid()
        addresses = [str(address) for address in self._settings.listen]
        if self._settings.metrics is not None:
            addresses.append(f"{self._settings.metrics} (metrics)")
        whose = f"{self._programs.cluster}: " if len(self._programs.clusters) > 1 else ""
        self._supervisord.options.logger.info(f"sio: {whose}listening on {', '.join(addresses)}")

    def _on_process_stopping(self, event: Any) -> None:
        """Supervisor calls this before it sends the signal.

        So the router is told first, and can tell a stopped worker from a killed one.
        """
        if event.process in self._programs:
            self._tell_stopping(event.process.pid)

    def _tell_stopping(self, pid: int) -> None:
        if self._open_router is not None:
            self._open_router.tell_stopping(pid)

    @property
    def _open_router(self) -> Optional[RouterChannel]:
        router = self._router
        return None if router is None or router.closed else router

    def _on_hour(self, event: object) -> None:
        self._run_dir.keep()

    def _on_stopping(self, event: object) -> None:
        """Close all descriptors before supervisord does so on a reload.

        ``ServerOptions.cleanup_fds`` closes descriptors by number, without their owners. The router
        has its own copies, and serves until it is stopped.
        """
        for variable in (*self._variables, CLUSTERS):
            os.environ.pop(variable, None)
        self._tell_stopping(0)
        for dispatcher in [self._listener, self._router, *self._waiting]:
            if dispatcher is not None:
                dispatcher.close()
        self.close()

    def close(self) -> None:
        """Close everything that the constructor has opened."""
        for sock, (_, address) in zip(self._bound, self._addresses):
            listeners.close(sock, address)
        for sock in self._run_dir_sockets:
            sock.close()
        channel.close_all(self._host_files)
        self._host_files.clear()
        # A start that fails, or ends soon, must not hide a killed supervisord from the next one:
        # its workers may still hold leases.
        found = self._run_dir.found_left
        recent = found is not None and time.monotonic() - found < RUN_ONCE_LEASE
        self._run_dir.close(as_killed=recent)


def _as_many_as_fit(rows: list[Any]) -> list[Any]:
    """The first rows, up to ``MAX_NAMES`` bytes, so that the message fits into a packet."""
    sizes = itertools.accumulate(channel.row_size(row) + 1 for row in rows)
    return [row for row, size in zip(rows, sizes) if size <= MAX_NAMES]


def _spawn_error(process: Any) -> str:
    """Why supervisord could not start a process, unless it has started it since."""
    error = str(process.spawnerr or "")
    failed = process.get_state() in (ProcessStates.BACKOFF, ProcessStates.FATAL)
    return error if failed and not error.startswith(ENDED_BY_ITSELF) else ""


def _name(process: Any) -> str:
    """The name of a process in supervisorctl."""
    return str(make_namespec(process.group.config.name, process.config.name))
