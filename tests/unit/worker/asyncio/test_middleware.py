"""Handshakes through middleware of FastAPI and Starlette around a Socket.IO server."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import AsyncExitStack
from typing import Any

import pytest
import socketio

from supervisor_sio.worker import clients

from .rig import Rig, until

fastapi = pytest.importorskip("fastapi")

OPEN = b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n%b\r\n"
WEBSOCKET = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def make(rig: Rig, mounted: bool) -> tuple[Any, list[Any]]:
    """A FastAPI application with middleware, and the environments of its handshakes."""
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.middleware.gzip import GZipMiddleware

    sio = socketio.AsyncServer(async_mode="asgi")
    clients.install(sio, rig.runtime, 10)
    rig.runtime.engines.append(sio.eio.engine)
    environs: list[Any] = []

    @sio.event
    async def connect(sid: str, environ: Any, auth: Any) -> None:
        environs.append(environ)

    async def look(request: Any, call_next: Any) -> Any:
        if "x-refuse" in request.headers:
            return fastapi.Response("no", 401)
        request.state.user = "somebody"
        return await call_next(request)

    api = fastapi.FastAPI()
    api.add_middleware(BaseHTTPMiddleware, dispatch=look)
    api.add_middleware(GZipMiddleware)
    if mounted:
        api.mount("/socket.io", socketio.ASGIApp(sio, socketio_path=""))
        return api, environs
    return socketio.ASGIApp(sio, api), environs


@pytest.mark.parametrize("mounted", [True, False])
def test_handshakes(rig: Rig, caplog: pytest.LogCaptureFixture, mounted: bool) -> None:
    app, environs = make(rig, mounted)
    rig.use(app)

    async def test() -> None:
        client = rig.connect()
        answer = await client.request(OPEN % b"")
        assert answer.status == 200
        sid = json.loads(answer.body[1:])["sid"].encode()
        query = b"/socket.io/?EIO=4&transport=polling&sid=" + sid
        post = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n40" % query
        assert (await client.request(post)).body == b"ok"
        poll = await client.request(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % query)
        assert poll.body.startswith(b"40{")
        other = rig.connect()
        await other.send(WEBSOCKET)
        assert (await other.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")

    rig.run(test())
    assert not caplog.records
    (environ,) = environs
    scope = environ["asgi.scope"]
    assert not any(isinstance(value, AsyncExitStack) for value in scope.values())
    if mounted:
        assert scope["state"]["user"] == "somebody"
    assert environ["REMOTE_ADDR"] == "192.0.2.1"


def test_a_middleware_of_fastapi_refuses(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.use(make(rig, True)[0])

    async def test() -> None:
        client = rig.connect()
        for _ in range(2):
            answer = await client.request(OPEN % b"X-Refuse: 1\r\n")
            assert (answer.status, answer.body) == (401, b"no")
        assert (await client.request(OPEN % b"")).status == 200

    rig.run(test())
    assert not caplog.records


def test_half_a_post_is_no_post(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """The POST goes through the application, which decides whether its origin is accepted."""
    sio = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins=lambda origin, environ: True)
    clients.install(sio, rig.runtime, 10)
    got: list[Any] = []

    @sio.event
    async def said(sid: str, text: str) -> None:
        got.append(text)

    rig.use(socketio.ASGIApp(sio))

    async def test() -> None:
        client = rig.connect()
        answer = await client.request(OPEN % b"Origin: http://a\r\n")
        query = (
            b"/socket.io/?EIO=4&transport=polling&sid="
            + json.loads(answer.body[1:])["sid"].encode()
        )
        head = b"POST %b HTTP/1.1\r\nHost: x\r\nOrigin: http://a\r\nContent-Length: %d\r\n\r\n"
        assert (await client.request(head % (query, 2) + b"40")).body == b"ok"
        whole = b'42["said","one"]'
        assert (await client.request(head % (query, len(whole)) + whole)).body == b"ok"
        for shut in (True, False):
            other = rig.connect()
            await other.send(head % (query, 100) + b'42["said","two"]')
            await asyncio.sleep(0.02)
            if shut:
                other.sock.shutdown(socket.SHUT_WR)
                assert (await other.ended()).startswith(b"HTTP/1.1 400 ")
            other.sock.close()
        await until(lambda: rig.server.connections == 1)

    rig.run(test())
    assert got == ["one"] and not caplog.records
