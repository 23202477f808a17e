"""A process that has the application, but no client and no cluster to emit to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor_sio.common.rundir import ENVIRONMENT_VARIABLE

LINE = "emit reaches nobody: this process serves no clients and SUPERVISOR_SIO_RUN_DIR is not set\n"

APPLICATION = """
import socket, socketio
from supervisor_sio import ZmqManager
sio = socketio.Server(async_mode="threading", client_manager=ZmqManager())
"""


@pytest.mark.parametrize(
    ("before", "told"),
    [
        ("", True),
        ("pair = socket.socketpair()", True),
        ("listener = socket.create_server(('127.0.0.1', 0))", False),
        (
            "listener = socket.socket(socket.AF_UNIX); listener.bind('a.sock'); listener.listen()",
            False,
        ),
        ("from unit.polling import PollingClient; client = PollingClient(sio)", False),
        ("from supervisor_sio.cluster import sessions; sessions.expect_clients()", False),
    ],
)
def test_an_emit_that_reaches_nobody_is_told_once(tmp_path: Path, before: str, told: bool) -> None:
    emit = "sio.emit('news', 1)\n"
    environment = {k: v for k, v in os.environ.items() if k != ENVIRONMENT_VARIABLE}
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", APPLICATION + before + "\n" + emit * 2],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, LINE if told else "")
