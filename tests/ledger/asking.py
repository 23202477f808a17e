"""Processes that serve nobody, and ask: ``python asking.py WAY SID``; they print what they got.

The client of that sid answers with what it was asked: ``got``, in a list.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from typing import Any

way, sid = sys.argv[1:]

if way == "with_eventlet":
    import eventlet

    eventlet.monkey_patch()
if way == "with_gevent":
    from gevent import monkey

    monkey.patch_all()

from supervisor_sio import AsyncZmqManager, ZmqManager  # noqa: E402


def show(value: Any) -> None:
    print(json.dumps(value), flush=True)


def ask_all(manager: ZmqManager, name: str) -> list[Any]:
    """Each question once."""
    return [
        manager.call("question", name, to=sid)["got"],
        [one["got"] for one in manager.emit_with_acks("question", name, room=sid)],
        [one.sid for one in manager.fetch_sockets(room=sid)],
        sorted(manager.server_side_call("double", name)),
        manager.server_count(),
    ]


def in_a_script() -> None:
    show(ask_all(ZmqManager(), "a"))


def with_the_application() -> None:
    """As ``flask shell`` has it: the server is there, and serves nobody."""
    import portable
    from asking_app import manager

    async def ask() -> list[Any]:
        return [
            (await manager.call("question", "a", to=sid))["got"],
            [one["got"] for one in await manager.emit_with_acks("question", "a", room=sid)],
            [one.sid for one in await manager.fetch_sockets(room=sid)],
            sorted(await manager.server_side_call("double", "a")),
            await manager.server_count(),
        ]

    show(portable.run(ask()))


def in_asyncio() -> None:
    """Several questions at once, while the loop goes on; and a second loop."""
    manager = AsyncZmqManager()

    async def ask() -> list[Any]:
        first, second, sockets, doubled, count = await asyncio.gather(
            manager.call("question", "a", to=sid),
            manager.emit_with_acks("question", "a", room=sid),
            manager.fetch_sockets(room=sid),
            manager.server_side_call("double", "a"),
            manager.server_count(),
        )
        gathered = [one["got"] for one in second]
        return [first["got"], gathered, [one.sid for one in sockets], sorted(doubled), count]

    once, again = asyncio.run(ask()), asyncio.run(ask())
    assert once == again
    show(again)


def in_threads() -> None:
    manager = ZmqManager()
    got: dict[str, Any] = {}

    def ask(name: str) -> None:
        got[name] = ask_all(manager, name)

    threads = [threading.Thread(target=ask, args=(name,)) for name in "bcda"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in "bcd":
        assert got[name][:2] == [[name], [[name]]] and got[name][3] == [2 * name] * 2, got
    show(got["a"])


def after_a_fork() -> None:
    """As Celery's pool does: who forks has asked, too, and goes on asking."""
    manager = ZmqManager()
    before = ask_all(manager, "a")
    name = manager.host_id
    children = []
    for _ in range(2):
        child = os.fork()
        if not child:
            status = 1
            try:
                assert ask_all(manager, "b")[:2] == [["b"], [["b"]]]
                assert manager.host_id != name
                manager.close()
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert ask_all(manager, "c")[0] == ["c"]
    assert manager.host_id == name
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    show(before)


def with_eventlet() -> None:
    """Other greenlets run while one waits."""
    manager, turns = ZmqManager(), 0

    def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            eventlet.sleep(0.001)

    eventlet.spawn(turn)
    pool = eventlet.GreenPool()
    got = list(pool.imap(lambda name: ask_all(manager, name), "ab"))
    assert got[1][0] == ["b"] and turns > 1
    show(got[0])


def with_gevent() -> None:
    import gevent

    manager = ZmqManager()
    jobs = [gevent.spawn(ask_all, manager, name) for name in "ab"]
    gevent.joinall(jobs, raise_error=True)
    assert jobs[1].value[0] == ["b"]
    show(jobs[0].value)


def again_and_again() -> None:
    """A call for each line on standard input; it says what it holds, and how it went."""
    manager = ZmqManager()
    for line in sys.stdin:
        for _ in range(int(line)):
            assert manager.call("question", 1, to=sid)["got"] == [1]
        status = open("/proc/self/statm").read().split()
        show([len(os.listdir("/proc/self/fd")), int(status[1]) * 4096])


def lines() -> None:
    """What each line on standard input evaluates to."""
    names = {"manager": ZmqManager(), "sid": sid}
    for line in sys.stdin:
        try:
            show(eval(line, names))
        except Exception as error:
            show(f"{type(error).__name__}: {error}")


globals()[way]()
