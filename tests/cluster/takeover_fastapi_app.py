"""A FastAPI application whose clients move to other workers, and what its handlers see."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import socketio
from fastapi import FastAPI, Request
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection

from supervisor_sio import AsyncZmqManager


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    app.state.pid = os.getpid()
    yield {"pool": {"of": os.getpid(), "lock": object()}}


app = FastAPI(lifespan=lifespan)
app.add_middleware(SessionMiddleware, secret_key="secret")
manager = AsyncZmqManager(takeover=True)
sio = socketio.AsyncServer(async_mode="asgi", client_manager=manager)
app.mount("/socket.io", socketio.ASGIApp(sio))
called: list[Any] = []


@app.get("/log-in")
async def log_in(request: Request) -> dict[str, str]:
    request.session["name"] = "somebody"
    return {}


@manager.on_takeover
async def taken_over(sid: str, environ: Any) -> None:
    called.append(["takeover", sid, environ["REMOTE_ADDR"]])


@sio.event
async def connect(sid: str, environ: Any) -> None:
    called.append(["connect", sid])
    await sio.enter_room(sid, "everybody")


@sio.event
async def disconnect(sid: str, reason: str) -> None:
    called.append(["disconnect", reason])


@sio.event
async def note(sid: str, value: Any) -> None:
    async with sio.session(sid) as session:
        session["noted"] = value


@sio.event
async def look(sid: str) -> list[Any]:
    environ = sio.get_environ(sid)
    request = HTTPConnection(environ["asgi.scope"])
    pool = request.state.pool
    seen = {
        "sid": sid,
        "address": [environ["REMOTE_ADDR"], request.client.host if request.client else ""],
        "agent": request.headers.get("User-Agent"),
        "query": request.query_params.get("EIO"),
        "url": str(request.url_for("log_in").path),
        "user": dict(request.session),
        "session": await sio.get_session(sid),
        "rooms": sorted(set(sio.rooms(sid)) - {sid}),
        "of this process": [request.app.state.pid, pool["of"]] == [os.getpid()] * 2,
    }
    return [os.getpid(), seen, called]
