"""What only the asyncio manager has; everything else is tested with both managers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

import pytest
import socketio
import zmq

from supervisor_sio import AsyncZmqManager, RelayUnreachable, ZmqManager
from supervisor_sio.cluster import relaying
from supervisor_sio.common.rundir import ENVIRONMENT_VARIABLE, ClusterInfo, OwnedRunDir
from supervisor_sio.relay.message import topic_for_all
from unit.cluster.others import next_message
from unit.in_loop import make_async_server
from unit.polling import PollingClient, make_server


@pytest.fixture
def server(loop: asyncio.AbstractEventLoop) -> Any:
    return make_async_server(loop, client_manager=AsyncZmqManager())


async def new_event() -> asyncio.Event:
    """An event of the running loop, which Python 3.9 requires."""
    return asyncio.Event()


def write_only(run_dir: OwnedRunDir) -> AsyncZmqManager:
    return AsyncZmqManager(f"zmq+ipc://{run_dir.path}", write_only=True)


# --- in a wrong place ----------------------------------------------------------------------


def test_each_manager_says_which_server_it_is_for() -> None:
    with pytest.raises(TypeError) as caught:
        make_server(client_manager=AsyncZmqManager())
    assert str(caught.value) == (
        "AsyncZmqManager is for a socketio.AsyncServer: write "
        "socketio.Server(client_manager=ZmqManager())"
    )
    with pytest.raises(TypeError) as caught:
        socketio.AsyncServer(async_mode="asgi", client_manager=ZmqManager())
    assert str(caught.value) == (
        "ZmqManager is for a socketio.Server: write "
        "socketio.AsyncServer(client_manager=AsyncZmqManager())"
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda manager: manager.emit("n", 1),
        lambda manager: manager.emit("n", 1, to="r", callback=print),
        lambda manager: manager.fetch_sockets(),
        lambda manager: manager.fetch_rooms(),
        lambda manager: manager.server_count(),
        lambda manager: manager.emit_with_acks("n", 1),
        lambda manager: manager.server_side_call("n"),
        lambda manager: manager.server_side_emit("n"),
        lambda manager: manager.sockets_join("r"),
        lambda manager: manager.sockets_leave("r"),
        lambda manager: manager.disconnect_sockets(),
        lambda manager: manager.enter_room("sid", "/", "r"),
        lambda manager: manager.leave_room("sid", "/", "r"),
        lambda manager: manager.close_room("r"),
        lambda manager: manager.disconnect("sid", "/"),
        lambda manager: manager.can_disconnect("sid", "/"),
        lambda manager: manager.close(),
        lambda manager: manager.server.emit("n", 1),
        lambda manager: manager.server.disconnect("sid"),
    ],
)
def test_another_loop_than_that_of_the_clients(server: Any, call: Any) -> None:
    client = PollingClient(server)
    manager: AsyncZmqManager = server.manager.target
    with pytest.raises(RuntimeError, match=r"use asyncio\.run_coroutine_threadsafe\(coroutine, "):
        asyncio.run(call(manager))
    asyncio.run_coroutine_threadsafe(manager.emit("here", 1), server.loop).result(10)
    assert client.event() == ["here", 1]


def test_a_loop_that_has_ended_is_none() -> None:
    """In an application's tests each one has its own loop."""
    manager = AsyncZmqManager()
    server = socketio.AsyncServer(async_mode="asgi", client_manager=manager)

    async def serve() -> None:
        manager.initialize()

    asyncio.run(serve())
    asyncio.run(server.emit("n", 1))


# --- clients -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["function", "coroutine"])
def test_callbacks_and_handlers_may_be_coroutines(server: Any, kind: str) -> None:
    client = PollingClient(server)
    answers: list[Any] = []
    done = server.run(new_event())

    async def later(*args: Any) -> None:
        await asyncio.sleep(0.01)
        answers.append(args)
        done.set()

    def at_once(*args: Any) -> None:
        answers.append(args)
        done.set()

    callback = later if kind == "coroutine" else at_once
    server.emit("question", 1, to=client.sid, callback=callback)
    ack_id, _ = client.question()
    client.answer(ack_id, "yes", 2)
    server.run(asyncio.wait_for(done.wait(), 20))
    assert answers == [("yes", 2)]


