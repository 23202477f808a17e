"""A server by hand with thousands of sessions that stops; prints what CPU it took, as JSON."""

from __future__ import annotations

import eventlet

eventlet.monkey_patch()
# ruff: noqa: E402

import json
import sys
import time

import socketio

from supervisor_sio import ZmqManager
from supervisor_sio.cluster import sessions
from supervisor_sio.common.blocking import run_blocking
from supervisor_sio.engine.session import Session, State
from supervisor_sio.worker.eventlet.install import install, make_runtime
from supervisor_sio.worker.life import Life
from supervisor_sio.worker.lone_tasks import NoRouter
from supervisor_sio.worker.run_once import RunOnce

sessions.serve_by(install)
sio = socketio.Server(async_mode="eventlet", client_manager=ZmqManager())
told = 0
longest = 0.0


@sio.event
def disconnect(sid: str, reason: str) -> None:
    global told
    told += 1


def watch() -> None:
    global longest
    while True:
        began = time.process_time()
        eventlet.sleep(0.001)
        longest = max(longest, time.process_time() - began)


life = Life(socketio.WSGIApp(sio), make_runtime())
life.run_once = RunOnce(life.runtime, NoRouter(life.runtime))
life.drain_timeout = 80.0  # the machine may be busy
for number in range(int(sys.argv[1])):
    eio_sid = sio.eio.generate_id()
    session = Session(sio.eio.engine, eio_sid, "a client")
    session.state = State.POLLING
    sio.eio.sockets[eio_sid], sio.environ[eio_sid] = session, {}
    sio.manager.enter_room(sio.manager.connect(eio_sid, "/"), "/", f"room {number % 1000}")
eventlet.spawn_n(watch)
began = time.process_time()
run_blocking(life.finish())
print(
    json.dumps(
        {
            "told": told,
            "left": len(sio.eio.sockets),
            "cpu": time.process_time() - began,
            "longest turn": longest,
        }
    )
)
