"""An application with tasks: each step of one is a line in a file that all workers append to.

By hand: ``TICKS=directory python once_app.py HOST:PORT``
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

import portable

from supervisor_sio import serve

sio, manager = portable.make()

NAME = os.environ.get("SUPERVISOR_PROCESS_NAME", "")

#: Where the lines go, and seconds between them.
DIRECTORY = os.environ["TICKS"]
PAUSE = 0.05


def note(task: str, **more: Any) -> None:
    """A line is written at once and whole, so all are in the order in which they were written."""
    line = {"task": task, "worker": NAME, "pid": os.getpid(), "at": time.monotonic(), **more}
    file = os.open(os.path.join(DIRECTORY, "ticks"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, json.dumps(line).encode() + b"\n")
    finally:
        os.close(file)


def is_there(name: str) -> bool:
    return os.path.exists(os.path.join(DIRECTORY, name))


@manager.run_once("ticker")
async def ticker(lease: Any) -> None:
    """It knows nothing of its lease but the number, as long as it is ended by others."""
    try:
        while lease.held or portable.MODE != "threading":
            note("ticker", number=lease.number)
            if is_there("stop"):
                os.unlink(os.path.join(DIRECTORY, "stop"))
                os.kill(os.getpid(), signal.SIGSTOP)
            await sio.sleep(PAUSE)
    finally:
        note("ticker", number=lease.number, ended=True)


@manager.run_once("failing")
async def failing() -> None:
    """It takes no lease, and fails as long as the test wants it; then it is done."""
    note("failing")
    while not is_there("done"):
        if is_there("fail"):
            raise ArithmeticError("as the test wants it")
        await sio.sleep(PAUSE)


app = portable.application(sio)

if __name__ == "__main__":
    serve(app, *sys.argv[1:])
