"""What workers do in the runs of takeover.py and recovery.py: each emits by itself, and all write
down what they do.

TAKEOVER_DIRECTORY has the files. Emits begin when there is ``go``, a JSON list of the clients'
sids, and end when there is ``stop``. For each process:

``NAME.sent``     a line for each emit: when, and its target; one that has not returned has no
                  line's end
``NAME.handled``  a line for each call of a handler: see takeover_oracle.py
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

DIRECTORY = Path(os.environ.get("TAKEOVER_DIRECTORY", "/tmp"))
ME = f"{os.environ.get('SUPERVISOR_PROCESS_NAME', 'writer')}:{os.getpid()}"
#: Emits a second of this process.
RATE = float(os.environ.get("TAKEOVER_RATE", "100"))
#: Seconds in which lost clients may come back; with them, and without takeover.
RECOVERY = float(os.environ.get("TAKEOVER_RECOVERY", "0"))
ROOMS = 20
#: Deliveries of emits to everybody, and to rooms, for each emit.
TO_ALL, TO_ROOMS = 0.3, 0.3
#: Seconds between turns of an emitter.
TURN = 0.01

#: One in so many events is handled slowly, one in so many asks its client back.
SLOW, ASKING = 100, 50
SLOW_SECONDS = 0.2


class Journal:
    """In the kernel's keeping at once, whatever becomes of us."""

    def __init__(self, kind: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._file = os.open(DIRECTORY / f"{ME}.{kind}", flags, 0o600)

    def write(self, text: str) -> None:
        os.write(self._file, text.encode())


class Emitter:
    """Numbered events to clients, rooms and all, as the seed wants them."""

    def __init__(self, emit: Callable[..., Awaitable[None]]) -> None:
        self._emit = emit
        self._dice = random.Random(f"{os.environ.get('TAKEOVER_SEED', '0')} {ME}")
        self._numbers: Counter[str] = Counter()
        self._total = 0
        self._journal = Journal("sent")

    async def run(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        go, stop = DIRECTORY / "go", DIRECTORY / "stop"
        while not go.exists():
            await sleep(0.05)
        sids = json.loads(go.read_text())
        began = time.monotonic()
        while not stop.exists():
            while self._total < (time.monotonic() - began) * RATE:
                await self._next(sids)
            await sleep(TURN)

    async def _next(self, sids: list[str]) -> None:
        throw = self._dice.random() * len(sids)
        to = None
        if throw >= TO_ALL + TO_ROOMS * ROOMS:
            to = self._dice.choice(sids)
        elif throw >= TO_ALL:
            to = f"room-{self._dice.randrange(ROOMS)}"
        target = to or "all"
        self._numbers[target] += 1
        self._total += 1
        self._journal.write(f"{time.time():.6f} {target}")
        data = (ME, self._total, target, self._numbers[target], time.monotonic())
        await self._emit("n", data, to=to)
        self._journal.write("\n")


if os.environ.get("SUPERVISOR_PROCESS_NAME"):
    import portable

    sio, manager = portable.make(takeover=not RECOVERY, recovery=RECOVERY, cors_allowed_origins="*")
    handled = Journal("handled")

    async def emit_for_ever() -> None:
        await Emitter(sio.emit).run(sio.sleep)

    app = portable.application(sio, start=emit_for_ever)

    @sio.event
    async def connect(sid: str, environ: dict[str, Any], auth: Any) -> None:
        handled.write(f"connect {sid} @{time.monotonic()}\n")
        await sio.save_session(sid, {"key": auth["key"]})
        await sio.enter_room(sid, f"room-{auth['room']}")

    @sio.event
    async def disconnect(sid: str, reason: str) -> None:
        handled.write(f"disconnect {sid} {reason} @{time.monotonic()}\n")

    @manager.on_takeover
    async def taken_over(sid: str, environ: dict[str, Any]) -> None:
        handled.write(f"takeover {sid}\n")

    if RECOVERY:

        @manager.on_recovery
        async def recovered(sid: str, environ: dict[str, Any]) -> None:
            handled.write(f"recovery {sid}\n")

    @sio.event
    async def up(sid: str, key: str, number: int, sent: float) -> int:
        handled.write(f"up {key} {number} {sent} {time.monotonic()}\n")
        session = await sio.get_session(sid)
        if session.get("key") != key or f"key={key}" not in sio.get_environ(sid)["QUERY_STRING"]:
            handled.write(f"wrong {sid} {key}\n")
        if number % ASKING == 1:
            answer = await sio.call("ask", number, to=sid, timeout=30)
            if answer != number:
                handled.write(f"wrong {sid} {answer}\n")
        if number % SLOW == 3:
            await sio.sleep(SLOW_SECONDS)
        return number
