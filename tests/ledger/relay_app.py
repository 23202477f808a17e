"""An application whose workers emit all the time, and write down what they have emitted.

In the directory ``RELAY_APP``: a file for each worker, named by its pid, with a
byte for each number emitted; ``sid`` holds a client to which every third goes alone.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import portable

sio, manager = portable.make()

DIRECTORY = Path(os.environ.get("RELAY_APP", "/nowhere"))
PAUSE = float(os.environ.get("RELAY_APP_PAUSE", "0"))

#: In turn, in bytes.
SIZES = [100, 1000, 20_000, 100, 60_000, 1000, 200_000, 100, 1_000_000, 17_000]


@sio.event
async def whoami(sid: str) -> dict[str, Any]:
    return {"pid": os.getpid(), "name": os.environ.get("SUPERVISOR_PROCESS_NAME", "")}


@sio.event
async def echo(sid: str, data: Any) -> Any:
    return data


def has_begun(path: str) -> None:
    """Tell who waits for it."""
    with open(path + ".begun", "w"):
        pass


@sio.event
async def block(sid: str, seconds: float) -> None:
    """Hold up this worker's loop, as an application should not."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


@sio.event
async def block_until(sid: str, path: str) -> None:
    """The same, until there is such a file."""
    has_begun(path)
    while not os.path.exists(path):
        pass


@sio.event
async def wait(sid: str, path: str) -> str:
    """As for the answer of a slow service, with nothing to make it asynchronous."""
    has_begun(path)
    while not os.path.exists(path):
        time.sleep(0.02)
    return path


@sio.event
async def burst(sid: str, event: str, count: int, size: int) -> None:
    for number in range(count):
        await sio.emit(event, (number, "x" * size))


@sio.event
async def relay(sid: str) -> dict[str, int]:
    return manager.figures()


def target() -> Any:
    try:
        return (DIRECTORY / "sid").read_text() or None
    except OSError:
        return None


async def pump() -> None:
    while not await manager.server_count() > 1 or target() is None:
        await sio.sleep(0.01)
    to = target()
    done = os.open(DIRECTORY / str(os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    number = 0
    while True:
        size = SIZES[number % len(SIZES)]
        await sio.emit(
            "pump", (os.getpid(), number, "x" * size), to=to if number % 3 == 2 else None
        )
        os.write(done, b".")
        number += 1
        await sio.sleep(PAUSE)


app = portable.application(sio, start=pump if PAUSE else None)
