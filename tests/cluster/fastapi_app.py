"""A FastAPI application with what such have beside Socket.IO."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import socketio
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import StreamingResponse
from starlette.middleware.sessions import SessionMiddleware
from starlette.websockets import WebSocketDisconnect

from supervisor_sio import AsyncZmqManager

#: What has happened, for the tests.
happened: list[str] = []


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    print("the application starts", flush=True)
    asyncio.get_running_loop()
    yield {"pool": f"pool of {os.getpid()}"}
    await asyncio.sleep(0.1)
    print("the application has ended", flush=True)


api = FastAPI(lifespan=lifespan)
api.add_middleware(SessionMiddleware, secret_key="secret")

manager = AsyncZmqManager()
sio = socketio.AsyncServer(async_mode="asgi", client_manager=manager, cors_allowed_origins="*")
api.mount("/socket.io", socketio.ASGIApp(sio))
app = api


class User:
    """As an application has one for each request, from its session."""

    def __init__(self, request: Request) -> None:
        name = request.session.get("name")
        if name is None:
            raise HTTPException(401, "nobody")
        self.name: str = name


CurrentUser = Annotated[User, Depends(User)]


@api.post("/login/{name}")
async def log_in(request: Request, name: str) -> dict[str, str]:
    request.session["name"] = name
    return {"name": name}


@api.get("/me")
async def me(user: CurrentUser) -> dict[str, Any]:
    return {"name": user.name, "pid": os.getpid()}


@api.get("/pool")
async def pool(request: Request) -> str:
    """Of the lifespan."""
    return str(request.state.pool)


@api.get("/events/{count}")
async def events(count: int) -> StreamingResponse:
    async def numbers() -> AsyncIterator[str]:
        try:
            for number in range(count):
                yield f"data: {number}\n\n"
                await asyncio.sleep(0.05)
        finally:
            happened.append("the stream has ended")

    return StreamingResponse(numbers(), media_type="text/event-stream")


@api.put("/upload")
async def upload(request: Request) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    async for chunk in request.stream():
        digest.update(chunk)
        size += len(chunk)
    return {"sha256": digest.hexdigest(), "size": size, "pid": os.getpid()}


@api.get("/download/{megabytes}")
async def download(megabytes: int) -> StreamingResponse:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(megabytes):
            yield bytes([number % 256]) * 1024 * 1024

    return StreamingResponse(parts(), media_type="application/octet-stream")


@api.post("/announce/{text}")
async def announce(text: str, tasks: BackgroundTasks) -> dict[str, bool]:
    tasks.add_task(say, text)
    return {"accepted": True}


async def say(text: str) -> None:
    await asyncio.sleep(0.1)
    await sio.emit("said", text)


@api.get("/blocking")
def blocking() -> int:
    """A plain function: FastAPI runs it in a thread."""
    return os.getpid()


@api.get("/happened")
async def what_happened() -> list[str]:
    return happened


@api.websocket("/ws/{room}")
async def own_websocket(websocket: WebSocket, room: str) -> None:
    """Of the application, beside those of Socket.IO."""
    if room == "closed":
        await websocket.close(4003)
        return
    await websocket.accept(subprotocol=next(iter(websocket.scope["subprotocols"]), None))
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message["code"])
            if message.get("text") is not None:
                await websocket.send_text(f"{room}: {message['text']}")
                await sio.emit("said", message["text"], room=room)
            else:
                await websocket.send_bytes(message["bytes"])
    except WebSocketDisconnect as error:
        happened.append(f"{room} is left with {error.code}")


@sio.event
async def connect(sid: str, environ: dict[str, Any], auth: Any = None) -> None:
    """The session of the middleware is in the scope of the handshake."""
    session = environ["asgi.scope"].get("session", {})
    await sio.save_session(sid, {"name": session.get("name", "nobody")})


@sio.event
async def whoami(sid: str) -> dict[str, Any]:
    session = await sio.get_session(sid)
    return {"pid": os.getpid(), "name": session["name"]}


@sio.event
async def echo(sid: str, *args: Any) -> Any:
    return args


@sio.event
async def join(sid: str, room: str) -> None:
    await sio.enter_room(sid, room)
