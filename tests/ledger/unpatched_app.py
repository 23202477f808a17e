"""The first eventlet program of docs/modes.md, without the patches; with an argument, with them."""

from __future__ import annotations

import sys

if sys.argv[2:]:
    import eventlet

    eventlet.monkey_patch()

import socketio

from supervisor_sio import ZmqManager, serve

sio = socketio.Server(async_mode="eventlet", client_manager=ZmqManager())
app = socketio.WSGIApp(sio)

if __name__ == "__main__":
    serve(app, sys.argv[1])
