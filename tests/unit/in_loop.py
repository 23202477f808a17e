"""Objects of an asyncio loop in another thread, for tests that are written as if they blocked."""

from __future__ import annotations

import asyncio
import inspect
import threading
from contextlib import contextmanager
from typing import Any, Awaitable, Callable, Iterator

import socketio

from supervisor_sio.common.blocking import settle

_TIMEOUT = 30


@contextmanager
def running_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
        asyncio.run_coroutine_threadsafe(_cancel_others(), loop).result(_TIMEOUT)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_TIMEOUT)
        loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class InLoop:
    """Its methods are those of another object, called in the loop; coroutines are awaited."""

    def __init__(self, target: Any, loop: asyncio.AbstractEventLoop) -> None:
        vars(self).update(target=target, loop=loop)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.target, name)
        if name in ("server", "manager"):
            return InLoop(value, self.loop)
        return self._in_loop(value) if inspect.ismethod(value) else value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.target, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.target, name)

    def run(self, coroutine: Awaitable[Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(settle(coroutine), self.loop).result(_TIMEOUT)

    def _in_loop(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if _runs(self.loop):
                return method(*args, **options)

            async def called() -> Any:
                return await settle(method(*args, **options))

            return self.run(called())

        return call


def _runs(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def make_async_server(loop: asyncio.AbstractEventLoop, **options: Any) -> Any:
    """As :func:`unit.polling.make_server`."""
    server = socketio.AsyncServer(
        async_mode="asgi", monitor_clients=False, ping_interval=2, ping_timeout=2, **options
    )
    return InLoop(server, loop)


async def ask(app: Any, scope: dict[str, Any], body: bytes) -> tuple[int, bytes]:
    """The status and the body that an ASGI application answers."""
    said: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    await app(scope, receive, send)
    return said[0]["status"], b"".join(message.get("body", b"") for message in said[1:])
