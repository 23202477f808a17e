"""The server that the test suite of the Socket.IO protocol expects."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "cluster"))

import portable

sio, manager = portable.make(
    ping_interval=0.3, ping_timeout=0.2, connect_timeout=1.0, cors_allowed_origins="*"
)


def serve(namespace: str) -> None:
    @sio.on("connect", namespace=namespace)
    async def connect(sid: str, environ: dict[str, Any], auth: Any) -> None:
        await sio.emit("auth", auth or {}, to=sid, namespace=namespace)

    @sio.on("message", namespace=namespace)
    async def message(sid: str, *args: Any) -> None:
        await sio.emit("message-back", args, to=sid, namespace=namespace)

    @sio.on("message-with-ack", namespace=namespace)
    async def message_with_ack(sid: str, *args: Any) -> Any:
        return args


serve("/")
serve("/custom")


async def web(request: portable.Request) -> portable.Answer:
    return portable.Answer(status=404)


app = portable.application(sio, portable.web(web))
