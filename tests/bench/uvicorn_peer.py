"""The peer on asyncio: socketio.AsyncServer on uvicorn and uvloop, as asgi/ pins them."""

from __future__ import annotations

import contextlib
import subprocess
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

ASGI_FILES = HERE / "asgi"

#: As ours and the other peers'; uvicorn's default is 2048.
BACKLOG = 4096


def python() -> str:
    """That of an environment of its own: its versions are not those of this package."""
    requirements = ASGI_FILES / "requirements.txt"
    return str(installed([requirements], _install) / "venv" / "bin" / "python")


def uvicorn_version() -> str:
    command = [python(), "-c", "import uvicorn; print(uvicorn.__version__)"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def _install(directory: Path) -> None:
    run([sys.executable, "-m", "venv", "venv"], directory)
    command = ["venv/bin/python", "-m", "pip", "install", "--quiet", "-r", "requirements.txt"]
    run(command, directory)


@contextlib.contextmanager
def uvicorn() -> Iterator[Server]:
    port = free_port()
    command = [python(), "-m", "uvicorn", "app:app", "--app-dir", str(ASGI_FILES)]
    command += ["--host", HOST, "--port", str(port), "--backlog", str(BACKLOG)]
    command += ["--log-level", "warning", "--no-access-log"]
    with temporary_directory() as here:
        log = here / "output.log"
        with running(command, log) as process:
            wait_for_answer(port, process, log)
            yield Server(port, {"server": [psutil.Process(process.pid)]})