def test_call(server: Any) -> None:
    client = PollingClient(server)
    asked = asyncio.run_coroutine_threadsafe(
        server.target.call("question", 1, to=client.sid), server.loop
    )
    ack_id, event = client.question()
    client.answer(ack_id, "yes")
    assert (event, asked.result(10)) == (["question", 1], "yes")


def test_a_connect_handler_emits_to_its_own_client(server: Any) -> None:
    """Also to a room that the client enters; other emits do not reach it before it is connected."""
    entered, others = server.run(new_event()), server.run(new_event())

    async def connect(sid: str, environ: Any) -> None:
        await server.target.enter_room(sid, "room")
        await server.target.emit("to the room", 1, room="room")
        entered.set()
        await others.wait()
        await server.target.emit("to all", 2)

    async def other() -> None:
        await entered.wait()
        await server.target.emit("of another", 3, room="room")
        others.set()

    server.on("connect", connect)
    asyncio.run_coroutine_threadsafe(other(), server.loop)
    client = PollingClient(server)
    got = client.early
    while len(got) < 2:
        got += client.receive()
    server.emit("last", None)
    assert [*got, *client.receive()] == ['42["to the room",1]', '42["to all",2]', '42["last"]']


def test_what_an_emit_sends_comes_before_the_answer_of_its_handler(server: Any) -> None:
    async def ask(sid: str) -> str:
        for number in range(3):
            await server.target.emit("n", number)
        return "done"

    server.on("ask", ask)
    client = PollingClient(server)
    client.send('27["ask"]')
    got: list[str] = []
    while len(got) < 4:
        got += client.receive()
    assert got == ['42["n",0]', '42["n",1]', '42["n",2]', '437["done"]']


