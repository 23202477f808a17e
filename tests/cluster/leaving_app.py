"""An application that emits after its worker has left the others, an event that the relay loses."""

from __future__ import annotations

import os
from typing import Any

import portable

sio, manager = portable.make(cors_allowed_origins="*")
app = portable.application(sio)

ours = manager if portable.ASYNCIO else manager._target
leave = ours.leave


async def leave_and_emit(*args: Any) -> None:
    await leave(*args)
    publisher = ours._publisher
    publisher._send_frame = lambda topic, data: None
    await sio.emit("last", os.getpid())
    publisher._flush()
    del publisher._send_frame


ours.leave = leave_and_emit


@sio.event
async def connect(sid: str, environ: dict[str, Any], auth: Any) -> None: ...
