"""Socket.IO servers of each mode, served over socket pairs in the thread of the tests.

While a test sleeps, the worker's own runtime runs: the hub, or an asyncio loop. Handlers are
written once, as coroutine functions; each :class:`App` provides the functions with which they
wait.
"""

from __future__ import annotations

import asyncio
import re
import socket
import sys
import threading
import time
import warnings
from typing import Any, Callable, ClassVar, Coroutine, Optional

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import eventlet

import socketio

from supervisor_sio import AsyncZmqManager, ZmqManager
from supervisor_sio.cluster import sessions
from supervisor_sio.common.blocking import run_blocking
from supervisor_sio.engine.frames import TEXT
from supervisor_sio.worker.asyncio.install import install as install_async
from supervisor_sio.worker.asyncio.runtime import AsyncioRuntime
from supervisor_sio.worker.connection import Connection
from supervisor_sio.worker.eventlet.install import install as install_green
from supervisor_sio.worker.eventlet.runtime import HubRuntime
from supervisor_sio.worker.server import Server
from supervisor_sio.worker.threads.install import install as install_threads
from supervisor_sio.worker.threads.runtime import ThreadsRuntime
from supervisor_sio.worker.tracebacks import FEW_TRACEBACKS
from unit.client_frames import masked

HANDSHAKE = (
    "GET /socket.io/?EIO=4&transport=websocket{sid} HTTP/1.1\r\nHost: x\r\n"
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: {version}\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

#: Seconds for what has to happen.
PATIENCE = 20


class Client:
    """One connection, with the bytes that it has received."""

    def __init__(self, app: App) -> None:
        self._sleep = app.sleep
        ours, self.sock = socket.socketpair()
        self.sock.setblocking(False)
        self.data = b""
        ours.setblocking(False)
        made = Connection(app.http, ours, ("192.0.2.1", 5), ("192.0.2.2", 80))
        app.runtime.call_soon(made.open)
        app.clients.append(self)

    def send(self, data: bytes) -> None:
        self.sock.send(data)

    def text(self, *texts: str) -> None:
        self.send(b"".join(masked(TEXT, text.encode()) for text in texts))

    def wait(self, condition: Callable[[bytes], Any], what: str) -> Any:
        deadline = time.monotonic() + PATIENCE
        while not (found := condition(self.data)):
            assert time.monotonic() < deadline, f"no {what} in {self.data[-300:]!r}"
            try:
                more = self.sock.recv(65536)
                assert more, f"ended without {what}: {self.data[-300:]!r}"
                self.data += more
            except BlockingIOError:
                self._sleep(0.002)
        return found

    def until(self, part: bytes) -> bytes:
        """Read up to this part; the next call begins behind it."""
        self.wait(lambda data: part in data, repr(part))
        before, _, self.data = self.data.partition(part)
        return before

    def until_all(self, *parts: bytes) -> None:
        """Read until all of these have arrived, in any order: threads run in parallel."""
        self.wait(lambda data: all(part in data for part in parts), repr(parts))

    def ended(self) -> bytes:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                more = self.sock.recv(65536)
                if not more:
                    return self.data
                self.data += more
            except BlockingIOError:
                self._sleep(0.002)
            except ConnectionResetError:
                return self.data
        raise AssertionError(f"it has not ended: {self.data[-300:]!r}")

    def http(self, method: str, sid: str = "", body: str = "") -> str:
        target = "/socket.io/?EIO=4&transport=polling" + (f"&sid={sid}" if sid else "")
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        self.send((head + body).encode())
        head = self.until(b"\r\n\r\n").decode()
        length = int(re.search(r"Content-Length: (\d+)", head)[1])  # type: ignore[index]
        self.wait(lambda data: len(data) >= length, "body")
        body, self.data = self.data[:length].decode(), self.data[length:]
        assert " 200 " in head, head + body
        return body

    def open_websocket(self, sid: str = "", version: int = 13) -> None:
        extra = f"&sid={sid}" if sid else ""
        self.send(HANDSHAKE.format(sid=extra, version=version).encode())
        self.until(b"HTTP/1.1 101 Switching Protocols\r\n")
        self.until(b"\r\n\r\n")


class App:
    """A server with a few handlers that record their calls."""

    mode: ClassVar[str]
    runtime: Any
    #: What a handler may wait for, and a test lets happen.
    go_on: Any

    def __init__(
        self,
        takeover: bool = False,
        max_attachments: int = 10,
        recovery: float = 0,
        connect_timeout: float = 45,
        **options: Any,
    ) -> None:
        of_manager: dict[str, Any] = {
            "max_attachments": max_attachments,
            "takeover": takeover,
            "connect_timeout": connect_timeout,
        }
        if recovery:
            of_manager["recovery"] = recovery
        self.sio = self.make_server(of_manager, monitor_clients=False, **options)
        self.http = Server(
            self.make_application(),
            self.runtime,
            lambda request: True,
            lambda connection, data: None,
            lambda: None,
        )
        self.seen: list[Any] = []
        #: How many handlers have begun to wait; an event that came may be in a queue.
        self.waiting = 0
        self.clients: list[Client] = []
        for name in ("disconnect", "echo", "wait", "fail", "order"):
            self.on(name, getattr(self, name))

    def make_server(self, of_manager: dict[str, Any], **options: Any) -> Any:
        manager = ZmqManager(**of_manager)
        return socketio.Server(async_mode=self.mode, client_manager=manager, **options)

    def make_application(self) -> Any:
        return socketio.WSGIApp(self.sio)

    def sleep(self, seconds: float) -> None:
        """Let the worker run several times, see :func:`unit.worker.turns.let_run`."""
        for _ in range(5):
            self.sleep_once(seconds / 5)

    def sleep_once(self, seconds: float) -> None:
        raise NotImplementedError

    async def nap(self, seconds: float) -> None:
        """In a handler: let others run."""
        raise NotImplementedError

    def as_handler(self, function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        """Convert coroutine functions that never suspend in this mode."""
        return lambda *args: run_blocking(function(*args))

    def on(
        self, event: str, handler: Callable[..., Coroutine[Any, Any, Any]], namespace: str = "/"
    ) -> None:
        self.sio.on(event, self.as_handler(handler), namespace=namespace)

    async def settled(self, result: Any) -> Any:
        """In a handler: the result of a method of the server."""
        return result

    def do(self, result: Any) -> Any:
        """In a test: the result of a method of the server."""
        return result

    def emit(self, *args: Any, **kwargs: Any) -> None:
        self.do(self.sio.emit(*args, **kwargs))

    # --- handlers

    async def disconnect(self, sid: str, reason: str) -> None:
        self.seen.append(reason)

    async def echo(self, sid: str, *data: Any) -> Any:
        self.seen.append(data)
        return data

    async def wait(self, sid: str) -> str:
        self.waiting += 1
        await self.settled(self.go_on.wait())
        return "waited"

    async def fail(self, sid: str) -> None:
        raise ValueError("a mistake of the application")

    async def order(self, sid: str, number: int) -> None:
        self.seen.append(number)
        await self.nap(0.02 if number == 1 else 0)
        self.seen.append(-number)

    # --- what it has come to

    @property
    def session(self) -> Any:
        (session,) = self.sio.eio.sockets.values()
        return session

    @property
    def sid(self) -> str:
        """The sid of the only client of the namespace ``/``."""
        ((sid, _),) = self.sio.manager.get_participants("/", None)
        return str(sid)

    def settle(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            self.sleep(0.002)

    def gone(self) -> None:
        """Close all connections, and check that nothing is left."""
        for client in self.clients:
            client.sock.close()
        self.settle(lambda: not self.sio.eio.sockets and not self.http.connections)
        assert not self.sio.environ and not self.sio.manager.rooms


class _GreenEvent:
    def __init__(self) -> None:
        self._event = eventlet.event.Event()
        self.set, self.wait = self._event.send, self._event.wait


class GreenApp(App):
    """On eventlet."""

    mode = "eventlet"
    install = staticmethod(install_green)
    make_runtime = HubRuntime.of_this_process

    def __init__(self, *args: Any, **options: Any) -> None:
        self.runtime = HubRuntime.of_this_process()
        self.go_on = _GreenEvent()
        super().__init__(*args, **options)

    def sleep_once(self, seconds: float) -> None:
        eventlet.sleep(seconds)

    async def nap(self, seconds: float) -> None:
        eventlet.sleep(seconds)


class _LoopApp(App):
    def sleep_once(self, seconds: float) -> None:
        self.runtime.loop.run_until_complete(asyncio.sleep(seconds))


class AsyncApp(_LoopApp):
    """On asyncio, with an ``AsyncServer``."""

    mode = "asyncio"
    install = staticmethod(install_async)
    make_runtime = AsyncioRuntime

    def __init__(self, *args: Any, **options: Any) -> None:
        self.runtime = AsyncioRuntime.of_this_process()
        self.go_on = asyncio.Event()
        super().__init__(*args, **options)

    def make_server(self, of_manager: dict[str, Any], **options: Any) -> Any:
        manager = AsyncZmqManager(**of_manager)
        return socketio.AsyncServer(async_mode="asgi", client_manager=manager, **options)

    def make_application(self) -> Any:
        # uvicorn's, which Pythons without asyncio workers need not have.
        from supervisor_sio.worker.asyncio.asgi import Application

        app = socketio.ASGIApp(self.sio)
        self.runtime.application = Application(app, self.runtime)
        return app

    async def nap(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def as_handler(self, function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        return function

    async def settled(self, result: Any) -> Any:
        return await result

    def do(self, result: Any) -> Any:
        return self.runtime.loop.run_until_complete(result)


class ThreadApp(_LoopApp):
    """With handlers in threads."""

    mode = "threading"
    install = staticmethod(install_threads)
    make_runtime = ThreadsRuntime

    def __init__(self, *args: Any, **options: Any) -> None:
        self.runtime = ThreadsRuntime.of_this_process()
        self.go_on = threading.Event()
        super().__init__(*args, **options)

    async def nap(self, seconds: float) -> None:
        time.sleep(seconds)


APPS: list[type[App]] = [GreenApp]
if sys.version_info >= (3, 10):
    APPS += [AsyncApp, ThreadApp]

#: One of each kind for all tests: their threads and descriptors have no end.
_runtimes: dict[Any, Any] = {}


def serve_by(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process a worker of this mode until the test ends."""
    monkeypatch.setattr(sessions, "_install", kind.install)
    if kind not in _runtimes:
        _runtimes[kind] = kind.make_runtime()
        FEW_TRACEBACKS.look(_runtimes[kind])
    if isinstance(_runtimes[kind], AsyncioRuntime):
        monkeypatch.setattr(AsyncioRuntime, "_of_this_process", _runtimes[kind])


def connect(app: App, client: Optional[Client] = None, auth: str = "") -> Client:
    client = client or Client(app)
    client.open_websocket()
    client.until(b'"maxPayload":')
    client.text("40" + auth)
    client.until(b'40{"sid":"')
    client.until(b'"}')
    return client


def open_session(app: App, client: Client) -> str:
    """Open a session with polling, and connect to the namespace ``/``."""
    sid = re.search('"sid":"([^"]+)"', client.http("GET"))[1]  # type: ignore[index]
    client.http("POST", sid, "40")
    assert client.http("GET", sid).startswith("40{")
    return sid


def upgrade(app: App) -> tuple[Client, Client, str]:
    polling, websocket = Client(app), Client(app)
    sid = open_session(app, polling)
    websocket.open_websocket(sid)
    return polling, websocket, sid


def end(app: App) -> None:
    for session in list(app.sio.eio.sockets.values()):
        session.close(abort=True)
    app.gone()
