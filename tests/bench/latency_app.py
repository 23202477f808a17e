"""bench_app that emits at a steady rate and notes when it writes to websockets."""

from __future__ import annotations

import json
import time
from typing import Any

from bench_app import app as app
from bench_app import sio

from supervisor_sio.worker.connection import Connection

TICK = b'42["tick",'

decoder = json.JSONDecoder()

#: What was written to a websocket, with one or more events in it: when it was over, and its bytes.
writes: list[tuple[float, bytes]] = []
emitting = {"rate": 0.0}

flush = Connection.flush


def flush_and_note(connection: Any) -> None:
    out = connection._out or []
    frames = [frame for frame in (out if isinstance(out, list) else [out]) if TICK in bytes(frame)]
    flush(connection)
    writes.extend((time.monotonic(), frame) for frame in frames)


Connection.flush = flush_and_note


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
    for at, frames in writes:
        text = str(frames, "latin-1")  # heads of frames are among it
        start = text.find(str(TICK, "ascii"))
        while start >= 0:
            (_, number, emitted), end = decoder.raw_decode(text, start + 2)
            told.append((number, at - emitted))
            start = text.find(str(TICK, "ascii"), end)
    return told
