"""A reader of the documents, who types their commands in a directory of their own."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

import psutil
from supervisor.xmlrpc import SupervisorTransport

from .harness import environment, wait_until


class Reader:
    """A reader in a new directory."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        # Paths of Unix sockets are short, pytest's directories are not.
        self.directory = Path(tempfile.mkdtemp(prefix="sio-"))
        self.environment = environment(TMPDIR=str(self.directory))

    def type(self, commands: str) -> str:
        """What the commands print."""
        typed = subprocess.run(
            ["sh", "-ec", commands],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert typed.returncode == 0, typed.stdout
        return typed.stdout

    def wait_ready(self, workers: int) -> None:
        transport = SupervisorTransport(None, None, f"unix://{self.directory}/supervisor.sock")
        supervisord: Any = ServerProxy("http://127.0.0.1", transport=transport)

        def ready() -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException, Fault):
                rows = supervisord.sio.getStatus()["workers"]
                return [row["state"] for row in rows] == ["ready"] * workers
            return False

        wait_until(ready, 30, f"{workers} workers are ready")

    @property
    def supervisord(self) -> int:
        pid = self.directory / "supervisord.pid"
        return int(pid.read_text()) if pid.exists() else 0

    def clean_up(self) -> None:
        pid = self.supervisord
        left = [
            process for process in psutil.process_iter() if pid and _session(process.pid) == pid
        ]
        for process in left:
            process.send_signal(signal.SIGKILL)
        psutil.wait_procs(left, 10)
        shutil.rmtree(self.directory, ignore_errors=True)


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0
