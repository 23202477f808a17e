"""The peer of several processes in JavaScript: socket.io under @socket.io/pm2."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
from node import NODE_FILES, node_modules, node_program
from servers import (
    START_TIMEOUT,
    Server,
    free_port,
    run,
    running,
    tail,
    temporary_directory,
    wait_for_answer,
)


@contextlib.contextmanager
def pm2_cluster(workers: int = 2) -> Iterator[Server]:
    """pm2 in the foreground, which owns the port, and its workers."""
    node, programs = node_program(), node_modules() / ".bin"
    port = free_port()
    with temporary_directory() as here:
        environment = {
            "NODE_PATH": str(node_modules()),
            "PM2_HOME": str(here),
            "PM2_PORT": str(port),
            "PM2_DISABLE_VERSION_CHECK": "1",
        }
        log = here / "output.log"
        command = [node, str(programs / "pm2-runtime"), "start"]
        command += [str(NODE_FILES / "worker.js"), "-i", str(workers), "--no-auto-exit"]
        with running(command, log, environment) as process:
            wait_for_workers(log, process, workers)
            wait_for_answer(port, process, log)
            pm2 = psutil.Process(process.pid)
            yield Server(
                port,
                {"daemon": [pm2], "workers": pm2.children()},
                root=pm2,
                restart=partial(
                    run, [node, str(programs / "pm2"), "restart", "all"], here, environment
                ),
            )


def wait_for_workers(log: Path, process: subprocess.Popen[bytes], workers: int) -> None:
    """Connections that come before all workers listen to pm2 are lost."""
    deadline = time.monotonic() + START_TIMEOUT
    while log.read_text(errors="replace").count("worker ready") < workers:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"pm2 did not start:\n{tail(log)}")
        time.sleep(0.05)
