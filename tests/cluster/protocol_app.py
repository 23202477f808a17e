"""Servers for tests of the protocols: of quick pings, of usual ones, and with polling alone."""

from __future__ import annotations

import json
from typing import Any

import portable
import socketio

#: Why each client has gone, by its Socket.IO sid.
reasons: dict[str, str] = {}


def make(name: str, **options: Any) -> Any:
    """A server with a channel of its own; its clients may join "/" and "/custom"."""
    sio, manager = portable.make(name, **options)

    @sio.on("connect")
    async def connect(sid: str, environ: dict[str, Any], auth: Any = None) -> None:
        await sio.save_session(sid, {"auth": auth})

    @sio.on("connect", namespace="/custom")
    async def connect_custom(sid: str, environ: dict[str, Any], auth: Any = None) -> None:
        await sio.emit("auth", auth or {}, to=sid, namespace="/custom")

    @sio.on("connect", namespace="/failing")
    async def fail(sid: str, environ: dict[str, Any], auth: Any = None) -> None:
        raise ArithmeticError("as the test wants it")

    @sio.on("connect", namespace="/refusing")
    async def refuse(sid: str, environ: dict[str, Any], auth: Any = None) -> None:
        raise socketio.exceptions.ConnectionRefusedError("not today", {"tomorrow": True})

    @sio.on("disconnect")
    async def disconnect(sid: str, reason: str) -> None:
        reasons[sid] = reason

    @sio.on("echo")
    async def echo(sid: str, *args: Any) -> Any:
        return args

    @sio.on("auth")
    async def auth(sid: str) -> Any:
        return (await sio.get_session(sid))["auth"]

    @sio.on("message")
    async def message(sid: str, *args: Any) -> None:
        await sio.emit("message-back", args, to=sid)

    @sio.on("leave")
    async def leave(sid: str) -> None:
        await sio.disconnect(sid)

    @sio.on("end")
    async def end(sid: str) -> None:
        await sio.eio.disconnect(manager.eio_sid_from_sid(sid, "/"))

    return sio


quick = make("quick", ping_interval=0.3, ping_timeout=1.0, cors_allowed_origins="*")
patient = make("patient", ping_interval=0.3, cors_allowed_origins="*")
usual = make("usual", cors_allowed_origins="http://friend.example")
polling = make("polling", transports=["polling"])
stiff = make("stiff", allow_upgrades=False, connect_timeout=1.0)


async def web(request: portable.Request) -> portable.Answer:
    return portable.Answer(json.dumps(reasons).encode(), kind="application/json")


app: Any = portable.web(web)
for path, server in (
    ("quick.io", quick),
    ("patient.io", patient),
    ("socket.io", usual),
    ("polling.io", polling),
    ("stiff.io", stiff),
):
    app = portable.application(server, app, socketio_path=path)
