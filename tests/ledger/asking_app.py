"""Its workers answer what processes that serve nobody ask."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import portable

sio, manager = portable.make(takeover=True)
app = portable.application(sio)


@sio.event
async def whoami(sid: str) -> dict[str, Any]:
    return {"pid": os.getpid()}


@sio.event
async def emit_many(sid: str, count: int) -> None:
    for number in range(count):
        await sio.emit("number", number)


@manager.on("double")
async def double(value: Any) -> Any:
    return 2 * value


@manager.on("wait")
async def wait(path: str) -> int:
    """For a file that a test makes."""
    Path(f"{path}.{os.getpid()}").touch()
    while not os.path.exists(path):
        await portable.sleep(0.02)
    return 1
