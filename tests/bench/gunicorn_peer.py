"""The peer in threads: socketio.Server on gunicorn's gthread, as wsgi/ pins them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
from installs import installed
from servers import (
    HERE,
    HOST,
    Server,
    free_port,
    run,
    running,
    temporary_directory,
    wait_for_answer,
)
from uvicorn_peer import BACKLOG

#: Each of its clients has one for as long as it is connected.
THREADS = 4096


def _install(directory: Path) -> None:
    run([sys.executable, "-m", "venv", "venv"], directory)
    command = ["venv/bin/python", "-m", "pip", "install", "--quiet", "-r", "requirements.txt"]
    run(command, directory)


@contextlib.contextmanager
def gunicorn() -> Iterator[Server]:
    python = installed([HERE / "wsgi" / "requirements.txt"], _install) / "venv" / "bin" / "python"
    port = free_port()
    command = [str(python), "-m", "gunicorn", "bench_app:app", "--chdir", str(HERE)]
    command += ["--bind", f"{HOST}:{port}", "--backlog", str(BACKLOG), "--log-level", "warning"]
    command += ["--worker-class", "gthread", "--threads", str(THREADS)]
    command += ["--worker-connections", str(2 * THREADS)]
    environment = {"BENCH_MANAGER": "none", "BENCH_ASYNC_MODE": "threading"}
    with temporary_directory() as here:
        log = here / "output.log"
        with running(command, log, environment) as process:
            wait_for_answer(port, process, log)
            yield Server(port, {"server": [psutil.Process(process.pid)]})
