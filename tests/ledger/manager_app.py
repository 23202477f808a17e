"""Its clients say which calls of the server and its manager a worker makes, and from where."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import portable

from supervisor_sio.common.blocking import settle

sio, manager = portable.make()
app = portable.application(sio)


async def attempt(target: Any, method: str, args: list[Any], options: dict[str, Any]) -> Any:
    """What the call returns, or its error as text."""
    try:
        return await settle(getattr(target, method)(*args, **options))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@sio.event
async def whoami(sid: str) -> dict[str, Any]:
    return {"pid": os.getpid()}


@sio.event
async def echo(sid: str, *args: Any) -> Any:
    return args


@sio.event
async def server_call(sid: str, method: str, args: list[Any], options: dict[str, Any]) -> Any:
    return await attempt(sio, method, args, options)


@sio.event
async def manager_call(sid: str, method: str, args: list[Any], options: dict[str, Any]) -> Any:
    return await attempt(manager, method, args, options)


@sio.event
async def ask(sid: str, other: str, event: str, *args: Any) -> None:
    """Ask another client, and do not care whether it answers."""
    await sio.emit(event, args, to=other, callback=lambda *answer: None)


@sio.event
async def from_thread(
    sid: str, kind: str, name: str, method: str, args: list[Any], options: dict[str, Any]
) -> Any:
    """The same in a thread of the operating system: eventlet's pool, or one of its own."""
    target = sio if name == "sio" else manager

    def call() -> Any:
        return portable.run(attempt(target, method, args, options))

    if kind == "tpool":
        import eventlet.tpool

        return eventlet.tpool.execute(call)
    if kind == "threadsafe":
        loop = asyncio.get_running_loop()
        coroutine = attempt(target, method, args, options)
        return await portable.in_thread(
            lambda: asyncio.run_coroutine_threadsafe(coroutine, loop).result()
        )
    return await portable.in_thread(call)


@sio.event
async def count_in_thread(sid: str, event: str, numbers: int) -> None:
    """Nobody waits for that thread: nothing else wakes the hub."""

    def run() -> None:
        for number in range(numbers):
            portable.run(sio.emit(event, number))

    portable.start_thread(run)


if __name__ == "__main__":
    from supervisor_sio import serve

    serve(app)
