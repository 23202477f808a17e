"""The application every measured server runs; node/server.js is the same for Node.

BENCH_MANAGER=zmq joins it to our cluster, the address of a broker to one of stock
python-socketio. BENCH_ASYNC_MODE is eventlet, or threading.
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
    choice = os.environ.get("BENCH_MANAGER", "none")
    if choice == "none":
        return None
    if choice == "zmq":
        from supervisor_sio import ZmqManager

        return ZmqManager(**options())
    if choice.startswith("zmq+tcp://"):
        return socketio.ZmqManager(choice)
    raise SystemExit(f"BENCH_MANAGER: expected zmq, zmq+tcp://… or none, got {choice!r}")


async_mode = os.environ.get("BENCH_ASYNC_MODE", "eventlet")
sio = socketio.Server(async_mode=async_mode, client_manager=make_manager())
app = socketio.WSGIApp(sio)


@sio.on("echo")
def echo(sid: str, data: Any) -> Any:
    return data


@sio.on("join")
def join(sid: str, room: str) -> str:
    sio.enter_room(sid, room)
    return room


@sio.on("worker")
def worker(sid: str) -> int:
    return os.getpid()


@sio.on("broadcast")
def broadcast(sid: str, times: int, payload: str) -> None:
    """To all clients of all workers, so many times in a row."""
    for _ in range(times):
        sio.emit("news", payload)


@sio.on("emit_to")
def emit_to(sid: str, room: str, times: int, payload: str) -> None:
    """To a room, so many times in a row."""
    for _ in range(times):
        sio.emit("news", payload, room=room)
