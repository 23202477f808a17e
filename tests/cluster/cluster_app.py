"""The application of the test clusters: its clients tell a worker what to do."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import portable

from supervisor_sio.common.blocking import settle

sio, manager = portable.make(cors_allowed_origins="*")

manager.share_session_keys("user", "picture", "unknown")

NAME = os.environ.get("SUPERVISOR_PROCESS_NAME", "")

#: What other workers have sent to this one, in each namespace.
notes: dict[str, list[Any]] = {"/": [], "/room": []}


@manager.on("note")
async def note(*args: Any) -> None:
    notes["/"].append(list(args))


@manager.on("note", namespace="/room")
async def note_in_room(*args: Any) -> None:
    notes["/room"].append(list(args))


@manager.on("ask")
async def answer(*args: Any) -> Any:
    return {"from": NAME, "got": list(args)}


@manager.on("ask_nothing")
async def answer_nothing() -> None:
    pass


@manager.on("ask_slowly")
async def answer_slowly(slow: str, seconds: float) -> str:
    """The worker of this name takes so long."""
    if slow == NAME:
        await sio.sleep(seconds)
    return NAME


@manager.on("ask_in_vain")
async def fail(failing: str) -> str:
    """The worker of this name fails."""
    if failing == NAME:
        raise ArithmeticError("as the test wants it")
    return NAME


async def attempt(call: Callable[[], Awaitable[Any]]) -> Any:
    """The error that a call ends with, as text, or ``None``."""
    try:
        await call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


async def web(request: portable.Request) -> portable.Answer:
    if request.path == "/pid":
        return portable.Answer(str(os.getpid()).encode())
    if request.path == "/environ":
        return portable.Answer(json.dumps(request.environ).encode())
    if request.path == "/wait":
        # For a file that a test makes; its name is the query.
        with open(request.query + ".begun", "w"):
            pass
        while not os.path.exists(request.query):
            await sio.sleep(0.02)
        return portable.Answer(str(os.getpid()).encode())
    if request.path == "/upload":
        digest = hashlib.sha256()
        while chunk := await request.read():
            digest.update(chunk)
        return portable.Answer(digest.hexdigest().encode())
    return portable.Answer(status=404)


app = portable.application(sio, portable.web(web))


class Events(portable.Namespace):
    """The same handlers in each namespace."""

    async def on_connect(self, sid: str, environ: dict[str, Any], auth: Any = None) -> None:
        session = {"user": f"user {sid}", "picture": b"\x00\xff", "password": "hidden"}
        await self.save_session(sid, session)

    async def on_whoami(self, sid: str) -> dict[str, Any]:
        return {"pid": os.getpid(), "name": NAME}

    async def on_echo(self, sid: str, *args: Any) -> Any:
        return args

    async def on_join(self, sid: str, room: str) -> None:
        await self.enter_room(sid, room)

    async def on_leave(self, sid: str, room: str) -> None:
        await self.leave_room(sid, room)

    async def on_emit_all(
        self, sid: str, event: str, data: Any, options: dict[str, Any], as_tuple: bool = False
    ) -> None:
        options.setdefault("namespace", self.namespace)
        await sio.emit(event, tuple(data) if as_tuple else data, **options)

    async def on_count(self, sid: str, event: str, numbers: int) -> None:
        for number in range(numbers):
            await self.emit(event, number)

    async def on_call_sid(self, sid: str, other: str, event: str, data: Any) -> Any:
        return await self.call(event, data, to=other, timeout=10)

    async def on_emit_with_callback(self, sid: str, other: str, event: str, data: Any) -> None:
        async def callback(*answer: Any) -> None:
            await self.emit("callback_result", answer, to=sid)

        await self.emit(event, data, to=other, callback=callback)

    async def on_disconnect_sid(self, sid: str, other: str) -> None:
        await self.disconnect(other)

    async def on_enter_room_of(self, sid: str, other: str, room: str) -> None:
        await self.enter_room(other, room)

    async def on_leave_room_of(self, sid: str, other: str, room: str) -> None:
        await self.leave_room(other, room)

    async def on_close_room(self, sid: str, room: str) -> None:
        await self.close_room(room)

    async def on_operation(
        self, sid: str, name: str, args: list[Any], options: dict[str, Any]
    ) -> str:
        """What a method of the manager returns, as JSON with bytes in hex.

        As it is it may have more bytes objects than socket.io-client takes in a packet.
        """
        began = time.monotonic()
        value = await settle(getattr(manager, name)(*args, **options))
        elapsed = time.monotonic() - began
        outcome = {
            "elapsed": elapsed,
            "timed_out": getattr(value, "timed_out", None),
            "missing": getattr(value, "missing", None),
        }
        if name == "fetch_sockets":
            value = [asdict(socket) for socket in value]
        return json.dumps({**outcome, "value": value}, default=lambda b: {"$hex": b.hex()})

    async def on_begin_operation(
        self, sid: str, name: str, args: list[Any], options: dict[str, Any]
    ) -> str:
        """The same, and the client hears of it while it lasts."""
        await self.emit("begun", to=sid)
        return await self.on_operation(sid, name, args, options)

    async def on_notes(self, sid: str) -> list[Any]:
        return notes[self.namespace]

    async def on_send_nonsense(self, sid: str, event: str) -> list[Any]:
        """Try to send what cannot be sent; how each attempt ends."""
        data = {"fine": b"bytes", "nonsense": object()}
        return [
            await attempt(lambda: sio.emit(event, data)),
            await attempt(lambda: sio.emit(event, data, to=sid, callback=print)),
            await attempt(lambda: manager.emit_with_acks(event, data)),
            await attempt(lambda: manager.server_side_emit("note", data)),
            await attempt(lambda: manager.server_side_call("note", data)),
            await attempt(lambda: manager.emit(event, "fine", room=data)),
        ]

    async def on_send_long(self, sid: str, event: str, length: int) -> list[Any]:
        """Try to send so many characters; how each attempt ends."""
        data = "x" * length
        return [
            await attempt(lambda: sio.emit(event, data)),
            await attempt(lambda: manager.emit_with_acks(event, data)),
            await attempt(lambda: manager.server_side_emit("note", data)),
            await attempt(lambda: manager.server_side_call("note", data)),
        ]

    async def on_emit_long(self, sid: str, event: str, length: int) -> None:
        await sio.emit(event, "x" * length)

    async def on_kill_me(self, sid: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


sio.register_namespace(Events("/"))
sio.register_namespace(Events("/room"))
