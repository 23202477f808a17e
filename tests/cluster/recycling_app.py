"""The application with tasks, with a worker that leaks when a client wants it."""

from __future__ import annotations

import os
from typing import Any

from once_app import app as app
from once_app import sio

_leaked: list[bytes] = []

#: Seconds between two pieces.
_PIECE = 0.1


@sio.on("whoami")
async def whoami(sid: str) -> str:
    return os.environ["SUPERVISOR_PROCESS_NAME"]


@sio.on("echo")
async def echo(sid: str, *args: Any) -> Any:
    return args


@sio.on("leak")
async def leak(sid: str, at_once: int, more: int, rate: int) -> None:
    """So many MB, and then more at so many each second."""
    _leaked.append(b"x" * at_once * 2**20)
    for _ in range(int(more / rate / _PIECE)):
        _leaked.append(b"x" * int(rate * _PIECE * 2**20))
        await sio.sleep(_PIECE)
