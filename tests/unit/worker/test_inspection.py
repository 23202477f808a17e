from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Iterator

import pytest

from supervisor_sio.cluster import sessions
from supervisor_sio.common.modes import ASYNCIO, EVENTLET
from supervisor_sio.common.rundir import ENVIRONMENT_VARIABLE
from supervisor_sio.worker import inspection
from supervisor_sio.worker.inspection import Report, inspect_application
from unit.pythons import NEW_PYTHON

MODULE = """
import socketio, sys, time
from flask import Flask
from supervisor_sio import ZmqManager

def server(**options):
    sio = socketio.Server(async_mode="eventlet", **options)
    sio.on("hello", print)
    return sio

def make(path="socket.io", **options):
    return socketio.WSGIApp(server(client_manager=ZmqManager(**options)), socketio_path=path)

def threads():
    sio = socketio.Server(async_mode="threading", client_manager=ZmqManager())
    return socketio.WSGIApp(sio)

def stock():
    return socketio.WSGIApp(server())

def both():
    return socketio.WSGIApp(server(client_manager=ZmqManager()), stock())

def silent():
    return socketio.WSGIApp(socketio.Server(async_mode="eventlet", client_manager=ZmqManager()))

def flask():
    return Flask("x")

def unwrapped():
    app = Flask("x")
    app.extensions["sio"] = server(client_manager=ZmqManager())
    return app

def ends():
    sys.exit(0)

def two_tasks():
    manager = ZmqManager()
    def one(): pass
    def two(): pass
    manager.run_once("ticker")(one)
    manager.run_once("ticker")(two)

async def bare(scope, receive, send):
    pass

def endless():
    try:
        time.sleep(600)
    except Exception:
        pass
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The module with the applications, in a process that is not a worker."""
    (tmp_path / "inspected.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in ("expect_clients", "serve_by"):
        monkeypatch.setattr(sessions, name, lambda *_: None)
    monkeypatch.setattr(sessions, "_servers", type(sessions._servers)())
    monkeypatch.setattr(sessions, "_managers_without_server", 0)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "/run/somewhere")
    yield
    sys.modules.pop("inspected", None)


def inspect(call: str, paths: tuple[str, ...] = ("/socket.io/",)) -> Report:
    return inspect_application(f"inspected:{call}", EVENTLET, paths)


def test_what_is_sound() -> None:
    report = inspect("make(takeover=True, recovery=60)")
    assert (report.errors, report.warnings) == ([], [])
    first, second = report.facts
    assert first.startswith("inspected:make(takeover=True, recovery=60): WSGIApp, imported in ")
    assert second == (
        "Server with ZmqManager, takeover on, recovery 60 s, namespaces /, handlers 1"
    )
    assert ENVIRONMENT_VARIABLE not in os.environ


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("make", "inspected:make is a function that makes an application; write module:make()"),
        ("threads()", "needs async_mode='eventlet', or write --async-mode threading"),
        ("stock()", "has a Socket.IO server without ZmqManager: sessions are not sticky"),
        ('make("/ws")', "has its Socket.IO server at /ws/, the router looks for /socket.io/"),
        ("no()", "module 'inspected' has no 'no'"),
        ("make(1, 2)", "inspected:make(1, 2) does not take these arguments: too many positional"),
        ('make(recovery="x")', 'inspected:make(recovery="x") failed'),
    ],
)
def test_what_ready_would_hide(call: str, error: str) -> None:
    report = inspect(call)
    assert len(report.errors) == 1 and error in report.errors[0]
    assert not report.warnings


@pytest.mark.parametrize(
    ("call", "warning"),
    [
        ("flask()", "has no Socket.IO server, as far as this check can see"),
        ("unwrapped()", "does not contain its Socket.IO server, as far as this check can see"),
        ("unwrapped()", "; serve socketio.WSGIApp(sio, unwrapped()) instead"),
        ("both()", "has a Manager, while another server has a ZmqManager"),
        ("silent()", "has no handlers: is the module with the handlers imported?"),
    ],
)
def test_what_will_hurt(call: str, warning: str) -> None:
    report = inspect(call)
    assert not report.errors
    assert len(report.warnings) == 1 and warning in report.warnings[0]


@NEW_PYTHON
def test_an_asgi_application_is_wrapped_by_an_asgi_application() -> None:
    (warning,) = inspect_application("inspected:bare", ASYNCIO, ("/socket.io/",)).warnings
    assert warning.endswith("; serve socketio.ASGIApp(sio, bare) instead")


def test_another_path() -> None:
    assert not inspect('make("/ws")', ("/ws/",)).errors


def test_more_memory_than_a_worker_may_have() -> None:
    paths = ("/socket.io/",)
    (warning,) = inspect_application("inspected:make()", EVENTLET, paths, 20 * 2**20).warnings
    assert "MB when it has imported inspected:make(), and max_memory is 20 MB: " in warning
    assert not inspect_application("inspected:make()", EVENTLET, paths, 2**40).warnings


def test_two_functions_for_one_task() -> None:
    (error,) = inspect("two_tasks()").errors
    assert error == (
        "inspected:two_tasks() failed at inspected.py:43: run_once('ticker') has a function "
        "already, inspected.two_tasks.<locals>.one: give inspected.two_tasks.<locals>.two another "
        "name"
    )


def test_a_module_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "IMPORT_TIMEOUT", 0.3)
    before, began = signal.getsignal(signal.SIGALRM), time.monotonic()
    (error,) = inspect("endless()").errors
    assert error.endswith("does its module start its own server?")
    assert time.monotonic() - began < 60
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_module_that_ends_the_process() -> None:
    assert inspect("ends()").errors == ["importing inspected:ends() called sys.exit(0)"]


def test_the_command(tmp_path: Path) -> None:
    # Supervisor 4.2.5 makes setuptools warn.
    command = [sys.executable, "-W", "ignore", "-c"]
    command += ["import sys; from supervisor_sio.cli import main; "]
    command[-1] += "sys.exit(main(sys.argv[1:]))"
    for app, status, said in (
        ("inspected:make()", 0, "Server with ZmqManager, takeover off, recovery off"),
        ("inspected:threads()", 1, "error: inspected:threads() has a Socket.IO server with"),
    ):
        done = subprocess.run(
            [*command, "check", "--app", app],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
        )
        assert (done.returncode, done.stderr) == (status, ""), done
        assert said in done.stdout and "Traceback" not in done.stdout
