"""Servers for tests of the protocols: of quick pings, of usual ones, and with polling alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import socketio

from supervisor_sio import ZmqManager

#: Why each client has gone, by its Socket.IO sid.
reasons: dict[str, str] = {}


def make(name: str, **options: Any) -> socketio.Server:
    """A server with a channel of its own; its clients may join "/" and "/custom"."""
    manager = ZmqManager(channel=name)
    sio = socketio.Server(async_mode="eventlet", client_manager=manager, **options)

    @sio.on("connect")
    def connect(sid: str, environ: dict[str, Any], auth: Any = None) -> None:
        sio.save_session(sid, {"auth": auth})

    @sio.on("connect", namespace="/custom")
    def connect_custom(sid: str, environ: dict[str, Any], auth: Any = None) -> None:
        sio.emit("auth", auth or {}, to=sid, namespace="/custom")

    @sio.on("connect", namespace="/failing")
    def fail(sid: str, environ: dict[str, Any], auth: Any = None) -> None:
        raise ArithmeticError("as the test wants it")

    @sio.on("connect", namespace="/refusing")
    def refuse(sid: str, environ: dict[str, Any], auth: Any = None) -> None:
        raise socketio.exceptions.ConnectionRefusedError("not today", {"tomorrow": True})

    @sio.on("disconnect")
    def disconnect(sid: str, reason: str) -> None:
        reasons[sid] = reason

    @sio.on("echo")
    def echo(sid: str, *args: Any) -> Any:
        return args

    @sio.on("auth")
    def auth(sid: str) -> Any:
        return sio.get_session(sid)["auth"]

    @sio.on("message")
    def message(sid: str, *args: Any) -> None:
        sio.emit("message-back", args, to=sid)

    @sio.on("leave")
    def leave(sid: str) -> None:
        sio.disconnect(sid)

    @sio.on("end")
    def end(sid: str) -> None:
        sio.eio.disconnect(manager.eio_sid_from_sid(sid, "/"))

    return sio


quick = make("quick", ping_interval=0.3, ping_timeout=1.0, cors_allowed_origins="*")
usual = make("usual", cors_allowed_origins="http://friend.example")
polling = make("polling", transports=["polling"])
stiff = make("stiff", allow_upgrades=False)


def web(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(reasons).encode()]


app: Any = web
for path, server in (
    ("quick.io", quick),
    ("socket.io", usual),
    ("polling.io", polling),
    ("stiff.io", stiff),
):
    app = socketio.WSGIApp(server, app, socketio_path=path)
