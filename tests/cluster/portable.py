"""On what the test applications are built: one text for a worker of each mode.

Their handlers are coroutines that await what waits, as ``AsyncServer`` and ``AsyncZmqManager``
have it. In the other modes a coroutine is made of each of those calls, one that blocks and never
suspends, and the handlers are driven to their end.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import select
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

import engineio
import socketio

import supervisor_sio
from supervisor_sio.common.blocking import blocking, run_blocking

#: The harness sets it; ``supervisor-sio worker --async-mode`` is the same.
MODE = os.environ.get("ASYNC_MODE", "eventlet")

ASYNCIO = MODE == "asyncio"


Handler = Callable[..., Awaitable[Any]]


class Request:
    """An HTTP request that is not Socket.IO's.

    :ivar environ: its text, by WSGI's names.
    """

    def __init__(self, environ: dict[str, str], read: Callable[[], Awaitable[bytes]]) -> None:
        self.environ = environ
        self.path = environ["PATH_INFO"]
        self.query = environ["QUERY_STRING"]
        #: The next bytes of its body, none at its end.
        self.read = read


class Answer(NamedTuple):
    body: bytes = b""
    status: int = 200
    kind: str = "text/plain"

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [("Content-Type", self.kind), ("Content-Length", str(len(self.body)))]


def plain(handler: Any) -> Any:
    """A coroutine function as a plain function; other values as they are."""
    return blocking(handler) if inspect.iscoroutinefunction(handler) else handler


def _as_coroutine(call: Callable[..., Any]) -> Handler:
    """The reverse; it takes coroutine functions as callbacks."""

    @functools.wraps(call)
    async def blocks(*args: Any, **options: Any) -> Any:
        return call(*map(plain, args), **{name: plain(value) for name, value in options.items()})

    return blocks


def _waits(kind: type, name: str) -> bool:
    return inspect.iscoroutinefunction(getattr(kind, name, None))


class _Facade:
    """A synchronous object that looks like the asynchronous kind of it."""

    def __init__(self, target: Any, kind: type) -> None:
        self._target = target
        self._kind = kind

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if name == "eio":
            return _Facade(value, engineio.AsyncServer)
        if _waits(self._kind, name):
            return _as_coroutine(value)
        return _with_handlers(value) if inspect.ismethod(value) else value

    def on(self, event: str, handler: Any = None, **options: Any) -> Any:
        def register(handler: Any) -> Any:
            self._target.on(event, plain(handler), **options)
            return handler

        return register if handler is None else register(handler)

    def on_takeover(self, handler: Any = None, **options: Any) -> Any:
        return self._decorator(self._target.on_takeover, handler, options)

    def on_recovery(self, handler: Any = None, **options: Any) -> Any:
        return self._decorator(self._target.on_recovery, handler, options)

    def run_once(self, name: str, function: Any = None) -> Any:
        return self._decorator(functools.partial(self._target.run_once, name), function, {})

    def _decorator(self, call: Callable[..., Any], handler: Any, options: dict[str, Any]) -> Any:
        def register(handler: Any) -> Any:
            call(plain(handler), **options)
            return handler

        return register if handler is None else register(handler)

    def event(self, handler: Any) -> Any:
        return self.on(handler.__name__, handler)


def _with_handlers(call: Callable[..., Any]) -> Callable[..., Any]:
    """It takes coroutine functions as handlers."""

    @functools.wraps(call)
    def with_handlers(*args: Any, **options: Any) -> Any:
        return call(*map(plain, args), **options)

    return with_handlers


class _BlockingNamespace(socketio.Namespace):
    """A namespace whose handlers are coroutines, for ``socketio.Server``."""

    def trigger_event(self, event: str, *args: Any) -> Any:
        value = super().trigger_event(event, *args)
        return run_blocking(value) if inspect.iscoroutine(value) else value


for _name, _call in inspect.getmembers(socketio.Namespace, inspect.isfunction):
    if _waits(socketio.AsyncNamespace, _name) and _name != "trigger_event":
        setattr(_BlockingNamespace, _name, _as_coroutine(_call))

Namespace: Any = socketio.AsyncNamespace if ASYNCIO else _BlockingNamespace


def make(
    channel: str | None = None,
    takeover: bool = False,
    recovery: float = 0,
    connect_timeout: float = 45,
    **options: Any,
) -> tuple[Any, Any]:
    """A server of this mode with a manager of ours, and that manager."""
    among: dict[str, Any] = {} if channel is None else {"channel": channel}
    among["connect_timeout"] = connect_timeout
    if takeover:
        among["takeover"] = True
    if recovery:
        among["recovery"] = recovery
        if "RECOVERY_MAXBYTES" in os.environ:
            among["recovery_maxbytes"] = int(os.environ["RECOVERY_MAXBYTES"])
    if ASYNCIO:
        manager = supervisor_sio.AsyncZmqManager(**among)
        sio = socketio.AsyncServer(async_mode="asgi", client_manager=manager, **options)
        return sio, manager
    manager = supervisor_sio.ZmqManager(**among)
    sio = socketio.Server(async_mode=MODE, client_manager=manager, **options)
    return _Facade(sio, socketio.AsyncServer), _Facade(manager, supervisor_sio.AsyncZmqManager)


def application(
    sio: Any, other: Any = None, start: Callable[[], Awaitable[None]] | None = None, **options: Any
) -> Any:
    """The application of this mode with the server and what is beside it.

    :param start: a background task from the beginning.
    """
    if ASYNCIO:
        if start is not None:
            options["on_startup"] = lambda: sio.start_background_task(start)
        return socketio.ASGIApp(sio, other, **options)
    if start is not None:
        sio.start_background_task(start)
    return socketio.WSGIApp(sio._target, other, **options)


def web(handle: Callable[[Request], Awaitable[Answer]]) -> Any:
    """The application of this mode that answers all requests so."""
    return _asgi(handle) if ASYNCIO else _wsgi(handle)


def _wsgi(handle: Callable[[Request], Awaitable[Answer]]) -> Any:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        async def read() -> bytes:
            data: bytes = environ["wsgi.input"].read(65536)
            return data

        text = {name: value for name, value in environ.items() if isinstance(value, str)}
        answer: Answer = run_blocking(handle(Request(text, read)))
        status = {200: "200 OK", 404: "404 Not Found"}[answer.status]
        start_response(status, answer.headers)
        return [answer.body]

    return app


def _asgi(handle: Callable[[Request], Awaitable[Answer]]) -> Any:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                event = (await receive())["type"]
                await send({"type": f"{event}.complete"})
                if event == "lifespan.shutdown":
                    return
        assert scope["type"] == "http", scope

        more = True

        async def read() -> bytes:
            nonlocal more
            while more:  # what comes then is the end of the client
                message = await receive()
                more = message.get("more_body", False)
                if message.get("body"):
                    return message["body"]
            return b""

        answer = await handle(Request(_environ(scope), read))
        headers = [(name.lower().encode(), value.encode()) for name, value in answer.headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    return app


def _environ(scope: dict[str, Any]) -> dict[str, str]:
    found = {
        "REQUEST_METHOD": scope["method"],
        "PATH_INFO": scope["path"],
        "QUERY_STRING": scope["query_string"].decode(),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "wsgi.url_scheme": scope["scheme"],
        **({"HTTPS": "on"} if scope["scheme"] == "https" else {}),
        "REMOTE_ADDR": "unix",  # unless there is another
    }
    for names, address in ((("REMOTE_ADDR", "REMOTE_PORT"), scope.get("client")),
                           (("SERVER_NAME", "SERVER_PORT"), scope.get("server"))):  # fmt: skip
        found.update(zip(names, map(str, address or ())))
    for name, value in scope["headers"]:
        name = name.decode("latin-1").upper().replace("-", "_")
        prefix = "" if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_"
        found[prefix + name] = value.decode("latin-1")
    return found


def run(coroutine: Any) -> Any:
    """Run it to its end where no handler runs: in a program, or in another thread."""
    if ASYNCIO:
        return asyncio.run(coroutine)
    return run_blocking(coroutine)


def start_thread(call: Callable[[], Any]) -> threading.Thread:
    """A thread of the operating system, also where eventlet has patched them."""
    threads: Any = threading
    if MODE == "eventlet":
        import eventlet.patcher

        threads = eventlet.patcher.original("threading")
    thread: threading.Thread = threads.Thread(target=call)
    thread.start()
    return thread


async def in_thread(call: Callable[[], Any]) -> Any:
    """The value of a plain function that runs in such a thread."""
    answers: list[Any] = []
    start_thread(lambda: answers.append(call()))
    while not answers:
        await sleep(0.002)
    return answers[0]


async def sleep(seconds: float) -> None:
    """As the server's ``sleep()``, also where there is none."""
    if ASYNCIO:
        await asyncio.sleep(seconds)
    elif MODE == "eventlet":
        import eventlet

        eventlet.sleep(seconds)
    else:
        time.sleep(seconds)


async def wait_readable(descriptor: int) -> None:
    if ASYNCIO:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(descriptor, readable.set)
        await readable.wait()
        loop.remove_reader(descriptor)
    elif MODE == "eventlet":
        import eventlet.hubs

        eventlet.hubs.trampoline(descriptor, read=True)
    else:
        select.select([descriptor], [], [])
