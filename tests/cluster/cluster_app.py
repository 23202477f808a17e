"""The application of the test clusters: its clients tell a worker what to do."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable, Iterable
from typing import Any

import socketio

from supervisor_sio import ZmqManager

sio = socketio.Server(async_mode="eventlet", client_manager=ZmqManager(), cors_allowed_origins="*")


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

    def on_whoami(self, sid: str) -> dict[str, Any]:
        return {"pid": os.getpid(), "name": os.environ.get("SUPERVISOR_PROCESS_NAME", "")}

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

    def on_kill_me(self, sid: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


sio.register_namespace(Events("/"))
sio.register_namespace(Events("/room"))
