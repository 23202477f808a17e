"""Processes that have the application but serve nobody: ``python emitting.py WAY EVENT TEXT``."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import Any

import portable

from supervisor_sio.common.blocking import settle

way, event, text = sys.argv[1:]


def with_the_application() -> None:
    """As ``flask shell`` or ``python -c`` does; the first emit is the only one."""
    from manager_app import sio

    portable.run(sio.emit(event, text))


def in_threads() -> None:
    """As views in gunicorn's threads do, the first emits at the same time."""
    from manager_app import sio

    def emit() -> None:
        portable.run(sio.emit(event, text))

    threads = [threading.Thread(target=emit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def after_a_fork() -> None:
    """As gunicorn with ``--preload`` and Celery's pool do: who forks has emitted, too."""
    from manager_app import manager, sio

    async def emit() -> None:
        await sio.emit(event, text)

    async def emit_and_close() -> None:
        await sio.emit(event, text)
        await settle(manager.close())

    portable.run(emit())
    if not os.fork():
        try:
            portable.run(emit_and_close())
        finally:
            os._exit(0)
    os.wait()


async def rooms_and_disconnects() -> None:
    from manager_app import sio

    sid, room = text.split()
    await sio.enter_room(sid, room)
    await sio.emit(event, "to the room", room=room)
    await sio.disconnect(sid)
    for ask in (
        lambda: sio.call("question", to=sid),
        lambda: sio.emit("question", to=sid, callback=print),
    ):
        try:
            print("not refused:", await ask())
        except RuntimeError as error:
            assert "work only inside a worker: this process serves no clients" in str(error), error


def with_rooms_and_disconnects() -> None:
    portable.run(rooms_and_disconnects())


def with_flask_socketio() -> None:
    """The form that docs/howto/celery.md has for Celery's tasks."""
    from flask_socketio import SocketIO

    from supervisor_sio import ZmqManager

    url = "zmq+ipc://" + os.environ.pop("SUPERVISOR_SIO_RUN_DIR")
    manager = ZmqManager(url, write_only=True)
    socketio = SocketIO(message_queue=url, client_manager=manager)
    socketio.emit(event, {"text": text}, namespace="/", to=None, include_self=True)


def in_asyncio() -> None:
    """As a script does: its loop has ended before all workers have what it has sent."""
    from supervisor_sio import AsyncZmqManager

    asyncio.run(AsyncZmqManager(write_only=True).emit(event, text))


def in_tasks() -> None:
    """As views do, the first emits at the same time; in an application that serves nobody."""
    import socketio

    from supervisor_sio import AsyncZmqManager

    sio = socketio.AsyncServer(async_mode="asgi", client_manager=AsyncZmqManager())

    async def emit() -> None:
        await asyncio.gather(*(sio.emit(event, text) for _ in range(4)))

    asyncio.run(emit())


ways: dict[str, Any] = {
    call.__name__: call
    for call in (
        with_the_application,
        in_threads,
        after_a_fork,
        with_rooms_and_disconnects,
        with_flask_socketio,
        in_asyncio,
        in_tasks,
    )
}
ways[way]()
