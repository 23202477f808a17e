"""Its clients say which calls of the server and its manager a worker makes, and from where."""

from __future__ import annotations

import os
from typing import Any

import eventlet.patcher
import eventlet.tpool
import socketio

from supervisor_sio import ZmqManager

manager = ZmqManager()
sio = socketio.Server(async_mode="eventlet", client_manager=manager)
app = socketio.WSGIApp(sio)

threading: Any = eventlet.patcher.original("threading")


def attempt(target: Any, method: str, args: list[Any], options: dict[str, Any]) -> Any:
    """What the call returns, or its error as text."""
    try:
        return getattr(target, method)(*args, **options)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@sio.event
def whoami(sid: str) -> dict[str, Any]:
    return {"pid": os.getpid()}


@sio.event
def echo(sid: str, *args: Any) -> Any:
    return args


@sio.event
def server_call(sid: str, method: str, args: list[Any], options: dict[str, Any]) -> Any:
    return attempt(sio, method, args, options)


@sio.event
def manager_call(sid: str, method: str, args: list[Any], options: dict[str, Any]) -> Any:
    return attempt(manager, method, args, options)


@sio.event
def ask(sid: str, other: str, event: str, *args: Any) -> None:
    """Ask another client, and do not care whether it answers."""
    sio.emit(event, args, to=other, callback=lambda *answer: None)


@sio.event
def from_thread(
    sid: str, kind: str, target: str, method: str, args: list[Any], options: dict[str, Any]
) -> Any:
    """The same in a thread of the operating system: eventlet's pool, or one of its own."""
    call = attempt, {"sio": sio, "manager": manager}[target], method, args, options
    if kind == "tpool":
        return eventlet.tpool.execute(*call)
    answers: list[Any] = []
    threading.Thread(target=lambda: answers.append(call[0](*call[1:]))).start()
    while not answers:
        eventlet.sleep(0.002)
    return answers[0]


@sio.event
def count_in_thread(sid: str, event: str, numbers: int) -> None:
    """Nobody waits for that thread: nothing else wakes the hub."""

    def run() -> None:
        for number in range(numbers):
            sio.emit(event, number)

    threading.Thread(target=run).start()


if __name__ == "__main__":
    from supervisor_sio import serve

    serve(app)
