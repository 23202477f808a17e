"""The same chat with FastAPI, on asyncio.

supervisor-sio worker --async-mode asyncio supervisor_sio.examples.fastapi_chat:app
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import socketio
from fastapi import FastAPI
from fastapi.responses import FileResponse

from supervisor_sio import AsyncLease, AsyncZmqManager

HERE = Path(__file__).parent
WORKER = os.environ.get("SUPERVISOR_PROCESS_NAME", "no supervisor")

manager = AsyncZmqManager(takeover=True)
sio = socketio.AsyncServer(async_mode="asgi", client_manager=manager)
web = FastAPI()
app = socketio.ASGIApp(sio, web)


@web.get("/")
async def page() -> FileResponse:
    return FileResponse(HERE / "chat.html")


@web.get("/socket.io.min.js")
async def library() -> FileResponse:
    return FileResponse(HERE / "socket.io.min.js")


@sio.event
@manager.on_takeover
async def connect(sid: str, environ: dict[str, Any]) -> None:
    await sio.emit("welcome", {"worker": WORKER, "sid": sid}, to=sid)


@sio.event
async def message(sid: str, who: str, text: str) -> None:
    await sio.emit("message", {"who": who, "text": text, "worker": WORKER})


@manager.run_once("headcount")
async def headcount(lease: AsyncLease) -> None:
    """Runs in one worker of the cluster; in all, each client would get the number several times."""
    while await lease.wait(5):
        await sio.emit("present", len(await manager.fetch_sockets()))
