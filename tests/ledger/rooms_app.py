"""Clients that choose their rooms, as many as they like."""

from __future__ import annotations

import portable

sio, _ = portable.make()
app = portable.application(sio)


@sio.event
async def join(sid: str, rooms: list[str]) -> int:
    for room in rooms:
        await sio.enter_room(sid, room)
    return len(rooms)


@sio.event
async def join_numbered(sid: str, first: int, last: int) -> int:
    for number in range(first, last):
        await sio.enter_room(sid, f"room-{number:06}")
    return last - first
