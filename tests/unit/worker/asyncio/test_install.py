"""The imports of a worker on asyncio, and the start and end of a complete one."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap

PROGRAM = """
import asyncio, os, signal, socket, sys, threading
import socketio
from supervisor_sio import AsyncZmqManager, serve

sio = socketio.AsyncServer(async_mode="asgi", client_manager=AsyncZmqManager())
seen = []

async def other(scope, receive, send):
    while True:
        event = (await receive())["type"]
        seen.append(event)
        await send({"type": event + ".complete"})
        if event == "lifespan.shutdown":
            return

def poll():
    while True:
        try:
            client = socket.create_connection(("127.0.0.1", PORT))
            break
        except ConnectionRefusedError:
            pass
    with client:
        client.sendall(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        seen.append(client.recv(1000)[:15].decode())
    os.kill(os.getpid(), signal.SIGTERM)

probe = socket.socket()
probe.bind(("127.0.0.1", 0))
PORT = probe.getsockname()[1]
probe.close()
threading.Thread(target=poll).start()
serve(socketio.ASGIApp(sio, other), f"127.0.0.1:{PORT}")
print(seen, "eventlet" in sys.modules)
"""


def test_a_worker_without_eventlet() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    expected = ["lifespan.startup", "HTTP/1.1 200 OK", "lifespan.shutdown"]
    assert done.stdout.splitlines()[-1] == f"{expected} False"


BLOCKED = """
import asyncio, os, signal, threading, time
from supervisor_sio import serve

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        while True:
            event = (await receive())["type"]
            await send({"type": event + ".complete"})

serve(app, "127.0.0.1:PORT")
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", program.replace("PORT", str(port))]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_a_blocked_thread_does_not_keep_the_process() -> None:
    done = run(BLOCKED)
    assert done.returncode == 0, done.stderr
    assert "ending the process while threads of the application run: " in done.stderr


HANGS = """
import asyncio, os, signal, threading
from supervisor_sio import serve

async def app(scope, receive, send):
    await receive()
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    try:
        await asyncio.sleep(60)
    finally:
        print("cancelled")

serve(app, "127.0.0.1:PORT")
"""


def test_it_can_be_stopped_while_the_application_starts() -> None:
    done = run(HANGS)
    assert (done.returncode, done.stdout) == (0, "cancelled\n"), done.stderr
