from __future__ import annotations

from typing import Optional

import pytest

from unit.check.deployment import Deployment, host_with
from unit.pythons import NEW_PYTHON


def _with(deployment: Deployment, options: str, application: str = "myapp:app") -> Deployment:
    command = f"supervisor-sio worker {options} {application}"
    return deployment.set("program:workers", command=command, directory=str(deployment.directory))


@NEW_PYTHON
@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ("", None),
        ("--async-mode asyncio", None),
        ("--async-mode=threading --threads=8", None),
        ("--async-mode thread", "argument --async-mode: invalid choice: 'thread'"),
        ("--async-mode threading --threads 0", "argument --threads: 0 is too few, give 1 or more"),
        ("--threads 8", "argument --threads: only with --async-mode threading"),
        ("--thread-count 8", "unrecognized arguments: --thread-count myapp:app"),
    ],
)
def test_arguments_of_a_worker(deployment: Deployment, options: str, fault: Optional[str]) -> None:
    lines = _with(deployment, options).lines()
    if fault is None:
        assert lines == []
    else:
        (line,) = lines
        place = f"error: {deployment.path}: [program:workers] command: supervisor-sio worker: "
        assert line.startswith(f"{place}{fault}")


@NEW_PYTHON
@pytest.mark.parametrize(
    "command",
    [
        "sh -c 'exec supervisor-sio worker --async-mode asyncio myapp:app 2>&1'",
        "env A=b supervisor-sio worker myapp:app --async-mode asyncio",
    ],
)
def test_arguments_behind_a_wrapper(deployment: Deployment, command: str) -> None:
    (deployment.directory / "myapp.py").write_text("app = WSGIApp()\n")
    deployment.set("program:workers", directory=str(deployment.directory), command=command)
    (line,) = deployment.lines()
    assert "myapp:app is a WSGI application (WSGIApp), and --async-mode asyncio" in line


_FASTAPI = """\
import fastapi, socketio
from supervisor_sio import AsyncZmqManager
api = fastapi.FastAPI()
sio = socketio.AsyncServer(async_mode="asgi", client_manager=AsyncZmqManager())
app = socketio.ASGIApp(sio, api)
"""
_FLASK = """\
from flask import Flask as Application
from flask_socketio import SocketIO
from supervisor_sio import ZmqManager
app = Application(__name__)
socketio = SocketIO(app, async_mode="threading", client_manager=ZmqManager())
"""
_UNKNOWN = """\
import socketio
sio = socketio.Server(client_manager=ZmqManager())
app = wrap(socketio.WSGIApp(sio))
"""


@NEW_PYTHON
@pytest.mark.parametrize(
    ("module", "mode", "fault"),
    [
        (_FASTAPI, "asyncio", None),
        (
            _FASTAPI,
            "eventlet",
            "is an ASGI application (socketio.ASGIApp); write supervisor-sio worker --async-mode "
            "asyncio myapp:app",
        ),
        (_FLASK, "threading", None),
        (
            _FLASK,
            "eventlet",
            "has a flask_socketio.SocketIO(async_mode='threading'), and its workers run in mode "
            "eventlet: set async_mode='eventlet', or write --async-mode threading",
        ),
        (
            _FLASK,
            "asyncio",
            "is a WSGI application (flask.Flask), and --async-mode asyncio serves ASGI: write "
            "--async-mode threading, or remove the option for eventlet",
        ),
        (_UNKNOWN, "eventlet", None),
        (
            _UNKNOWN,
            "asyncio",
            "has a socketio.Server, and --async-mode asyncio needs a socketio.AsyncServer: use "
            "that, or write --async-mode threading",
        ),
        (
            _UNKNOWN.replace("Server", "AsyncServer"),
            "eventlet",
            "has a socketio.AsyncServer; write supervisor-sio worker --async-mode asyncio "
            "myapp:app",
        ),
        (
            _FASTAPI.replace("manager=Async", "manager="),
            "asyncio",
            "has a socketio.AsyncServer(client_manager=ZmqManager()): write AsyncZmqManager()",
        ),
        (
            _UNKNOWN,
            "threading",
            "has a socketio.Server() without async_mode, which defaults to eventlet if that is "
            "installed: set async_mode='threading'",
        ),
        (_UNKNOWN.replace("(client", "(**options, client"), "threading", None),
        (_UNKNOWN.replace("(client", "(async_mode=mode(), client"), "threading", None),
        (
            _UNKNOWN.replace("Zmq", "AsyncZmq"),
            "eventlet",
            "has a socketio.Server(client_manager=AsyncZmqManager()): write ZmqManager()",
        ),
        (
            _FASTAPI.replace(", client_manager=AsyncZmqManager()", ""),
            "asyncio",
            "has a socketio.AsyncServer() without AsyncZmqManager: sessions are not sticky and "
            "emits stay in their worker; write client_manager=AsyncZmqManager()",
        ),
        (
            _FLASK.replace("client_manager=ZmqManager()", "client_manager=None"),
            "threading",
            "has a flask_socketio.SocketIO() without ZmqManager: sessions are not sticky and "
            "emits stay in their worker; write client_manager=ZmqManager()",
        ),
        # It may get its manager later, as the first argument, or by a name.
        (
            _FLASK.replace("app, ", "").replace(", client_manager=ZmqManager()", ""),
            "threading",
            None,
        ),
        (_UNKNOWN.replace("client_manager=ZmqManager()", "ZmqManager()"), "eventlet", None),
        (_UNKNOWN.replace("client_manager=ZmqManager()", "**options"), "eventlet", None),
        (_UNKNOWN.replace("=ZmqManager()", "=manager"), "eventlet", None),
        ("if production: app = FastAPI()\nelse: app = Flask(__name__)\n", "eventlet", None),
        ("app = FastAPI()\napp = to_wsgi(app)\n", "eventlet", None),
        ("async def app(scope, receive, send): ...\n", "eventlet", None),
        ("this is not Python\n", "asyncio", None),
        ("app = Flask(__name__)\n" + "#" * 70000 + "\n(", "asyncio", None),
    ],
)
def test_what_the_module_shows(
    deployment: Deployment, module: str, mode: str, fault: Optional[str]
) -> None:
    (deployment.directory / "myapp.py").write_text(module)
    lines = _with(deployment, f"--async-mode {mode}").lines()
    where = f"error: {deployment.path}: [program:workers] command: myapp:app "
    assert lines == ([] if fault is None else [where + fault])


