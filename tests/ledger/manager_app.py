"""Its clients say which calls of the server and its manager a worker makes, and from where."""

from __future__ import annotations

import os
from typing import Any

import eventlet.patcher
import eventlet.tpool
import socketio

from supervisor_sio import ZmqManager

manager = ZmqManager()
sio = socketio.Server(async_mode="eventlet", client_manager=manager)
app = socketio.WSGIApp(sio)

threading: Any = eventlet.patcher.original("threading")


def attempt(target: Any, method: str, args: list[Any], options: dict[str, Any]) -> Any:
    """What the call returns, or its error as text."""
    try:
        return getattr(target, method)(*args, **options)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@sio.event
def whoami(sid: str) -> dict[str, Any]:
    return {"pid": os.getpid()}


@sio.event
def echo(sid: str, *args: Any) -> Any:
    return args


@sio.event
def server_call(sid: str, method: str, args: list[Any], options: dict[str, Any]) -> Any:
    return attempt(sio, method, args, options)


@sio.event
def manager_call(sid: str, method: str, args: list[Any], options: dict[str, Any]) -> Any:
    return attempt(manager, method, args, options)


@sio.event
def ask(sid: str, other: str, event: str, *args: Any) -> None:
    """Ask another client, and do not care whether it answers."""
    sio.emit(event, args, to=other, callback=lambda *answer: None)
