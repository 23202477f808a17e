"""A Flask-SocketIO application whose answers come bit by bit."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import portable
from flask import Flask, Response, request
from flask_socketio import SocketIO

from supervisor_sio import ZmqManager

app = Flask(__name__)
socketio = SocketIO(app, async_mode=portable.MODE, client_manager=ZmqManager())

#: How many streams of /ticks have ended since the client was gone.
left: list[int] = []


@app.get("/ticks")
def ticks() -> Response:
    def tick() -> Iterator[str]:
        number = 0
        try:
            while True:
                number += 1
                yield f"data: {number}\n\n"
                socketio.sleep(0.1)
        finally:
            left.append(number)

    return Response(tick(), mimetype="text/event-stream")


@app.get("/left")
def how_many_left() -> str:
    return str(len(left))


@app.post("/length")
def length() -> str:
    return str(len(request.get_data()))


@app.post("/lines")
def lines() -> str:
    return "|".join(line.decode() for line in request.stream)


@app.get("/mark/<word>")
def mark(word: str) -> str:
    """Write it to the log."""
    print(word, file=sys.stderr, flush=True)
    return word
