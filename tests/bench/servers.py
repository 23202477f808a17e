"""Starts and stops the measured servers in temporary directories and reads their CPU time."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Callable
from xmlrpc.client import ServerProxy

import psutil
from supervisor.xmlrpc import SupervisorTransport

HERE = Path(__file__).resolve().parent
HOST = "127.0.0.1"
START_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0
RUN_TIMEOUT = 300.0
NOT_COUNTED = {"supervisord"}

SUPERVISORD_CONF = """\
[supervisord]
nodaemon = true
logfile = %(here)s/supervisord.log
pidfile = %(here)s/supervisord.pid
childlogdir = %(here)s

[unix_http_server]
file = %(here)s/rpc.sock

[supervisorctl]
serverurl = unix://%(here)s/rpc.sock

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[rpcinterface:sio]
supervisor.rpcinterface_factory = supervisor_sio.rpcinterface:make_rpcinterface
listen = {host}:{port}
{settings}

[eventlistener:sio]
command = supervisor-sio router
events = PROCESS_STATE

[program:workers]
command = {command}
process_name = %(program_name)s_%(process_num)02d
numprocs = {workers}
directory = {directory}
redirect_stderr = true
"""

NGINX_CONF = """\
{user}
worker_processes 1;
daemon off;
pid {here}/nginx.pid;
error_log {here}/error.log;

events {{
    worker_connections 16384;
}}

