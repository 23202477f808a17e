"""What applications write: a type checker has nothing to say about it."""

from __future__ import annotations

import asyncio
from typing import Any, Callable, Optional

import socketio
from flask import Flask

from supervisor_sio import (
    Answers,
    AsyncLease,
    AsyncZmqManager,
    Lease,
    MessageTooLong,
    RelayUnreachable,
    RemoteSocket,
    Room,
    RoomSizes,
    ZmqManager,
    __version__,
    serve,
)

manager = ZmqManager(
    "zmq+ipc:///run/myapp-sio",
    channel="chat",
    logger=True,
    max_attachments=20,
    takeover=True,
    recovery=120,
    recovery_messages=1000,
    recovery_maxbytes=1 << 20,
    connect_timeout=20,
)
sio = socketio.Server(client_manager=manager)
rooms: Room = ["a", 1]


@manager.on_takeover
def taken_over(sid: str, environ: dict[str, Any]) -> int:
    return len(sid)


@manager.on_recovery(namespace="/news")
def recovered(sid: str, environ: dict[str, Any]) -> None: ...


@manager.on("reload")
def reload(what: str, *, force: bool = False) -> str:
    return what


@manager.run_once("ticker")
def ticker(lease: Lease) -> None:
    while lease.wait(1):
        manager.emit("tick", lease.number, to=rooms)


@manager.run_once("cleaner")
def cleaner() -> None: ...


# What is decorated stays what it was.
number: int = taken_over("sid", {})
nothing: Callable[[str, dict[str, Any]], None] = recovered
text: str = reload("all", force=True)
task: Callable[[Lease], None] = ticker
also: Callable[[str], str] = manager.on("again", reload)
manager.on_takeover(recovered, "/news")


def answers() -> Optional[str]:
    try:
        manager.emit("news", {"text": "hi"}, namespace="/news", room="a", skip_sid="b")
        manager.emit("news", b"", to=["a", "b"], except_room=("c",), local=True, volatile=True)
    except MessageTooLong as error:
        problem: ValueError = error
        return str(problem)
    except RelayUnreachable as error:
        return str(error)
    found: Answers[Any] = manager.emit_with_acks("ask", {"q": 1}, room="a", timeout=2)
    sockets: Answers[RemoteSocket] = manager.fetch_sockets("a", namespace="/", local=True)
    sizes: RoomSizes = manager.fetch_rooms(timeout=1.5)
    count: int = manager.server_count() + sizes["a"] + found.missing + len(sockets[0].sid)
    manager.sockets_join("b", room="a")
    manager.sockets_leave(["b", "c"], except_room="d")
    manager.disconnect_sockets("a")
    manager.server_side_emit("reload", "all", namespace="/")
    manager.server_side_call("reload", "all", timeout=1)
    manager.share_session_keys("user", "language")
    manager.close()
    return None if found.timed_out else f"{count} {__version__}"


async_manager = AsyncZmqManager(write_only=True)


@async_manager.on_takeover
async def async_taken_over(sid: str, environ: dict[str, Any]) -> None: ...


@async_manager.on("reload")
async def async_reload(what: str) -> str:
    return what


@async_manager.run_once("ticker")
async def async_ticker(lease: AsyncLease) -> None:
    while await lease.wait(1):
        await async_manager.emit("tick", lease.number)


async def main() -> None:
    await async_ticker(AsyncLease("ticker", 1, 0, None))
    sockets: Answers[RemoteSocket] = await async_manager.fetch_sockets(room="a")
    await async_manager.emit("count", len(sockets), room=sockets[0].sid)
    await async_manager.sockets_join(["b"], room="a")
    found: Answers[Any] = await async_manager.server_side_call("reload", await async_reload("x"))
    await async_manager.close()
    print(found.missing, manager.is_connected("sid", "/"))


asyncio.run(main())
serve(Flask(__name__), listen="127.0.0.1:8000")
serve(socketio.ASGIApp(sio))
