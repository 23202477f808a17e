"""What workers do in the chaos run: each emits by itself, and writes down what it has emitted.

CHAOS_DIRECTORY has a journal for each process, and ends the emits by a file "stop".
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from typing import Any

import eventlet
import socketio

from supervisor_sio import ZmqManager

ROOMS = 5
#: Seconds between the emits of a worker, and for an acknowledgement.
PAUSE = 0.05
#: Now and then so many emits follow each other without a pause, none of them over 20 KB.
BURST = 100
ACK_TIMEOUT = 20

DIRECTORY = os.environ.get("CHAOS_DIRECTORY", "/tmp")
ME = f"{os.environ.get('SUPERVISOR_PROCESS_NAME', 'worker')}:{os.getpid()}"
SIZES = [100] * 60 + [1_000] * 25 + [20_000] * 12 + [200_000] * 2 + [1_000_000]

manager = ZmqManager()
sio = socketio.Server(async_mode="eventlet", client_manager=manager, cors_allowed_origins="*")
app = socketio.WSGIApp(sio)

dice = random.Random(f"{os.environ.get('CHAOS_SEED', '0')} {ME}")
#: Of clients everywhere that have said they are ready.
sids: list[str] = []
numbers: Counter[str] = Counter()


class Journal:
    """One JSON line for each step; in the kernel's keeping at once, whatever becomes of us."""

    def __init__(self) -> None:
        self._file = os.open(
            f"{DIRECTORY}/{ME}.journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
        )

    def write(self, kind: str, **fields: Any) -> None:
        line = json.dumps({"kind": kind, "at": time.time(), **fields})
        os.write(self._file, line.encode() + b"\n")


@manager.on("ready")
def ready_somewhere(sid: str) -> None:
    sids.append(sid)


@manager.on("gone")
def gone_somewhere(sid: str) -> None:
    if sid in sids:
        sids.remove(sid)


@sio.on("ready")
def ready(sid: str, index: int) -> None:
    sio.enter_room(sid, f"room-{index % ROOMS}")
    sids.append(sid)
    manager.server_side_emit("ready", sid)


@sio.on("echo")
def echo(sid: str, *args: Any) -> Any:
    return args


@sio.event
def disconnect(sid: str, reason: str) -> None:
    gone_somewhere(sid)
    manager.server_side_emit("gone", sid)


def target() -> str | None:
    kind = dice.randrange(3)
    if kind == 0 or (kind == 2 and not sids):
        return None
    return dice.choice(sids) if kind == 2 else f"room-{dice.randrange(ROOMS)}"


def emit(journal: Journal, most_bytes: int) -> None:
    to = target()
    stream = f"{ME} {to or 'all'}"
    numbers[stream] += 1
    numbers["total"] += 1
    step = {"stream": stream, "number": numbers[stream], "total": numbers["total"]}
    size = min(dice.choice(SIZES), most_bytes)
    journal.write("begun", **step)
    sio.emit("n", (stream, step["number"], step["total"], size, "x" * size), to=to)
    journal.write("done", size=size, **step)


def emit_for_ever(journal: Journal) -> None:
    while not os.path.exists(f"{DIRECTORY}/stop"):
        eventlet.sleep(PAUSE)
        emit(journal, SIZES[-1])
        if not dice.randrange(100):
            for _ in range(BURST):
                emit(journal, 20_000)
    journal.write("stopped")


def ask_for_ever(journal: Journal) -> None:
    """For an acknowledgement of somebody, anywhere, now and then."""
    number = 0
    while not os.path.exists(f"{DIRECTORY}/stop"):
        eventlet.sleep(1)
        if not sids:
            continue
        number += 1
        sid = dice.choice(sids)
        journal.write("asks", sid=sid, number=number)
        try:
            answer = sio.call("ask", number, to=sid, timeout=ACK_TIMEOUT)
            journal.write("answered", sid=sid, number=number, right=answer == number)
        except socketio.exceptions.TimeoutError:
            journal.write("unanswered", sid=sid, number=number)


def begin() -> None:
    """Once there is somebody to emit to: then the worker serves."""
    while not sids and not os.path.exists(f"{DIRECTORY}/stop"):
        eventlet.sleep(0.1)
    journal = Journal()
    journal.write("begins")
    eventlet.spawn(ask_for_ever, journal)
    emit_for_ever(journal)


if os.environ.get("SUPERVISOR_PROCESS_NAME"):
    eventlet.spawn_after(1, begin)
