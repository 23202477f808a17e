"""A Flask-SocketIO application whose clients move to other workers, and what its handlers see."""

from __future__ import annotations

import os
from typing import Any

import flask
import portable
from flask_socketio import Namespace, SocketIO, join_room
from werkzeug.middleware.proxy_fix import ProxyFix

from supervisor_sio import ZmqManager

flask_app = flask.Flask(__name__)
flask_app.secret_key = "secret"
manager = ZmqManager(takeover=True)
socketio = SocketIO(flask_app, async_mode=portable.MODE, client_manager=manager)
#: What is called for each client that has moved here, and how often ``connect`` was.
called: list[Any] = []


@manager.on_takeover
def taken_over(sid: str, environ: Any) -> None:
    with flask_app.request_context(environ):
        called.append(["takeover", sid, flask.request.remote_addr])


@socketio.on("connect")
def connect() -> None:
    called.append(["connect", flask.request.sid])  # type: ignore[attr-defined]
    flask.session["since"] = "connect"
    join_room("everybody")


@socketio.on("disconnect")
def disconnect(reason: str) -> None:
    called.append(["disconnect", reason])


def what_is_seen() -> dict[str, Any]:
    request = flask.request
    flask.session["asked"] = flask.session.get("asked", 0) + 1
    return {
        "sid": request.sid,  # type: ignore[attr-defined]
        "namespace": request.namespace,  # type: ignore[attr-defined]
        "address": request.remote_addr,
        "agent": request.headers.get("User-Agent"),
        "args": dict(request.args),
        "session": dict(flask.session),
        "app": flask.current_app.name,
        "rooms": sorted(set(socketio.server.rooms(request.sid)) - {request.sid}),  # type: ignore[attr-defined]
    }


@socketio.on("look")
def look() -> list[Any]:
    return [os.getpid(), what_is_seen(), called]


@socketio.on("note")
def note(value: Any) -> None:
    flask.session["noted"] = value


class Chat(Namespace):  # type: ignore[misc]
    def on_look(self) -> list[Any]:
        return [os.getpid(), what_is_seen(), []]


socketio.on_namespace(Chat("/chat"))
app = ProxyFix(flask_app)