@pytest.mark.parametrize(
    ("application", "directory", "found"),
    [
        ("myapp:app", "%(here)s", True),
        ("package.module:app", "%(here)s", True),
        ("supervisor_sio.examples.chat:app", "/", True),
        ("myapp:app", "/", False),
        ("app.myapp:app", "%(here)s", False),
        ("myapp:app", "/no/such", True),  # another rule reports it
    ],
)
def test_where_the_module_is(
    deployment: Deployment, application: str, directory: str, found: bool
) -> None:
    (deployment.directory / "package").mkdir()
    command = f"supervisor-sio worker {application}"
    lines = deployment.set("program:workers", command=command, directory=directory).lines()
    name = application.partition(":")[0].partition(".")[0]
    where = f"warning: {deployment.path}: [program:workers] directory: there is no module {name!r}"
    assert any(line.startswith(where) for line in lines) is not found
    if not found:
        (line,) = lines
        assert line.endswith(f"; write directory = the directory that has {name}.py")


@pytest.mark.parametrize(
    ("path", "found"),
    [("src", True), ("lib:src", True), ("%(here)s/src", True), ("lib", False)],
)
def test_a_module_in_the_programs_own_path(deployment: Deployment, path: str, found: bool) -> None:
    (deployment.directory / "src").mkdir()
    (deployment.directory / "src" / "chat.py").touch()
    command, environment = "supervisor-sio worker chat:app", f'PYTHONPATH="{path}"'
    deployment.set("program:workers", command=command, environment=environment)
    assert (deployment.lines() == []) is found


_TASKS = """\
@manager.run_once("ticker")
def tick(): ...
@manager.run_once("other")
def other(): ...
"""


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ("", False),
        ("@manager.run_once('ticker')\nasync def again(lease): ...\n", True),
        ("if fast:\n    @manager.run_once('ticker')\n    def again(): ...\n", False),
        ("@another.run_once('ticker')\ndef again(): ...\n", False),
        ("@manager.run_once(name)\ndef third(): ...\n", False),
        ("@manager.on('ticker')\ndef third(): ...\n", False),
    ],
)
def test_two_functions_for_one_task(deployment: Deployment, more: str, found: bool) -> None:
    (deployment.directory / "myapp.py").write_text(_TASKS + more)
    lines = deployment.set("program:workers", directory=str(deployment.directory)).lines()
    assert [line.partition("command: ")[2] for line in lines] == [
        "myapp:app has two functions for run_once('ticker'): give each task a name of its own"
    ] * found


def test_a_package_has_the_application(deployment: Deployment) -> None:
    package = deployment.directory / "site" / "chat"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("app = FastAPI()\n")
    (line,) = _with(deployment, "", "site.chat:app").lines()
    assert "site.chat:app is an ASGI application (FastAPI); write" in line


@NEW_PYTHON
@pytest.mark.parametrize(
    ("threads", "allowed", "told"),
    [
        (8, 1000, None),
        (1, 1000, "--threads 1: while a handler waits, no other handler of its worker runs; "),
        (500, 1000, "--threads 500: 2 workers have up to 1008 threads, but the limit here is 1000"),
    ],
)
def test_threads(deployment: Deployment, threads: int, allowed: int, told: Optional[str]) -> None:
    lines = _with(deployment, f"--async-mode threading --threads {threads}").lines(
        host_with(threads=allowed)
    )
    where = f"warning: {deployment.path}: [program:workers] command: "
    assert [line.startswith(f"{where}{told}") for line in lines] == [True] * (told is not None)


@NEW_PYTHON
def test_a_worker_of_each_mode_on_one_port(deployment: Deployment) -> None:
    first = deployment.sections["program:workers"]
    (deployment.directory / "myapp_async.py").touch()
    command = "supervisor-sio worker --async-mode asyncio myapp_async:app"
    deployment.set("program:new", **{**first, "command": command})
    assert deployment.lines() == []
