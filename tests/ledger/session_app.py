"""An application whose clients say what it does with their sessions."""

from __future__ import annotations

from typing import Any

import portable

sio, manager = portable.make(cors_allowed_origins="*")

#: What the connect handlers of "/checked" wait for.
_accepted: dict[str, Any] = {}
_order: dict[str, list[Any]] = {}


@sio.event
async def echo(sid: str, *args: Any) -> Any:
    return args


@sio.event
async def one(sid: str, argument: Any) -> Any:
    return argument


@sio.event
async def number(sid: str, value: int, *attachments: Any) -> None:
    _order.setdefault(sid, []).append(value)


@sio.event
async def numbers(sid: str) -> list[int]:
    return _order.get(sid, [])


@sio.event
async def answer_long(sid: str, length: int) -> str:
    return "x" * length


@sio.event
async def emit(sid: str, event: str, data: Any, room: Any = None) -> None:
    await sio.emit(event, data, to=room)


@sio.event
async def emit_number(sid: str, text: str) -> str | None:
    """Emit a number as Python reads it, to all; what comes of it."""
    try:
        await sio.emit("number", {"is": float(text)})
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


@sio.event
async def emit_often(sid: str, event: str, count: int) -> None:
    for value in range(count):
        await sio.emit(event, value, to=sid)


@sio.event
async def emit_long(sid: str, length: int, count: int = 1) -> None:
    """To the client itself."""
    for _ in range(count):
        await sio.emit("long", "x" * length, to=sid)
        await sio.sleep(0)


@sio.on("connect", namespace="/checked")
async def connect_checked(sid: str, environ: dict[str, Any], auth: Any) -> bool:
    """As an application that asks another about a token."""
    _accepted[auth["token"]] = None
    await sio.emit("yours", "from the handler", to=sid, namespace="/checked")
    await sio.emit("news", "from the handler", namespace="/checked")
    while _accepted[auth["token"]] is None:
        await sio.sleep(0.01)
    return bool(_accepted.pop(auth["token"]))


@sio.event
async def checking(sid: str, token: str) -> bool:
    return token in _accepted


@sio.event
async def decide(sid: str, token: str, accept: bool) -> bool:
    _accepted[token] = accept
    return True


@sio.event
async def broadcast_checked(sid: str, data: Any) -> bool:
    await sio.emit("news", data, namespace="/checked")
    return True


app = portable.application(sio)
