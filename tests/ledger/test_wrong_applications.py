"""What a worker cannot serve ends it with one clear line: it is never ready, and then fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cluster.conftest import Clients, ClusterFactory
from cluster.harness import BIN, server_environment, wait_until
from cluster.modes import OWN_MODES

pytestmark = OWN_MODES

HERE = Path(__file__).parent


_ASGI = "which takes --async-mode asyncio; {} serves WSGI: socketio.WSGIApp"
_ASYNC = "has an AsyncServer, which needs --async-mode asyncio; {0} runs a socketio.Server("
_STOPS = "has a Server, whose handlers would block the loop: use socketio.AsyncServer("
_OTHER = "a worker with --async-mode {} needs async_mode='{}', or write --async-mode {}"

EVENTLET, THREADING, ASYNCIO = "eventlet", "threading", "asyncio"


@pytest.mark.parametrize(
    ("mode", "application", "reason"),
    [
        *((mode, "asgi", _ASGI.format(mode)) for mode in (EVENTLET, THREADING)),
        *((mode, "server", _ASYNC.format(mode)) for mode in (EVENTLET, THREADING)),
        *((mode, "asyncio_server()", _ASYNC.format(mode)) for mode in (EVENTLET, THREADING)),
        (EVENTLET, "threads()", _OTHER.format(EVENTLET, EVENTLET, THREADING)),
        (EVENTLET, "flask_threads()", _OTHER.format(EVENTLET, EVENTLET, THREADING)),
        (THREADING, "create_app()", _OTHER.format(THREADING, THREADING, EVENTLET)),
        (
            EVENTLET,
            "two_tasks()",
            "run_once('ticker') has a function already, wrong_app.no_manager: give "
            "wrong_app.create_app another name",
        ),
        (ASYNCIO, "create_app()", "which takes --async-mode eventlet or threading; asyncio serves"),
        (ASYNCIO, "make_server()", _STOPS),
        (ASYNCIO, "sync_server()", _STOPS),
        (ASYNCIO, "mounted()", _STOPS),
        (ASYNCIO, "server", "is an AsyncServer, not an ASGI application; wrap it: app = socketio."),
        (
            EVENTLET,
            "make_server()",
            "is a Server, not a WSGI application; wrap it: app = socketio.",
        ),
        *(
            (mode, "create_app", "write module:create_app()")
            for mode in (EVENTLET, THREADING, ASYNCIO)
        ),
        (
            ASYNCIO,
            "wrong_manager()",
            ": ZmqManager is for a socketio.Server: write "
            "socketio.AsyncServer(client_manager=AsyncZmqManager())",
        ),
    ],
)
def test_what_cannot_be_served_is_told_in_one_line(
    mode: str, application: str, reason: str
) -> None:
    ended = subprocess.run(
        [BIN / "supervisor-sio", "worker", "--async-mode", mode, f"wrong_app:{application}"],
        cwd=HERE,
        env=server_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1), ended.stderr
    assert ended.stderr.startswith("supervisor-sio worker: error: wrong_app:")
    assert reason in ended.stderr


def test_a_program_that_is_imported_as_well() -> None:
    ended = subprocess.run(
        [sys.executable, "wrong_app.py"],
        cwd=HERE,
        env=server_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    (line,) = [line for line in ended.stderr.splitlines() if "error" in line]
    assert "wrong_app.py runs as the program and is also imported as module 'wrong_app'" in line
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("application", "reason"),
    [
        (
            "another_path()",
            "the application has its Socket.IO server at /ws/, the router looks for /socket.io/: "
            "set path = /ws/ in [rpcinterface:sio]",
        ),
        (
            "no_manager()",
            "supervisor-sio worker: error: wrong_app:no_manager() has a Socket.IO server without "
            "ZmqManager: ",
        ),
        ("two_servers()", "two ZmqManagers on channel 'another' in one process"),
        (
            "mounted_at_another_path()",
            "the application has its Socket.IO server at /ws/, the router looks for /socket.io/: "
            "set path = /ws/ in [rpcinterface:sio]",
        ),
        (
            "asgi",
            "supervisor-sio worker: error: wrong_app:asgi has a Socket.IO server without "
            "AsyncZmqManager: ",
        ),
    ],
)
def test_what_cannot_work_in_this_cluster_is_never_ready(
    make_cluster: ClusterFactory, application: str, reason: str
) -> None:
    mode = ASYNCIO if application in ("asgi", "mounted_at_another_path()") else EVENTLET
    command = f"supervisor-sio worker --async-mode {mode} wrong_app:{application}"
    cluster = make_cluster(here=HERE, command=command, workers=1, startsecs=2)
    cluster.spawn()
    wait_until(lambda: reason in cluster.log("workers_00"), 20, "the reason")
    assert "ready (tag" not in cluster.log("workers_00")
    assert "Traceback" not in cluster.log("workers_00")


def test_a_factory_that_is_called_makes_the_application(
    make_cluster: ClusterFactory, clients: Clients
) -> None:
    cluster = make_cluster(
        here=HERE, command="supervisor-sio worker wrong_app:create_app()", workers=1
    ).start()
    clients.connect(cluster, "python", ["websocket"])
