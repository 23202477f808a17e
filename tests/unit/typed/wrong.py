"""What applications write by mistake. After ``# error:`` stands what the error names."""

from __future__ import annotations

import supervisor_sio
from supervisor_sio import Answers, AsyncLease, AsyncZmqManager, Lease, RemoteSocket, ZmqManager
from supervisor_sio import ZmqManger as ZmqManger  # error: ZmqManger

supervisor_sio.srve(None)  # error: srve

# A misspelt option, or one of a wrong type.
manager = ZmqManager(takover=True)  # error: takover
ZmqManager(recovery="2 min")  # error: float
ZmqManager(write_only=1)  # error: write_only
AsyncZmqManager(recovery_maxbyte=1)  # error: recovery_maxbyte
supervisor_sio.serve(None, listne="127.0.0.1:8000")  # error: listne
supervisor_sio.serve(None, 8000)  # error: serve

# A misspelt method or parameter, or one of a wrong type.
manager.fetch_socket()  # error: fetch_socket
manager.emit("news")  # error: data
manager.emit("news", None, rom="a")  # error: rom
manager.emit("news", None, room=1.5)  # error: float
manager.emit(b"news", None)  # error: emit
manager.emit("news", None, callback="answer")  # error: callback
manager.emit_with_acks("news", timeuot=1)  # error: timeuot
manager.emit_with_acks("news", timeout="1")  # error: timeout
manager.fetch_sockets(namespaces="/")  # error: namespaces
manager.fetch_rooms("/", timeout=None)  # error: None
manager.sockets_join()  # error: rooms|sockets_join
manager.sockets_leave("a", rooom="b")  # error: rooom
manager.disconnect_sockets(except_rooms="a")  # error: except_rooms
manager.server_side_call("reload", timeuot=1)  # error: timeuot
manager.share_session_keys(1)  # error: int|keys


# What comes back.
sockets: Answers[RemoteSocket] = manager.fetch_sockets()
print(sockets.timedout)  # error: timedout
print(sockets[0].room)  # error: room
sockets[0].sid = "a"  # error: sid
sizes: dict[str, str] = manager.fetch_rooms()  # error: RoomSizes


# Handlers.
@manager.on_takeover  # error: on_takeover
def taken_over(sid: str) -> None: ...


@manager.on_takeover(namespaces="/news")  # error: on_takeover
def taken_over_in_news(sid: str, environ: object) -> None: ...


@manager.on_recovery()  # error: int
def recovered(sid: int, environ: object) -> None: ...


@manager.on_recovery(namespace="/right")
def right(sid: str, environ: object) -> int:
    return 1


right("a")  # error: environ
text: str = right("a", None)  # error: int
manager.on_takeover("/news")  # error: on_takeover
manager.on("reload", "/news")  # error: on


@manager.on  # error: on
def reload() -> None: ...


# Tasks: plain functions of a ZmqManager, coroutine functions of an AsyncZmqManager.
@manager.run_once("ticker")  # error: PlainFunction
async def ticker(lease: Lease) -> None: ...


@manager.run_once("other")  # error: AsyncLease
def other(lease: AsyncLease) -> None: ...


@manager.run_once("second")
def second(lease: Lease) -> None:
    print(lease.heldd)  # error: heldd


second()  # error: lease
async_manager = AsyncZmqManager()


@async_manager.run_once("ticker")  # error: None
def async_ticker(lease: AsyncLease) -> None: ...


async def main() -> None:
    count: int = async_manager.server_count()  # error: int
    await async_manager.emit("news", count, skip="a")  # error: skip
    print((await async_manager.fetch_rooms()).mising)  # error: mising
    await async_manager.server_side_emit("reload", name_space="/")  # error: name_space
