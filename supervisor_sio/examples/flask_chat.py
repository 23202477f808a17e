"""The same chat with Flask-SocketIO.

supervisor-sio worker supervisor_sio.examples.flask_chat:app
"""

from __future__ import annotations

import os

from flask import Flask, Response, request
from flask_socketio import SocketIO, emit

from supervisor_sio import Lease, ZmqManager

WORKER = os.environ.get("SUPERVISOR_PROCESS_NAME", "no supervisor")

app = Flask(__name__, static_folder=".", static_url_path="")
manager = ZmqManager(takeover=True)
socketio = SocketIO(app, async_mode="eventlet", client_manager=manager)


@app.get("/")
def page() -> Response:
    return app.send_static_file("chat.html")


@socketio.on("connect")
def connect() -> None:
    welcome(request.sid)  # type: ignore[attr-defined]


@manager.on_takeover
def welcome(sid: str, environ: object = None) -> None:
    socketio.emit("welcome", {"worker": WORKER, "sid": sid}, to=sid)


@socketio.on("message")
def message(who: str, text: str) -> None:
    emit("message", {"who": who, "text": text, "worker": WORKER}, broadcast=True)


@manager.run_once("headcount")
def headcount(lease: Lease) -> None:
    """Runs in one worker of the cluster; in all, each client would get the number several times."""
    while lease.wait(5):
        socketio.emit("present", len(manager.fetch_sockets()))
