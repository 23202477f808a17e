"""The application of the test clusters, with a worker that counts aloud."""

from __future__ import annotations

import time

from cluster_app import app as app
from cluster_app import sio

#: Numbers emitted before the others get a turn.
_STEP = 10


@sio.on("count_slowly")
async def count_slowly(sid: str, event: str, numbers: int, seconds: float) -> None:
    """To everybody, evenly over the time."""
    began = time.monotonic()
    for number in range(numbers):
        await sio.emit(event, number)
        if number % _STEP == _STEP - 1:
            await sio.sleep(max(0.0, began + number * seconds / numbers - time.monotonic()))


@sio.on("count_to_room")
async def count_to_room(sid: str, room: str, event: str, numbers: int, size: int) -> int:
    """As fast as it can, with so many characters beside each number."""
    for number in range(numbers):
        await sio.emit(event, (number, "x" * size), room=room)
        if number % _STEP == _STEP - 1:
            await sio.sleep(0)
    return numbers
