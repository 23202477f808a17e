"""A real supervisord with a router and workers, for tests from outside."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil
from supervisor.xmlrpc import SupervisorTransport

from .supervisorctl import supervisorctl

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent

#: What python-socketio imports where it is installed: Redis, and what its clients are built on.
#: With it a worker takes three times the processor time to start.
ABSENT = HERE / "absent"

# What is started in the background (``&``, ``nohup``) ignores Ctrl-C, and so would its children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

T = TypeVar("T")

#: How the workers of clusters run, in the environment of all that is started; see portable.py.
MODE = "ASYNC_MODE"


def async_mode() -> str:
    """As ``pytest --async-mode`` says."""
    return os.environ.get(MODE, "eventlet")


def in_mode(text: str, mode: str) -> str:
    """The commands of workers in a text, with the option for this mode."""
    option = "" if mode == "eventlet" else f" --async-mode {mode}"
    return text.replace("supervisor-sio worker ", f"supervisor-sio worker{option} ")


MAIN = """\
[supervisord]
logfile = {directory}/supervisord.log
pidfile = {short}/supervisord.pid
childlogdir = {short}

[unix_http_server]
file = {short}/s.sock

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl = unix://{short}/s.sock

[ctlplugin:sio]
supervisor.ctl_factory = supervisor_sio.ctlplugin:make_ctlplugin
"""

RPCINTERFACE = """
[rpcinterface:sio]
supervisor.rpcinterface_factory = supervisor_sio.rpcinterface:make_rpcinterface
"""

ROUTER = """
[eventlistener:sio]
command = supervisor-sio router
events = PROCESS_STATE
stderr_logfile = {directory}/router.log
{user}
"""

WORKERS = """
[program:{name}]
command = {command}
directory = {here}
process_name = %(program_name)s_%(process_num)02d
numprocs = {numprocs}
startsecs = {startsecs}
startretries = {startretries}
stopwaitsecs = 15
redirect_stderr = true
stdout_logfile = {directory}/%(program_name)s_%(process_num)02d.log
{user}
"""


#: Seconds that all is waited for at least, as the machine may be busy: less than ``hold_timeout``
#: (30) and than clients wait for a ping (45), which would mend much that is broken.
PATIENCE = 25.0


def wait_until(predicate: Callable[[], T], timeout: float, message: str) -> T:
    """The first true value of ``predicate``, looked at again and again, and less and less often:
    a question to supervisord takes time that what is waited for may need. A row or a field that it
    misses, as of a process that has just begun, is not there yet either.

    :param timeout: seconds that it takes at most on a machine that is not busy.
    """
    timeout = max(timeout, PATIENCE)
    deadline = time.monotonic() + timeout
    pause = 0.01
    while True:
        missing: Exception | None = None
        try:
            value = predicate()
            if value:
                return value
        except (LookupError, ValueError, StopIteration) as error:
            missing = error
        if time.monotonic() > deadline:
            raise AssertionError(f"{message}: not within {timeout:g} s") from missing
        time.sleep(pause)
        pause = min(pause * 1.2, 0.1)


def wait_until_idle(pid: int) -> None:
    """Until a process has done what it was sent before, and what it does at most 0.1 s later:
    who has work, or a timer that is over, does not sleep, however busy the machine is."""
    process = psutil.Process(pid)
    for _ in range(2):
        time.sleep(0.1)
        wait_until(lambda: process.status() == psutil.STATUS_SLEEPING, 20, "it is idle")


#: An abstract name for each port that this process has, so that no other process of tests takes it.
_ports: list[socket.socket] = []


def free_port() -> int:
    """A port nobody listens on, outside the range the kernel gives to clients; it stays ours."""
    dice = random.SystemRandom()  # other tests call random.seed()
    while True:
        port = dice.randrange(15000, 30000)
        name = socket.socket(socket.AF_UNIX)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                name.bind(f"\0supervisor-sio-tests-{port}")
                probe.bind(("127.0.0.1", port))
            except OSError:
                name.close()
                continue
        _ports.append(name)
        return port


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what a supervisord around it may have set."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SUPERVISOR_")}
    # As in an activated virtual environment.
    kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    # Applications of other directories are built on portable.py, too.
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [kept.get("PYTHONPATH"), str(HERE)]))
    # No test resolves names, and what does takes a third of the time to start a worker.
    kept["EVENTLET_NO_GREENDNS"] = "yes"
    # To import coverage.py takes as long as all that a process does to start: those of a few
    # modules of tests are measured.
    module = os.environ.get("PYTEST_CURRENT_TEST", "").partition(".py::")[0].rpartition("/")[2]
    if module not in os.environ.get("COVERAGE_CLUSTERS", "").split():
        kept.pop("COVERAGE_PROCESS_START", None)
    # Hundreds of processes would each compile what pip compiles only where it copies it.
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**kept, **more}


def server_environment(**more: str) -> dict[str, str]:
    """The same for processes that run no Socket.IO client: they start sooner with it."""
    variables = environment(**more)
    variables["PYTHONPATH"] = f"{ABSENT}{os.pathsep}{variables['PYTHONPATH']}"
    return variables


class Cluster:
    """One supervisord and what it starts. ``settings`` go to ``[rpcinterface:sio]``."""

    def __init__(
        self,
        directory: Path,
        workers: int = 2,
        command: str = "supervisor-sio worker cluster_app:app",
        extra: str = "",
        plugin: bool = True,
        router: bool = True,
        startsecs: int = 0,
        startretries: int = 3,
        user: str = "",
        wrapper: Sequence[str] = (),
        here: Path = HERE,
        mode: str | None = None,
        **settings: str,
    ) -> None:
        self.directory = directory
        #: Where the application's module is.
        self.here = here
        self.mode = mode or async_mode()
        # Paths of Unix sockets are short, pytest's directories are not.
        self.short = Path(tempfile.mkdtemp(prefix="sio-"))
        self.run_dir = self.short / "run"
        self.port = free_port()
        self.numprocs = workers
        self.command = command
        self.extra = extra
        self.plugin = plugin
        self.router = router
        self.startsecs = startsecs
        self.startretries = startretries
        self.user = f"user = {user}" if user else ""
        self.wrapper = wrapper
        self.supervisord = str(BIN / "supervisord")
        self.settings = {
            "listen": f"127.0.0.1:{self.port}",
            "run_dir": str(self.run_dir),
            **settings,
        }
        self.conf = directory / "supervisord.conf"
        self.socket = self.short / "s.sock"
        self.process: subprocess.Popen[bytes] | None = None
        self._sessions: list[int] = []
        self.finished = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def write_config(self) -> None:
        text = MAIN
        if self.plugin:
            text += RPCINTERFACE
            text += "".join(f"{key} = {value}\n" for key, value in self.settings.items())
        if self.router:
            text += ROUTER
        text = text.format(directory=self.directory, short=self.short, user=self.user)
        if self.numprocs:
            text += self.program("workers", self.command, self.numprocs)
        self.conf.write_text(in_mode(text + self.extra, self.mode))

    def program(self, name: str, command: str, numprocs: int = 1) -> str:
        """The section of a program of workers."""
        return WORKERS.format(
            name=name,
            command=command,
            numprocs=numprocs,
            here=self.here,
            directory=self.directory,
            startsecs=self.startsecs,
            startretries=self.startretries,
            user=self.user,
        )

    # --- the process -----------------------------------------------------------

    def make_breakable(self) -> Path:
        """No worker starts any more once there is a file of this path."""
        broken = self.directory / "broken"
        self.command = f"/bin/sh -c 'test ! -e {broken} && exec {self.command}'"
        return broken

    def spawn(self) -> None:
        """Start supervisord without waiting for anything."""
        self.write_config()
        has_redis = "message_queue" in self.settings
        variables = (environment if has_redis else server_environment)(**{MODE: self.mode})
        with open(self.directory / "supervisord.out", "ab") as output:
            process = subprocess.Popen(
                [*self.wrapper, self.supervisord, "-n", "-c", str(self.conf)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=variables,
                # All that it starts stays in this session, whatever becomes of its parent.
                start_new_session=True,
            )
        self.adopt(process)

    def adopt(self, process: subprocess.Popen[bytes]) -> None:
        """Take this supervisord for the cluster's; it has a session of its own."""
        self.process = process
        self._sessions.append(process.pid)

    def start(self) -> Cluster:
        """Start supervisord and wait until all workers serve."""
        self.spawn()
        self.wait_ready()
        return self

    def run_to_its_end(self) -> tuple[int, str]:
        """Start a supervisord that should not stay; its exit code and all it printed."""
        self.spawn()
        assert self.process is not None
        code = self.process.wait(60)
        return code, (self.directory / "supervisord.out").read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End supervisord; its exit code. No process of its session may be left."""
        code = 0
        if self.process is not None:
            if self.process.poll() is None:
                self.process.send_signal(number)
            deadline = time.monotonic() + 40
            while self.process.poll() is None and time.monotonic() < deadline:
                self.knock()
                time.sleep(0.05)
            code = -1 if self.process.returncode is None else self.process.returncode
        left = self.processes()
        described = [f"{p.pid} {' '.join(p.cmdline())}" for p in left if _alive(p)]
        for process in left:
            if _alive(process):
                process.kill()
        psutil.wait_procs(left, 10)
        self.process = None
        assert not described, f"left behind: {described}"
        return code

    def knock(self) -> None:
        """Let supervisord look around: at signals, at processes that have ended, and at answers
        that it owes it does so once a second, unless something comes."""
        with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
            sock.setblocking(False)
            sock.connect(str(self.socket))

    def clean_up(self) -> None:
        """At the end of a test: nothing runs any more, the sockets' directory goes."""
        try:
            self.stop()
        finally:
            self.finished = True
            shutil.rmtree(self.short, ignore_errors=True)

    def processes(self) -> list[psutil.Process]:
        """Everything that lives in the sessions of the supervisords started here."""
        found = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) in self._sessions and _alive(process):
                    found.append(process)
            except (OSError, psutil.Error):
                pass
        return found

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    # --- what it says ------------------------------------------------------------

    @property
    def rpc(self) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.rpc.sio.getStatus()
        return answer

    def workers(self, state: str = "ready") -> list[dict[str, Any]]:
        """The workers in this state; none while supervisord does not answer."""
        try:
            rows = self.status()["workers"]
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return []
        return [row for row in rows if row["state"] == state]

    def wait_ready(self, count: int | None = None, timeout: float = 60) -> None:
        wanted = self.numprocs if count is None else count

        def ready() -> bool:
            assert self.process is not None
            code = self.process.poll()
            assert code is None, f"supervisord has ended with exit code {code}"
            return len(self.workers()) == wanted

        wait_until(ready, timeout, f"{wanted} workers ready")

    @property
    def router_pid(self) -> int:
        return int(self.status()["router"]["pid"])

    def wait_new_router(self, old: int) -> int:
        """Wait until a router with another pid runs."""

        def new_pid() -> int:
            try:
                pid = self.router_pid
            except (OSError, http.client.HTTPException):  # supervisord itself restarts
                return 0
            return pid if pid != old else 0

        return wait_until(new_pid, 20, "router")

    def end_router(self, how: str) -> int:
        """Restart (``restart``) or kill (``kill``) the router; the pid of the next one."""
        old = self.router_pid
        if how == "restart":
            assert self.ctl("restart", "sio").returncode == 0
        else:
            os.kill(old, signal.SIGKILL)
        wait_until(lambda: not psutil.pid_exists(old), 10, "the router is gone")
        return self.wait_new_router(old)

    def ctl(self, *args: str) -> subprocess.CompletedProcess[str]:
        """The real supervisorctl, with errors in its output."""
        return supervisorctl(["-c", str(self.conf), *args], environment(), self.knock)

    def log(self, name: str) -> str:
        path = self.directory / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_log(self, name: str, text: str) -> None:
        """Wait until a log has this: supervisord writes it when it reads what a process has
        written, which may be later than what else a test sees of that process."""
        wait_until(lambda: text in self.log(name), 20, f"{text!r} in {name}.log")

    def logs(self) -> dict[str, str]:
        """Every log by file name: supervisord's output, the router's, the workers'."""
        paths = [*self.directory.glob("*.out"), *sorted(self.directory.glob("*.log"))]
        return {path.name: path.read_text(errors="replace") for path in paths}


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
