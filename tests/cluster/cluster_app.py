"""The application of the test clusters: its clients tell a worker what to do."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import socketio

from supervisor_sio import ZmqManager

manager = ZmqManager()
sio = socketio.Server(async_mode="eventlet", client_manager=manager, cors_allowed_origins="*")

manager.share_session_keys("user", "picture", "unknown")

NAME = os.environ.get("SUPERVISOR_PROCESS_NAME", "")

#: What other workers have sent to this one, in each namespace.
notes: dict[str, list[Any]] = {"/": [], "/room": []}


@manager.on("note")
def note(*args: Any) -> None:
    notes["/"].append(list(args))


@manager.on("note", namespace="/room")
def note_in_room(*args: Any) -> None:
    notes["/room"].append(list(args))


@manager.on("ask")
def answer(*args: Any) -> Any:
    return {"from": NAME, "got": list(args)}


@manager.on("ask_nothing")
def answer_nothing() -> None:
    pass


@manager.on("ask_slowly")
def answer_slowly(slow: str, seconds: float) -> str:
    """The worker of this name takes so long."""
    if slow == NAME:
        sio.sleep(seconds)
    return NAME


@manager.on("ask_in_vain")
def fail(failing: str) -> str:
    """The worker of this name fails."""
    if failing == NAME:
        raise ArithmeticError("as the test wants it")
    return NAME


def attempt(call: Callable[[], Any]) -> Any:
    """The error that a call ends with, as text, or ``None``."""
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def web(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    status, body = "200 OK", b""
    if environ["PATH_INFO"] == "/pid":
        body = str(os.getpid()).encode()
    elif environ["PATH_INFO"] == "/environ":
        body = json.dumps({k: v for k, v in environ.items() if isinstance(v, str)}).encode()
    elif environ["PATH_INFO"] == "/wait":
        # For a file that a test makes; its name is the query.
        with open(environ["QUERY_STRING"] + ".begun", "w"):
            pass
        while not os.path.exists(environ["QUERY_STRING"]):
            sio.sleep(0.02)
        body = str(os.getpid()).encode()
    elif environ["PATH_INFO"] == "/upload":
        digest = hashlib.sha256()
        while chunk := environ["wsgi.input"].read(65536):
            digest.update(chunk)
        body = digest.hexdigest().encode()
    else:
        status = "404 Not Found"
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


app = socketio.WSGIApp(sio, web)


class Events(socketio.Namespace):
    """The same handlers in each namespace."""

    def on_connect(self, sid: str, environ: dict[str, Any], auth: Any = None) -> None:
        session = {"user": f"user {sid}", "picture": b"\x00\xff", "password": "hidden"}
        self.save_session(sid, session)

    def on_whoami(self, sid: str) -> dict[str, Any]:
        return {"pid": os.getpid(), "name": NAME}

    def on_echo(self, sid: str, *args: Any) -> Any:
        return args

    def on_join(self, sid: str, room: str) -> None:
        self.enter_room(sid, room)

    def on_leave(self, sid: str, room: str) -> None:
        self.leave_room(sid, room)

    def on_emit_all(
        self, sid: str, event: str, data: Any, options: dict[str, Any], as_tuple: bool = False
    ) -> None:
        options.setdefault("namespace", self.namespace)
        sio.emit(event, tuple(data) if as_tuple else data, **options)

    def on_count(self, sid: str, event: str, numbers: int) -> None:
        for number in range(numbers):
            self.emit(event, number)

    def on_call_sid(self, sid: str, other: str, event: str, data: Any) -> Any:
        return self.call(event, data, to=other, timeout=10)

    def on_emit_with_callback(self, sid: str, other: str, event: str, data: Any) -> None:
        def callback(*answer: Any) -> None:
            self.emit("callback_result", answer, to=sid)

        self.emit(event, data, to=other, callback=callback)

    def on_disconnect_sid(self, sid: str, other: str) -> None:
        self.disconnect(other)

    def on_enter_room_of(self, sid: str, other: str, room: str) -> None:
        self.enter_room(other, room)

    def on_leave_room_of(self, sid: str, other: str, room: str) -> None:
        self.leave_room(other, room)

    def on_close_room(self, sid: str, room: str) -> None:
        self.close_room(room)

    def on_operation(self, sid: str, name: str, args: list[Any], options: dict[str, Any]) -> str:
        """What a method of the manager returns, as JSON with bytes in hex.

        As it is it may have more bytes objects than socket.io-client takes in a packet.
        """
        began = time.monotonic()
        value = getattr(manager, name)(*args, **options)
        elapsed = time.monotonic() - began
        outcome = {
            "elapsed": elapsed,
            "timed_out": getattr(value, "timed_out", None),
            "missing": getattr(value, "missing", None),
        }
        if name == "fetch_sockets":
            value = [asdict(socket) for socket in value]
        return json.dumps({**outcome, "value": value}, default=lambda b: {"$hex": b.hex()})

    def on_begin_operation(
        self, sid: str, name: str, args: list[Any], options: dict[str, Any]
    ) -> str:
        """The same, and the client hears of it while it lasts."""
        self.emit("begun", to=sid)
        return self.on_operation(sid, name, args, options)

    def on_notes(self, sid: str) -> list[Any]:
        return notes[self.namespace]

    def on_send_nonsense(self, sid: str, event: str) -> list[Any]:
        """Try to send what cannot be sent; how each attempt ends."""
        data = {"fine": b"bytes", "nonsense": object()}
        return [
            attempt(lambda: sio.emit(event, data)),
            attempt(lambda: sio.emit(event, data, to=sid, callback=print)),
            attempt(lambda: manager.emit_with_acks(event, data)),
            attempt(lambda: manager.server_side_emit("note", data)),
            attempt(lambda: manager.server_side_call("note", data)),
            attempt(lambda: manager.emit(event, "fine", room=data)),
        ]

    def on_send_long(self, sid: str, event: str, length: int) -> list[Any]:
        """Try to send so many characters; how each attempt ends."""
        data = "x" * length
        return [
            attempt(lambda: sio.emit(event, data)),
            attempt(lambda: manager.emit_with_acks(event, data)),
            attempt(lambda: manager.server_side_emit("note", data)),
            attempt(lambda: manager.server_side_call("note", data)),
        ]

    def on_emit_long(self, sid: str, event: str, length: int) -> None:
        sio.emit(event, "x" * length)

    def on_kill_me(self, sid: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


sio.register_namespace(Events("/"))
sio.register_namespace(Events("/room"))
