"""Workers that take their time to start, each another: the last one more than a second."""

from __future__ import annotations

import os
import time

import socketio

from supervisor_sio import ZmqManager

sio = socketio.Server(async_mode="eventlet", client_manager=ZmqManager())
app = socketio.WSGIApp(sio)

time.sleep(0.6 * int(os.environ["SUPERVISOR_PROCESS_NAME"][-1]))
