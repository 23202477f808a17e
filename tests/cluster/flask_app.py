"""A Flask-SocketIO application, unchanged but for its mode and its client manager."""

from __future__ import annotations

import os
from typing import Any

import portable
from flask import Flask
from flask_socketio import SocketIO, emit

from supervisor_sio import ZmqManager

app = Flask(__name__)
socketio = SocketIO(app, async_mode=portable.MODE, client_manager=ZmqManager())


@app.route("/pid")
def pid() -> str:
    return str(os.getpid())


@socketio.on("whoami")
def whoami() -> dict[str, Any]:
    return {"pid": os.getpid()}


@socketio.on("echo")
def echo(*args: Any) -> Any:
    return args


@socketio.on("say")
def say(text: Any) -> None:
    emit("said", text, broadcast=True)
