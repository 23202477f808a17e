"""A chat in which every message shows the worker that received it.

By hand:      python -m supervisor_sio.examples.chat
In a cluster: supervisord -n -c conf.d/supervisord.conf
"""

from __future__ import annotations

import eventlet

eventlet.monkey_patch()  # before other imports, so that a waiting handler does not block the others
# ruff: noqa: E402

import os
from pathlib import Path
from typing import Any

import socketio

from supervisor_sio import Lease, ZmqManager, serve

HERE = Path(__file__).parent


def worker_name() -> str:
    """The name of this process in supervisorctl: ``group:name``."""
    name = os.environ.get("SUPERVISOR_PROCESS_NAME")
    return f"{os.environ['SUPERVISOR_GROUP_NAME']}:{name}" if name else "no supervisor"


WORKER = worker_name()

# A worker that restarts passes its clients on, because this process keeps no state of them.
manager = ZmqManager(takeover=True)
sio = socketio.Server(async_mode="eventlet", client_manager=manager)
app = socketio.WSGIApp(
    sio,
    static_files={
        "/": str(HERE / "chat.html"),
        "/socket.io.min.js": str(HERE / "socket.io.min.js"),
    },
)


@sio.event
@manager.on_takeover
def connect(sid: str, environ: dict[str, Any]) -> None:
    sio.emit("welcome", {"worker": WORKER, "sid": sid}, to=sid)


@sio.event
def message(sid: str, who: str, text: str) -> None:
    # Clients may send anything: convert it to text of limited length.
    who, text = str(who)[:40], str(text)[:2000]
    sio.emit("message", {"who": who, "text": text, "worker": WORKER})


@manager.run_once("headcount")
def headcount(lease: Lease) -> None:
    """Runs in one worker of the cluster; in all, each client would get the number several times."""
    while lease.wait(5):
        sio.emit("present", len(manager.fetch_sockets()))


if __name__ == "__main__":
    serve(app)
