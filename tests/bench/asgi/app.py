"""The application of bench_app.py for asyncio, as uvicorn runs it, or a worker of ours.

BENCH_MANAGER=zmq joins it to our cluster; with BENCH_JSON=orjson that codes its JSON.
"""

from __future__ import annotations

import os
from typing import Any

import socketio


def options() -> dict[str, Any]:
    found: dict[str, Any] = {}
    if os.environ.get("BENCH_TAKEOVER"):
        found["takeover"] = True
    if os.environ.get("BENCH_RECOVERY"):
        found["recovery"] = float(os.environ["BENCH_RECOVERY"])
    return found


def make_manager() -> Any:
    if os.environ.get("BENCH_MANAGER") != "zmq":
        return None
    from supervisor_sio import AsyncZmqManager

    return AsyncZmqManager(**options())


class Orjson:
    """orjson, as python-socketio calls a module for JSON."""

    @staticmethod
    def dumps(value: Any, **_: Any) -> str:
        return orjson.dumps(value).decode()

    @staticmethod
    def loads(text: Any, **_: Any) -> Any:
        return orjson.loads(text)


codec = None
if os.environ.get("BENCH_JSON") == "orjson":
    import orjson

    codec = Orjson

sio = socketio.AsyncServer(async_mode="asgi", client_manager=make_manager(), json=codec)
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
