"""An application whose clients say what it does with their sessions."""

from __future__ import annotations

from typing import Any

import socketio

from supervisor_sio import ZmqManager

manager = ZmqManager()
sio = socketio.Server(async_mode="eventlet", client_manager=manager, cors_allowed_origins="*")

#: What the connect handlers of "/checked" wait for.
_accepted: dict[str, Any] = {}
_order: dict[str, list[Any]] = {}


@sio.event
def echo(sid: str, *args: Any) -> Any:
    return args


@sio.event
def one(sid: str, argument: Any) -> Any:
    return argument


@sio.event
def number(sid: str, value: int, *attachments: Any) -> None:
    _order.setdefault(sid, []).append(value)


@sio.event
def numbers(sid: str) -> list[int]:
    return _order.get(sid, [])


@sio.event
def answer_long(sid: str, length: int) -> str:
    return "x" * length


@sio.event
def emit(sid: str, event: str, data: Any, room: Any = None) -> None:
    sio.emit(event, data, to=room)


@sio.event
def emit_number(sid: str, text: str) -> str | None:
    """Emit a number as Python reads it, to all; what comes of it."""
    try:
        sio.emit("number", {"is": float(text)})
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


@sio.event
def emit_often(sid: str, event: str, count: int) -> None:
    for value in range(count):
        sio.emit(event, value, to=sid)


@sio.event
def emit_long(sid: str, length: int, count: int = 1) -> None:
    """To the client itself."""
    for _ in range(count):
        sio.emit("long", "x" * length, to=sid)
        sio.sleep(0)


@sio.on("connect", namespace="/checked")
def connect_checked(sid: str, environ: dict[str, Any], auth: Any) -> bool:
    """As an application that asks another about a token."""
    _accepted[auth["token"]] = None
    sio.emit("yours", "from the handler", to=sid, namespace="/checked")
    sio.emit("news", "from the handler", namespace="/checked")
    while _accepted[auth["token"]] is None:
        sio.sleep(0.01)
    return bool(_accepted.pop(auth["token"]))


@sio.event
def checking(sid: str, token: str) -> bool:
    return token in _accepted


@sio.event
def decide(sid: str, token: str, accept: bool) -> bool:
    _accepted[token] = accept
    return True


@sio.event
def broadcast_checked(sid: str, data: Any) -> bool:
    sio.emit("news", data, namespace="/checked")
    return True


app = socketio.WSGIApp(sio)
