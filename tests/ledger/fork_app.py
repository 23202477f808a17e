"""An application that forks in its handlers, in each way that Python has."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import pty
import signal
import socket
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import portable

from supervisor_sio.common.blocking import settle

sio, manager = portable.make()
app = portable.application(sio)


@sio.event
async def whoami(sid: str) -> dict[str, Any]:
    return {"pid": os.getpid(), "name": os.environ.get("SUPERVISOR_PROCESS_NAME", "")}


@sio.event
async def echo(sid: str, *args: Any) -> Any:
    return args


@sio.event
async def emit_all(sid: str, event: str, data: Any, options: dict[str, Any]) -> None:
    await sio.emit(event, data, **options)


@sio.event
async def fork_and_wait(sid: str, seconds: float) -> int:
    """A child that waits as handlers do."""
    pid = os.fork()
    if not pid:
        try:
            time.sleep(seconds)
        finally:
            os._exit(0)
    return pid


@sio.event
async def fork_and_list(sid: str) -> list[str]:
    """To what the sockets of a child are connected."""
    reader, writer = os.pipe()
    if not os.fork():
        try:
            os.write(writer, json.dumps(peers()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as file:
        found: list[str] = json.load(file)
    return found


@sio.event
async def list_peers(sid: str) -> list[str]:
    return peers()


def peers() -> list[str]:
    """But for the pair of sockets by which a loop wakes itself, which have no names."""
    found = []
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        try:
            with socket.socket(fileno=os.dup(descriptor)) as sock:
                found.append(str(sock.getpeername()))
        except OSError:
            pass
    return list(filter(None, found))


async def emit_and_close(event: str) -> None:
    await sio.emit(event, os.getpid())
    await settle(manager.close())  # what the end of the interpreter does


@sio.event
async def fork_and_emit(sid: str, event: str) -> int:
    """A child that emits; its exit status."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            if portable.ASYNCIO:
                asyncio.run(emit_and_close(event))  # the loop of the worker is not the child's
            else:
                await emit_and_close(event)
            status = 0
        finally:
            os._exit(status)
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        await sio.sleep(0.01)


@sio.event
async def fork_and_fall_through(sid: str) -> int:
    """A child that goes on as if it were the worker."""
    return os.fork() or os.getpid()


@sio.event
async def terminal(sid: str, text: str) -> str:
    """A web terminal: a shell on a pseudo-terminal, read in a background task."""
    pid, descriptor = pty.fork()
    if not pid:
        os.execvp("sh", ["sh", "-c", f"echo {text}; sleep 60"])
    output = ""

    async def read() -> None:
        nonlocal output
        while text not in output:
            await portable.wait_readable(descriptor)
            output += os.read(descriptor, 1024).decode()

    sio.start_background_task(read)
    while text not in output:
        await sio.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(descriptor)
    return output


def square(number: int) -> int:
    time.sleep(0.05)
    return number * number


@sio.event
async def pool(sid: str, number: int) -> list[int]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as executor:
        return list(executor.map(square, range(number)))


def wait_long() -> None:
    time.sleep(60)


@sio.event
async def terminate_child(sid: str) -> int:
    """The exit code of a child that is told to end, as by a server that stops its helpers."""
    process = multiprocessing.get_context("fork").Process(target=wait_long)
    process.start()
    await sio.sleep(0.3)
    process.terminate()
    while process.exitcode is None:
        await sio.sleep(0.01)
    return process.exitcode


@sio.event
async def call_external(sid: str) -> str:
    return subprocess.run(["echo", "hi"], capture_output=True, text=True, check=True).stdout
