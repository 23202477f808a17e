"""An application with the habits that concern the life of its worker."""

from __future__ import annotations

import logging.config
import os
import signal
import sys
import time
from typing import Any

import portable

sio, _ = portable.make()

# Without disable_existing_loggers=False, as most have it.
logging.config.dictConfig({"version": 1})


def on_sigterm(number: int, frame: object) -> None:
    time.sleep(0.1)
    print("the application's handler has run", number, flush=True)


signal.signal(signal.SIGTERM, on_sigterm)


@sio.event
async def whoami(sid: str) -> dict[str, Any]:
    return {"pid": os.getpid(), "name": os.environ.get("SUPERVISOR_PROCESS_NAME", "")}


@sio.event
async def echo(sid: str, *args: Any) -> Any:
    return args


@sio.event
async def fail(sid: str, why: str) -> None:
    raise ArithmeticError(why)


@sio.event
async def leave(sid: str, status: Any) -> None:
    sys.exit(status)


@sio.event
async def leave_later(sid: str, status: Any) -> None:
    task = exit_soon if portable.ASYNCIO else portable.plain(exit_soon)
    sio.start_background_task(task, status)


async def exit_soon(status: Any) -> None:
    sys.exit(status)


@sio.event
async def ask(sid: str) -> Any:
    return await sio.call("question", to=sid, timeout=0.5)


@sio.event
async def write(sid: str, text: str) -> None:
    print(text)


async def web(request: portable.Request) -> portable.Answer:
    if request.path == "/fail":
        raise ArithmeticError(request.query)
    return portable.Answer(str(os.getpid()).encode())


app = portable.application(sio, portable.web(web))

if portable.ASYNCIO:
    answering = app

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope.get("path") != "/no-answer":
            await answering(scope, receive, send)
