"""The application of bench_app.py for asyncio, as uvicorn runs it."""

from __future__ import annotations

import os
from typing import Any

import socketio

sio = socketio.AsyncServer(async_mode="asgi")
app = socketio.ASGIApp(sio)


@sio.on("echo")
async def echo(sid: str, data: Any) -> Any:
    return data


@sio.on("worker")
async def worker(sid: str) -> int:
    return os.getpid()


@sio.on("broadcast")
async def broadcast(sid: str, times: int, payload: str) -> None:
    for _ in range(times):
        await sio.emit("news", payload)