http {{
    access_log off;
    tcp_nodelay on;
    client_body_temp_path {here}/body;
    proxy_temp_path {here}/proxy;
    fastcgi_temp_path {here}/fastcgi;
    uwsgi_temp_path {here}/uwsgi;
    scgi_temp_path {here}/scgi;

    map $http_upgrade $connection_upgrade {{
        default upgrade;
        '' '';
    }}

    upstream workers {{
        {upstream}
        keepalive 32;
    }}

    server {{
        listen {host}:{port} backlog=4096;
        location / {{
            proxy_pass http://workers;
            proxy_http_version 1.1;
            proxy_buffering off;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Server:
    """A running server: where it listens, and its processes by the part they play.

    :ivar root: the parent of all of them, where there is one.
    :ivar restart: restarts all workers; those in ``parts`` are gone then.
    """

    port: int
    parts: Mapping[str, list[psutil.Process]]
    supervisord: psutil.Process | None = None
    root: psutil.Process | None = None
    restart: Callable[[], None] | None = None

    def cpu(self) -> dict[str, float]:
        """CPU seconds of each part so far, user and system, children included."""
        cpu = {part: sum(map(own_cpu, self.processes(part))) for part in self.parts}
        if self.supervisord is not None:
            cpu["supervisord"] = own_cpu(self.supervisord)
        return cpu

    def counted_cpu(self) -> float:
        """CPU seconds so far of all parts but supervisord, which takes no part in serving."""
        return sum(seconds for part, seconds in self.cpu().items() if part not in NOT_COUNTED)

    def whole_cpu(self) -> float:
        """CPU seconds so far of the root and all below it, those that have ended included."""
        assert self.root is not None
        seconds = own_cpu(self.root)
        for process in self.root.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                seconds += own_cpu(process)
        return seconds

    def memory(self) -> int:
        """Bytes of all parts but supervisord: what they share is counted once (PSS).

        :raises RuntimeError: when one of them has ended.
        """
        sizes = [
            process.memory_full_info().pss
            for part in self.parts
            for process in self.processes(part)
        ]
        if not all(sizes):  # nobody has waited for it
            raise RuntimeError("a server has ended")
        return sum(sizes)

    def processes(self, part: str) -> list[psutil.Process]:
        """Of the part, with children that are not a part themselves."""
        named = {process for processes in self.parts.values() for process in processes}
        found = list(self.parts[part])
        for process in self.parts[part]:
            found += [child for child in process.children(recursive=True) if child not in named]
        return found


def own_cpu(process: psutil.Process) -> float:
    """CPU seconds of the process, of all its threads, and of the children it has waited for.

    :raises psutil.NoSuchProcess: when it has ended.
    """
    waited_for = process.cpu_times()
    try:
        # The clock of a process, as clock_getcpuclockid(3) names it: in nanoseconds, where
        # /proc/PID/stat has hundredths of a second.
        own = time.clock_gettime((~process.pid << 3) | 2)
    except OSError:
        raise psutil.NoSuchProcess(process.pid) from None
    return own + float(waited_for.children_user + waited_for.children_system)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def answers(port: int, timeout: float = 1) -> bool:
    """Whether the application behind the port answers (404, for a path it does not know)."""
    try:
        with socket.create_connection((HOST, port), timeout) as connection:
            connection.sendall(b"GET /ready HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            return b" 404 " in connection.recv(4096).split(b"\r\n")[0]
    except OSError:
        return False


def wait_for_answer(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not answers(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"server did not start:\n{tail(log)}")
        time.sleep(0.05)


def run(
    command: Sequence[str], directory: Path, environment: Mapping[str, str] | None = None
) -> None:
    """:raises RuntimeError: with all that it has printed, when it fails."""
    done = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUN_TIMEOUT,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}")


def tail(log: Path, lines: int = 20) -> str:
    if not log.exists():
        return f"no {log.name}"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


@contextlib.contextmanager
def running(
    command: list[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """The command as a child process, ended with SIGTERM, and by force if that does not do."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(environment or {})},
        )
    try:
        yield process
    finally:
        children = []
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _, left = psutil.wait_procs(children, timeout=2)
        for child in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


@contextlib.contextmanager
def temporary_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sio-bench-") as name:
        yield Path(name)


@contextlib.contextmanager
def stock_worker(manager: str = "none") -> Iterator[Server]:
    """python-socketio on eventlet.wsgi, nothing in front; for ``manager`` see bench_app."""
    port = free_port()
    with temporary_directory() as here:
        log = here / "worker.log"
        command = [sys.executable, str(HERE / "stock_worker.py"), str(port)]
        with running(command, log, {"BENCH_MANAGER": manager}) as process:
            wait_for_answer(port, process, log)
            yield Server(port, {"workers": [psutil.Process(process.pid)]})


@contextlib.contextmanager
def worker_alone(checkout: Path | None = None) -> Iterator[Server]:
    """One worker of this package by hand, with neither router nor supervisord.

    :param checkout: of another version of this package, to run that.
    """
    port = free_port()
    environment = {"BENCH_MANAGER": "zmq", **of_checkout(checkout)}
    with temporary_directory() as here:
        log = here / "worker.log"
        command = [sys.executable, str(HERE / "worker_alone.py"), str(port)]
        with running(command, log, environment) as process:
            wait_for_answer(port, process, log)
            yield Server(port, {"worker": [psutil.Process(process.pid)]})


def of_checkout(checkout: Path | None) -> dict[str, str]:
    """The environment in which this package comes from there."""
    return {} if checkout is None else {"PYTHONPATH": str(checkout)}


def nginx_program() -> str | None:
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def stock_broker(sink: int, source: int) -> Iterator[psutil.Process]:
    """What socketio.ZmqManager connects its workers through."""
    with temporary_directory() as here:
        command = [sys.executable, str(HERE / "stock_broker.py"), str(sink), str(source)]
        with running(command, here / "broker.log") as process:
            yield psutil.Process(process.pid)


@contextlib.contextmanager
def stock_cluster(workers: int = 2) -> Iterator[Server]:
    """Stock workers joined by a broker, behind nginx.

    nginx does not keep a session on one worker: for clients that use websockets alone.
    """
    sink, source = free_port(), free_port()
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(stock_broker(sink, source))
        manager = f"zmq+tcp://{HOST}:{sink}+{source}"
        stock = [stack.enter_context(stock_worker(manager)) for _ in range(workers)]
        proxied = stack.enter_context(behind_nginx(*stock))
        yield Server(proxied.port, {**proxied.parts, "broker": [broker]})


@contextlib.contextmanager
def behind_nginx(*upstream: Server) -> Iterator[Server]:
    """nginx in front of other servers, which play the same parts."""
    program = nginx_program()
    if program is None:
        raise RuntimeError("nginx is not installed")
    port = free_port()
    with temporary_directory() as here:
        user = "user root;" if os.geteuid() == 0 else ""
        conf = here / "nginx.conf"
        conf.write_text(
            NGINX_CONF.format(
                here=here,
                user=user,
                host=HOST,
                port=port,
                upstream=" ".join(f"server {HOST}:{server.port};" for server in upstream),
            )
        )
        log = here / "error.log"
        command = [program, "-p", str(here), "-e", str(log), "-c", str(conf)]
        with running(command, log) as process:
            wait_for_answer(port, process, log)
            parts = {"nginx": [psutil.Process(process.pid)]}
            for server in upstream:
                for part, processes in server.parts.items():
                    parts[part] = parts.get(part, []) + processes
            yield Server(port, parts)


def cluster_state(rpc_socket: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The processes that supervisord knows, and the states of the workers that the router knows."""
    transport = SupervisorTransport(None, None, f"unix://{rpc_socket}")
    with ServerProxy("http://localhost", transport=transport) as proxy:
        processes: Any = proxy.supervisor.getAllProcessInfo()
        status: Any = proxy.sio.getStatus()
    return list(processes), [worker["state"] for worker in status["workers"]]


def wait_until_ready(rpc_socket: Path, here: Path, workers: int) -> dict[str, list[int]]:
    """Process ids by group, once every process is RUNNING and every worker takes connections."""
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        processes: list[dict[str, Any]] = []
        states: list[str] = []
        with contextlib.suppress(OSError):
            processes, states = cluster_state(rpc_socket)
        running = processes and all(process["statename"] == "RUNNING" for process in processes)
        if running and states == ["ready"] * workers:
            break
        if time.monotonic() > deadline:
            names = {process["name"]: process["statename"] for process in processes}
            logs = "\n".join(f"--- {log.name}\n{tail(log)}" for log in sorted(here.glob("*.log")))
            raise RuntimeError(f"not ready: {names}, workers {states}\n{logs}")
        time.sleep(0.1)
    groups: dict[str, list[int]] = {}
    for process in processes:
        groups.setdefault(process["group"], []).append(process["pid"])
    return groups


@contextlib.contextmanager
def supervised_cluster(
    workers: int = 2,
    settings: str = "",
    application: str = "bench_app:app",
    checkout: Path | None = None,
    command: str = "",
    mode: str = "",
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """supervisord with the router and workers of this package.

    :param settings: more options.
    :param command: of the workers, if it is not ``supervisor-sio worker``.
    :param mode: of the workers, if it is not the default.
    :param environment: more of it.
    :param checkout: of another version of this package, to run that.
    """
    options = f"--async-mode {mode} " if mode else ""
    port = free_port()
    with temporary_directory() as here:
        conf = here / "supervisord.conf"
        conf.write_text(
            SUPERVISORD_CONF.format(
                host=HOST,
                port=port,
                workers=workers,
                directory=HERE,
                settings=settings,
                command=command or f"supervisor-sio worker {options}{application}",
            )
        )
        scripts = str(Path(sys.executable).parent)
        variables = {
            "BENCH_MANAGER": "zmq",
            "PATH": f"{scripts}:{os.environ.get('PATH', '')}",
            **(environment or {}),
            **of_checkout(checkout),
        }
        log = here / "supervisord.log"
        # Not by ``python -m``, which looks for packages in this directory first.
        supervisord = [f"{scripts}/supervisord", "-c", str(conf)]
        with running(supervisord, here / "output.log", variables) as process:
            groups = wait_until_ready(here / "rpc.sock", here, workers)
            wait_for_answer(port, process, log)
            supervisord = psutil.Process(process.pid)
            restart = [f"{scripts}/supervisorctl", "-c", str(conf), "restart", "workers:*"]
            yield Server(
                port,
                {
                    "router": [psutil.Process(pid) for pid in groups["sio"]],
                    "workers": [psutil.Process(pid) for pid in groups["workers"]],
                },
                supervisord,
                root=supervisord,
                restart=partial(run, restart, here, variables),
            )
