"""An application with the habits that concern the life of its worker."""

from __future__ import annotations

import logging.config
import os
import signal
from collections.abc import Callable, Iterable
from typing import Any

import socketio

from supervisor_sio import ZmqManager

sio = socketio.Server(async_mode="eventlet", client_manager=ZmqManager())

# Without disable_existing_loggers=False, as most have it.
logging.config.dictConfig({"version": 1})


def on_sigterm(number: int, frame: object) -> None:
    sio.sleep(0.1)
    print("the application's handler has run", number, flush=True)


signal.signal(signal.SIGTERM, on_sigterm)


@sio.event
def whoami(sid: str) -> dict[str, Any]:
    return {"pid": os.getpid(), "name": os.environ.get("SUPERVISOR_PROCESS_NAME", "")}


@sio.event
def echo(sid: str, *args: Any) -> Any:
    return args


@sio.event
def fail(sid: str, why: str) -> None:
    raise ArithmeticError(why)


@sio.event
def ask(sid: str) -> Any:
    return sio.call("question", to=sid, timeout=0.5)


@sio.event
def write(sid: str, text: str) -> None:
    print(text)


def web(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/fail":
        raise ArithmeticError(environ["QUERY_STRING"])
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


app = socketio.WSGIApp(sio, web)
