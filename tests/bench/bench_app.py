"""The application every measured server runs; BENCH_MANAGER=zmq joins it to the cluster."""

from __future__ import annotations

import os
from typing import Any

import socketio


def make_manager() -> Any:
    choice = os.environ.get("BENCH_MANAGER", "none")
    if choice == "none":
        return None
    if choice == "zmq":
        from supervisor_sio import ZmqManager

        return ZmqManager()
    raise SystemExit(f"BENCH_MANAGER: expected zmq or none, got {choice!r}")


sio = socketio.Server(async_mode="eventlet", client_manager=make_manager())
app = socketio.WSGIApp(sio)


@sio.on("echo")
def echo(sid: str, data: Any) -> Any:
    return data


@sio.on("join")
def join(sid: str, room: str) -> str:
    sio.enter_room(sid, room)
    return room
