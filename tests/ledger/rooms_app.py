"""Clients that choose their rooms, as many as they like."""

from __future__ import annotations

import socketio

from supervisor_sio import ZmqManager

sio = socketio.Server(async_mode="eventlet", client_manager=ZmqManager())
app = socketio.WSGIApp(sio)


@sio.event
def join(sid: str, rooms: list[str]) -> int:
    for room in rooms:
        sio.enter_room(sid, room)
    return len(rooms)


@sio.event
def join_numbered(sid: str, first: int, last: int) -> int:
    for number in range(first, last):
        sio.enter_room(sid, f"room-{number:06}")
    return last - first
