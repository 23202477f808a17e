"""What clients of every kind are tested with: a server with JSON, and one with msgpack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import portable

import supervisor_sio

#: Why each client has gone, by its Socket.IO sid; and what each one has come with.
reasons: dict[str, str] = {}
auths: dict[str, Any] = {}
_uploaded: dict[str, int] = {}

PAGE = b"""<!DOCTYPE html>
<title>clients</title>
<script src="/client.js"></script>
"""
CLIENT = Path(supervisor_sio.__file__).parent / "examples" / "socket.io.min.js"


_made: list[tuple[Any, Any]] = []


def make(name: str, **options: Any) -> Any:
    # In threads those of one client would else run side by side.
    in_turn = portable.MODE == "threading"
    sio, manager = portable.make(
        name, cors_allowed_origins="*", async_handlers=not in_turn, **options
    )
    _made.append((sio, manager))

    @sio.on("connect")
    async def connect(sid: str, environ: dict[str, Any], auth: Any) -> None:
        auths[sid] = repr(auth)

    @sio.on("disconnect")
    async def disconnect(sid: str, reason: str) -> None:
        reasons[sid] = reason

    @sio.on("echo")
    async def echo(sid: str, *args: Any) -> Any:
        return args

    @sio.on("leave")
    async def leave(sid: str) -> None:
        await sio.disconnect(sid)

    @sio.on("chunk")
    async def chunk(sid: str, data: bytes) -> None:
        _uploaded[sid] = _uploaded.get(sid, 0) + len(data)

    @sio.on("done")
    async def done(sid: str) -> int:
        """Bytes of the chunks that have come."""
        return _uploaded.pop(sid, 0)

    return sio


def polling() -> dict[str, bool]:
    """The clients, by their sids, whose poll waits."""
    found = {}
    for sio, manager in _made:
        for sid in auths:
            session = sio.eio.sockets.get(manager.eio_sid_from_sid(sid, "/"))
            if session is not None and "poll" in session.connections():
                found[sid] = True
    return found


async def web(request: portable.Request) -> portable.Answer:
    if request.path == "/client.js":
        return portable.Answer(CLIENT.read_bytes(), kind="text/javascript")
    if request.path == "/told":
        told = {"reasons": reasons, "auths": auths, "polling": polling()}
        return portable.Answer(json.dumps(told).encode(), kind="application/json")
    return portable.Answer(PAGE, kind="text/html")


app: Any = portable.web(web)
for path, server in (
    ("socket.io", make("plain")),
    ("packed.io", make("packed", serializer="msgpack")),
):
    app = portable.application(server, app, socketio_path=path)
