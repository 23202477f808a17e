"""A child that a handler forks: it continues alone, and does not affect its parent."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from contextlib import suppress
from typing import Any, Callable

import pytest

from supervisor_sio.worker.asyncio.runtime import AsyncioRuntime

from .rig import until


@pytest.fixture
def runtime(loop: asyncio.AbstractEventLoop) -> AsyncioRuntime:
    return AsyncioRuntime(loop)


def fork(runtime: AsyncioRuntime, at_end: Callable[[], None] = lambda: None) -> int:
    """Fork like a handler; hooks of :func:`os.register_at_fork` cannot be removed."""
    child = os.fork()
    if not child:
        runtime.leave_in_child(at_end)
    return child


async def status_of(child: int) -> int:
    found: list[int] = []

    def look() -> bool:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            found.append(os.waitstatus_to_exitcode(status))
        return bool(pid)

    await until(look)
    return found[0]


def run(runtime: AsyncioRuntime, handler: Callable[[], Any], eager: bool) -> None:
    """Run as a task of the worker, or of another library."""
    if eager:
        runtime.run(handler)
    else:
        runtime.loop.create_task(handler())


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("how", ["returns", "waits", "sleeps", "fails", "exits", "catches"])
def test_the_child_ends_when_its_handler_leaves(
    runtime: AsyncioRuntime, capfd: pytest.CaptureFixture[str], how: str, deep: bool, eager: bool
) -> None:
    children: list[int] = []
    ended, other = os.pipe()

    async def leave() -> None:
        if how == "catches":
            try:
                raise ValueError("is caught")
            except ValueError:
                pass
        if how == "waits":
            await asyncio.sleep(0)
        if how == "sleeps":  # asyncio knows that there is no loop
            await asyncio.sleep(0.01)
        if how == "fails":
            raise ValueError("a mistake")
        if how == "exits":
            sys.exit(7)

    async def handler() -> None:
        await asyncio.sleep(0)  # the loop, not the worker, goes on with it
        child = fork(runtime, lambda: os.write(other, b"e") and None)
        if child:
            children.append(child)
            return
        os.write(other, b"h")
        await leave()
        if how == "waits":
            os.write(other, b"!")

    async def outer() -> None:
        await handler()

    expected = {"fails": 1, "sleeps": 1, "exits": 7}.get(how, 0)

    async def test() -> None:
        # What is ready in the same turn must not run in the child.
        run(runtime, outer if deep else handler, eager)
        runtime.loop.call_soon(runtime.loop.call_soon, count.append, 1)
        await until(lambda: children and count)
        assert await status_of(children[0]) == expected

    count: list[int] = []
    runtime.run_until_complete(test())
    os.close(other)
    with os.fdopen(ended, "rb") as pipe:
        assert pipe.read() == (b"he" if expected == 0 else b"h")
    said = capfd.readouterr().err
    if how in ("fails", "sleeps"):
        assert ("ValueError: a mistake" if how == "fails" else "no running event loop") in said
    elif how != "exits":
        assert "a forked child of this worker has returned from its handler and exits" in said


def test_a_child_of_a_plain_call_ends_as_well(runtime: AsyncioRuntime) -> None:
    children: list[int] = []
    after: list[int] = []

    def handler() -> None:
        children.append(fork(runtime))

    def several() -> None:
        runtime.run(handler)
        if not children[0]:
            os._exit(9)  # the rest of the turn is the parent's
        after.append(1)

    async def test() -> None:
        runtime.call_soon(several)
        await until(lambda: after)
        assert await status_of(children[0]) == 0

    runtime.run_until_complete(test())


def test_the_loop_of_the_parent_sees_what_it_saw(runtime: AsyncioRuntime) -> None:
    """Whatever the child does with the loop and its descriptors."""
    ours, theirs = socket.socketpair()
    seen: list[bytes] = []

    async def test() -> None:
        watch = runtime.add_reader(ours.fileno(), lambda: seen.append(ours.recv(9)))
        await asyncio.sleep(0.01)
        child = fork(runtime)
        if not child:
            try:
                watch.cancel()
                with suppress(OSError):
                    runtime.loop.add_reader(theirs.fileno(), print)
                ours.detach()
                os._exit(5)
            finally:
                os._exit(6)
        assert await status_of(child) == 5
        theirs.send(b"x")
        await until(lambda: seen == [b"x"])
        watch.cancel()

    runtime.run_until_complete(test())
    for sock in (ours, theirs):
        sock.close()


def test_a_child_may_have_a_loop_of_its_own(runtime: AsyncioRuntime) -> None:
    async def in_child() -> int:
        await asyncio.sleep(0.01)
        return 3

    async def test() -> None:
        child = fork(runtime)
        if not child:
            os._exit(asyncio.run(in_child()))
        assert await status_of(child) == 3

    runtime.run_until_complete(test())


def test_outside_of_the_loop_the_program_goes_on(runtime: AsyncioRuntime) -> None:
    child = fork(runtime)
    if not child:
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
