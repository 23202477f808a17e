"""bench_app that emits at a steady rate and notes when it writes to websockets."""

from __future__ import annotations

import json
import time
from typing import Any

from bench_app import app as app
from bench_app import sio
from eventlet.websocket import RFC6455WebSocket

#: Each write of an event to a websocket: when it was over, and what was written.
writes: list[tuple[float, str]] = []
emitting = {"rate": 0.0}

send = RFC6455WebSocket.send


def send_and_note(websocket: Any, message: Any, **options: Any) -> None:
    send(websocket, message, **options)
    if isinstance(message, str) and message.startswith('42["tick",'):
        writes.append((time.monotonic(), message))


RFC6455WebSocket.send = send_and_note


def emit_all(room: str, event: str, messages: int, rate: float) -> None:
    sio.sleep(0.2)  # let the answer go first
    began = time.monotonic()
    for number in range(messages):
        ahead = began + number / rate - time.monotonic()
        if ahead > 0:
            sio.sleep(ahead)
        sio.emit(event, (number, time.monotonic()), room=room)
    emitting["rate"] = messages / (time.monotonic() - began)


@sio.on("emit_steadily")
def emit_steadily(sid: str, *args: Any) -> None:
    sio.start_background_task(emit_all, *args)


@sio.on("achieved")
def achieved(sid: str) -> float:
    """Emits a second of the last emit_steadily."""
    return emitting["rate"]


@sio.on("written")
def written(sid: str) -> list[tuple[int, float]]:
    """The number of each event that was written here, and seconds since its emit."""
    told = []
    for at, message in writes:
        _, number, emitted = json.loads(message[2:])
        told.append((number, at - emitted))
    return told
