"""A worker on asyncio without a router: connections over socket pairs, with real uvicorn."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any, Callable, Optional

from supervisor_sio.common.request import Request
from supervisor_sio.worker.asyncio.asgi import Application
from supervisor_sio.worker.asyncio.runtime import AsyncioRuntime
from supervisor_sio.worker.connection import Connection
from supervisor_sio.worker.server import Server

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def post(length: int) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % length


async def until(condition: Callable[[], Any], seconds: float = 20) -> Any:
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError("it did not happen")
        await asyncio.sleep(0.002)


class Rig:
    """A server with one ASGI application, on its own loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.runtime = AsyncioRuntime(loop)
        self.application: Application
        self.server: Server
        self.kept: Callable[[Request], bool] = lambda request: True
        #: What came back to the router: descriptors are not moved here.
        self.handed_back: list[bytes] = []
        self._clients: list[Client] = []

    def use(self, app: Any) -> None:
        self.runtime.application = self.application = Application(app, self.runtime)
        self.server = Server(
            app, self.runtime, lambda r: self.kept(r), self._hand_back, lambda: None
        )
        self.server.paths = (b"/socket.io/",)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run a test, and check that it leaves no connection behind."""

        async def test() -> None:
            await asyncio.wait_for(coroutine, 60)
            for client in self._clients:
                client.sock.close()
            await until(lambda: not self.server.connections)

        self.runtime.run_until_complete(test())

    def connect(self, peer: Any = ("192.0.2.1", 5), **options: Any) -> Client:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        made = Connection(self.server, ours, peer, ("192.0.2.2", 80), **options)
        self.runtime.call_soon(made.open)
        self._clients.append(Client(theirs, made))
        return self._clients[-1]

    def _hand_back(self, connection: Connection, prefix: bytes) -> None:
        self.handed_back.append(prefix)
        self.runtime.call_soon(connection.moved, True)


class Client:
    def __init__(self, sock: socket.socket, connection: Connection) -> None:
        self.sock = sock
        self.connection = connection
        self.data = b""
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.sock, data)

    async def until(self, part: bytes) -> bytes:
        """Read up to this part; the next call begins behind it."""
        while part not in self.data:
            await self._read(part)
        before, _, self.data = self.data.partition(part)
        return before

    async def take(self, size: int) -> bytes:
        pieces, have = [self.data], len(self.data)
        while have < size:
            self.data = b""
            await self._read(size)
            pieces.append(self.data)
            have += len(self.data)
        data = b"".join(pieces)
        self.data = data[size:]
        return data[:size]

    async def ended(self) -> bytes:
        """Read until the end of the connection."""
        while True:
            more = await asyncio.wait_for(self._loop.sock_recv(self.sock, 65536), 20)
            if not more:
                data, self.data = self.data, b""
                return data
            self.data += more

    async def _read(self, what: object) -> None:
        more = await asyncio.wait_for(self._loop.sock_recv(self.sock, 65536), 20)
        if not more:
            raise AssertionError(f"ended without {what!r}: {self.data!r}")
        self.data += more

    async def request(self, data: bytes) -> Answer:
        await self.send(data)
        return await self.answer()

    async def answer(self, has_body: bool = True) -> Answer:
        """Read the next response, with a length or chunked."""
        head = await self.until(b"\r\n\r\n")
        line, *fields = head.split(b"\r\n")
        named = dict(field.lower().split(b": ", 1) for field in fields)
        pieces = []
        if has_body and b"content-length" in named:
            pieces.append(await self.take(int(named[b"content-length"])))
        elif has_body and named.get(b"transfer-encoding") == b"chunked":
            while size := int(await self.until(b"\r\n"), 16):
                pieces.append(await self.take(size))
                await self.until(b"\r\n")
            await self.until(b"\r\n")
        return Answer(int(line.split(b" ")[1]), named, b"".join(pieces))


class Answer:
    def __init__(self, status: int, fields: dict[bytes, bytes], body: bytes) -> None:
        self.status = status
        self.fields = fields
        self.body = body


def answering(
    body: bytes = b"served", status: int = 200, seen: Optional[list[Any]] = None
) -> Callable[..., Any]:
    """An application that always gives this response, and records the scopes."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        if seen is not None:
            seen.append(scope)
        length = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": length})
        await send({"type": "http.response.body", "body": body})

    return app