def test_failures_in_the_background_are_told(
    server: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(sids: Any, namespace: str) -> None:
        raise ArithmeticError("no")

    server.manager._spawn(fail, [], "/")
    deadline = time.monotonic() + 20
    while "ArithmeticError" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- a process that only emits ---------------------------------------------------------------


async def turns_until(condition: Callable[[], bool]) -> int:
    """The number of turns that the loop has made by then."""
    turns = 0
    while not condition():
        await asyncio.sleep(0.001)
        turns += 1
    return turns


def test_the_first_emit_blocks_no_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no relay, and each emit says so."""
    monkeypatch.setattr(relaying, "_JOIN_TIMEOUT", 0.5)
    run_dir = OwnedRunDir(str(tmp_path))
    run_dir.write_cluster(ClusterInfo())
    manager = write_only(run_dir)

    async def main() -> tuple[list[Any], int]:
        emits = [asyncio.ensure_future(manager.emit("n", number)) for number in range(100)]
        turns = await turns_until(lambda: all(emit.done() for emit in emits))
        return await asyncio.gather(*emits, return_exceptions=True), turns

    errors, turns = asyncio.run(main())
    assert {type(error) for error in errors} == {RelayUnreachable}
    assert turns > 10
    run_dir.close()


def test_emits_of_one_loop_after_another(
    run_dir: OwnedRunDir, subscribe: Callable[[bytes], zmq.Socket[bytes]]
) -> None:
    ear = subscribe(topic_for_all("my app"))
    manager = write_only(run_dir)

    async def emit(first: int) -> None:
        tasks = [asyncio.ensure_future(manager.emit("n", first + n)) for n in range(50)]
        await asyncio.gather(*tasks)

    asyncio.run(emit(0))
    asyncio.run(emit(50))
    messages = [next_message(ear) for _ in range(100)]
    assert [message.packets for message in messages] == [[f'2["n",{n}]'] for n in range(100)]
    asyncio.run(manager.close())
    assert manager._publisher is manager._subscriber is None


def test_closing_blocks_no_loop(run_dir: OwnedRunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a router no receiver confirms what was sent."""
    monkeypatch.setattr(relaying, "_LEAVE_TIMEOUT", 0.5)
    manager = write_only(run_dir)

    async def main() -> int:
        await manager.emit("n", 1)
        closing = asyncio.ensure_future(manager.close())
        return await turns_until(closing.done)

    assert asyncio.run(main()) > 10


def test_who_serves_and_closes_hears_no_more_and_emits_on(
    run_dir: OwnedRunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relaying, "channels_in_use", set())
    url = f"zmq+ipc://{run_dir.path}"

    async def main() -> None:
        manager = AsyncZmqManager(url)
        server = socketio.AsyncServer(async_mode="asgi", client_manager=manager)
        manager.initialize()
        await manager.wait_joined(lambda: False, asyncio.sleep)
        assert manager.hears == "my app"
        name = manager.host_id
        with pytest.raises(RuntimeError, match="two ZmqManagers on channel 'my app'"):
            other = AsyncZmqManager(url)
            socketio.AsyncServer(async_mode="asgi", client_manager=other)
            other.initialize()
        await manager.close()
        assert manager.hears is None
        await server.emit("n", 1)
        assert manager.host_id != name
        await manager.close()

    asyncio.run(main())


def test_another_emits_to_clients_here(
    run_dir: OwnedRunDir, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relaying, "channels_in_use", set())
    server = make_async_server(loop, client_manager=AsyncZmqManager(f"zmq+ipc://{run_dir.path}"))
    client = PollingClient(server)
    server.run(server.manager.target.wait_joined(lambda: False, asyncio.sleep))
    emitter = write_only(run_dir)
    asyncio.run(emitter.emit("n", b"\xff", room=client.sid))
    assert client.receive() == ['451-["n",{"_placeholder":true,"num":0}]', "b/w=="]
    asyncio.run(emitter.close())
    server.manager.close()


# --- its process -----------------------------------------------------------------------------

EMIT = """
import asyncio, sys
from supervisor_sio import AsyncZmqManager
from supervisor_sio.cluster import relaying
relaying._LEAVE_TIMEOUT = 0.2
import socketio
manager = AsyncZmqManager(write_only=True)
server = socketio.AsyncServer(async_mode="asgi", client_manager=AsyncZmqManager())
"""


def in_a_process(run_dir: OwnedRunDir, program: str) -> str:
    """Run a script; return its standard error."""
    ended = subprocess.run(
        [sys.executable, "-c", EMIT + program],
        env={**os.environ, ENVIRONMENT_VARIABLE: run_dir.path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stderr


def test_a_process_without_eventlet(run_dir: OwnedRunDir) -> None:
    in_a_process(
        run_dir,
        "asyncio.run(manager.emit('n', 1))\n"
        "async def serve():\n"
        "    server.manager.initialize()\n"
        "    await server.manager.wait_joined(lambda: False, asyncio.sleep)\n"
        "    await server.emit('n', 1)\n"
        "asyncio.run(serve())\n"
        "assert 'eventlet' not in sys.modules and 'gevent' not in sys.modules",
    )


def test_what_was_sent_is_confirmed_at_the_end_of_the_process(run_dir: OwnedRunDir) -> None:
    """Also after the end of its loop; there is no router here that could confirm."""
    told = in_a_process(run_dir, "asyncio.run(manager.emit('n', 1))")
    assert "the router does not answer: whether the workers have all" in told


FORK = """
import os, signal
asyncio.run(manager.emit('n', 1))
pid = os.fork()
asyncio.run(manager.emit('n', 2))
if pid:
    os.wait()
"""

FORK_IN_A_COROUTINE = """
import os, signal
async def main():
    await manager.emit('n', 1)
    pid = os.fork()
    if not pid:
        signal.alarm(30)
    await manager.emit('n', 2)
    await manager.close()
    if not pid:
        os._exit(0)
    await asyncio.to_thread(os.wait)
asyncio.run(main())
"""


@pytest.mark.parametrize("program", [FORK, FORK_IN_A_COROUTINE])
def test_the_child_of_a_fork_emits_under_its_own_name(
    run_dir: OwnedRunDir, subscribe: Callable[[bytes], zmq.Socket[bytes]], program: str
) -> None:
    """A child that a coroutine has forked has no loop in which it could wait."""
    ear = subscribe(topic_for_all("my app"))
    in_a_process(run_dir, program)
    first, *others = [next_message(ear) for _ in range(3)]
    assert [first.packets, *(other.packets for other in others)] == [
        ['2["n",1]'],
        ['2["n",2]'],
        ['2["n",2]'],
    ]
    assert len({message.sender for message in (first, *others)}) == 2
