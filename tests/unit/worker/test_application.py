from __future__ import annotations

import sys
import weakref
from functools import partial
from pathlib import Path
from typing import Any, Callable, Iterator

import flask_socketio
import pytest
import socketio
from flask import Flask

from supervisor_sio import AsyncZmqManager, ZmqManager
from supervisor_sio.cluster import sessions
from supervisor_sio.common.modes import ASYNCIO, EVENTLET, THREADING, AsyncMode
from supervisor_sio.worker.application import (
    ApplicationError,
    check,
    check_manager,
    check_path,
    check_servers,
    load,
    mode_for,
)

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module into the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def write_module(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    yield write_module
    for name in set(sys.modules) - before:
        del sys.modules[name]


def error_of(spec: str) -> ApplicationError:
    with pytest.raises(ApplicationError) as caught:
        load(spec)
    assert "\n" not in str(caught.value)
    return caught.value


def test_the_application_of_a_module_here(write: Write) -> None:
    write("unit_chat.py", "def app(environ, start_response): return [b'hi']")
    assert load("unit_chat:app")({}, None) == [b"hi"]


def test_an_application_deeper_down(write: Write) -> None:
    write("unit_pkg/__init__.py", "")
    write("unit_pkg/web.py", "class site:\n    @staticmethod\n    def app(e, s): return [b'deep']")
    assert load("unit_pkg.web:site.app")({}, None) == [b"deep"]


def test_this_directory_comes_first(write: Write) -> None:
    write("wsgiref.py", "app = print")
    sys.modules.pop("wsgiref", None)
    assert load("wsgiref:app") is print


@pytest.mark.parametrize("spec", ["chat", "", ":", "chat:", ":app"])
def test_not_a_specification(spec: str) -> None:
    assert str(error_of(spec)) == f"{spec!r} is not module:app, for example chat:app"


@pytest.mark.parametrize(
    ("spec", "missing"),
    [
        ("unit_nothing:app", "unit_nothing"),
        ("unit_nothing.web:app", "unit_nothing"),
        ("unit_pkg.nothing:app", "unit_pkg.nothing"),
    ],
)
def test_no_such_module(write: Write, tmp_path: Path, spec: str, missing: str) -> None:
    write("unit_pkg/__init__.py", "")
    error = error_of(spec)
    assert str(error) == f"no module named {missing!r} in {tmp_path} or on the Python path"
    assert error.detail == ""


def test_a_file_name_instead_of_a_module(write: Write, tmp_path: Path) -> None:
    write("unit_chat.py", "app = print")
    (tmp_path / "site").mkdir()
    for name, module in (("unit_chat.py", "unit_chat"), ("site/chat.py", "site.chat")):
        text = str(error_of(f"{name}:app"))
        assert text.startswith("no module named '")
        assert text.endswith(f"; write {module}:app, without .py")


@pytest.mark.parametrize(
    ("attribute", "hint"),
    [
        ("ap", "; did you mean 'app'?"),
        ("application", "; did you mean 'app'?"),
        ("sitee", "; did you mean 'site'?"),
        ("app.deeper", ""),
        ("app.", ""),
        (".app", "; did you mean 'app'?"),
    ],
)
def test_no_such_attribute(write: Write, attribute: str, hint: str) -> None:
    write("unit_chat.py", "app = print\nsite = print")
    message = f"module 'unit_chat' has no {attribute!r}{hint}"
    assert str(error_of(f"unit_chat:{attribute}")) == message


def test_nothing_like_it(write: Write) -> None:
    write("unit_chat.py", "x = 1")
    assert str(error_of("unit_chat:app")) == "module 'unit_chat' has no 'app'"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import unit_missing_too", "ModuleNotFoundError: No module named 'unit_missing_too'"),
        ("import unit_b", "ModuleNotFoundError: No module named 'unit_b'"),
        ("from os import nothing_there", "ImportError: cannot import name 'nothing_there'"),
    ],
)
def test_a_module_that_fails(write: Write, text: str, reason: str) -> None:
    write("unit_broken.py", text)
    error = error_of("unit_broken:app")
    assert str(error).startswith(f"importing 'unit_broken' failed with {reason}")
    assert "unit_broken.py" in error.detail and "Traceback" in error.detail


def test_a_module_with_a_syntax_error(write: Write) -> None:
    write("unit_broken.py", "def app(:")
    error = error_of("unit_broken:app")
    assert str(error).startswith("importing 'unit_broken' failed with SyntaxError: ")
    assert "def app(:" in error.detail


def test_what_is_no_application(write: Write) -> None:
    write("unit_chat.py", "app = None")
    assert str(error_of("unit_chat:app")) == "unit_chat:app is a NoneType, not a WSGI application"


def test_a_socketio_server_needs_wrapping() -> None:
    with pytest.raises(ApplicationError) as caught:
        check(socketio.Server(async_mode="threading"), "chat:sio")
    assert str(caught.value) == (
        "chat:sio is a Server, not a WSGI application; wrap it: app = socketio.WSGIApp(sio)"
    )


def eventlet_app(path: str = "socket.io") -> socketio.WSGIApp:
    return socketio.WSGIApp(socketio.Server(async_mode="eventlet"), socketio_path=path)


def test_an_application() -> None:
    check(eventlet_app())


class Middleware:
    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, *args: Any, **more: Any) -> Any:
        return self.app(*args, **more)


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


class Asgi:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


@pytest.mark.parametrize(
    "app", [asgi, Asgi(), partial(asgi, None), socketio.ASGIApp(socketio.AsyncServer())]
)
def test_asgi_applications(app: Any) -> None:
    with pytest.raises(ApplicationError, match="^chat:app is an ASGI application "):
        check(app, "chat:app")


class Plain:
    """ASGI middleware whose ``__call__`` is not a coroutine function."""

    def __call__(self, scope: Any, receive: Any, send: Any) -> Any: ...


def test_an_application_is_loaded_for_its_mode(write: Write) -> None:
    write("asyncchat.py", "async def app(scope, receive, send): ...\n")
    assert callable(load("asyncchat:app", ASYNCIO))
    with pytest.raises(ApplicationError, match="is an ASGI application"):
        load("asyncchat:app")


def wsgi(environ: Any, start_response: Any) -> Any: ...


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        (
            wsgi,
            "chat:app is a WSGI application (function), which takes --async-mode eventlet or "
            "threading; asyncio serves ASGI: socketio.ASGIApp, FastAPI, Starlette",
        ),
        (lambda: None, "chat:app is a function that makes an application; write module:<lambda>()"),
        (
            socketio.AsyncServer(),
            "chat:app is an AsyncServer, not an ASGI application; wrap it: "
            "app = socketio.ASGIApp(sio)",
        ),
        (
            socketio.Server(async_mode="threading"),
            "chat:app has a Server, whose handlers would block the loop: use "
            "socketio.AsyncServer(client_manager=AsyncZmqManager()), or serve it as WSGI with "
            "--async-mode threading",
        ),
        (
            socketio.ASGIApp(socketio.Server(async_mode="threading")),
            "chat:app has a Server, whose handlers would block the loop: use "
            "socketio.AsyncServer(client_manager=AsyncZmqManager()), or serve it as WSGI with "
            "--async-mode threading",
        ),
        (
            lambda scope: None,
            "chat:app (function) does not take scope, receive and send as an ASGI application does",
        ),
    ],
)
def test_what_asyncio_does_not_serve(app: Any, reason: str) -> None:
    with pytest.raises(ApplicationError) as caught:
        check(app, "chat:app", ASYNCIO)
    assert str(caught.value) == reason


def test_the_mode_that_an_application_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_servers", weakref.WeakKeyDictionary())
    assert mode_for(wsgi) is EVENTLET
    assert mode_for(socketio.WSGIApp(socketio.Server(async_mode="threading"))) is THREADING
    assert mode_for(eventlet_app()) is EVENTLET
    app = Flask("chat")
    flask_socketio.SocketIO(app, async_mode="threading")
    assert mode_for(app) is THREADING


@pytest.mark.parametrize("wrap", [lambda app: app, Middleware])
def test_servers_for_other_ways_to_run(wrap: Any) -> None:
    for server, reason in (
        (socketio.AsyncServer(async_mode="asgi"), "AsyncServer, which needs"),
        (socketio.Server(async_mode="threading"), "async_mode='threading'"),
    ):
        with pytest.raises(ApplicationError, match=reason):
            check(wrap(socketio.WSGIApp(server)), "chat:app")
    with pytest.raises(ApplicationError, match="AsyncServer, which needs"):
        check(socketio.AsyncServer(async_mode="asgi"))


class Mount:
    """Like Starlette's."""

    def __init__(self, app: Any) -> None:
        self.path, self.app = "/ws", app


class Fast:
    """Like FastAPI."""

    def __init__(self, *routes: Any) -> None:
        self.routes = list(routes)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


def under(app: Any) -> Any:
    return Fast(object(), Mount(app))


def beside(app: Any) -> Any:
    return socketio.ASGIApp(socketio.AsyncServer(async_mode="asgi"), app)


def by_function(app: Any) -> Any:
    return lambda scope, receive, send: app(scope, receive, send)


async_app = socketio.ASGIApp(socketio.AsyncServer(async_mode="asgi"))


@pytest.mark.parametrize(
    "app",
    [
        *(asgi, Asgi(), Plain(), partial(asgi, None), async_app, under(async_app), beside(asgi)),
        *(by_function(async_app), Middleware(async_app)),
    ],
)
def test_asgi_applications_on_asyncio(app: Any) -> None:
    check(app, mode=ASYNCIO)
    assert mode_for(app) is ASYNCIO


@pytest.mark.parametrize("mode", [EVENTLET, THREADING])
def test_wsgi_applications_and_their_mode(mode: AsyncMode) -> None:
    app = socketio.WSGIApp(socketio.Server(async_mode=mode.name))
    for each in (app, Middleware(app)):
        check(each, mode=mode)
        assert mode_for(each) is mode
        with pytest.raises(ApplicationError) as caught:
            check(each, "chat:app", mode=EVENTLET if mode is THREADING else THREADING)
        assert str(caught.value).endswith(f", or write --async-mode {mode.name}")
    for each in (app, socketio.Server(async_mode=mode.name)):
        with pytest.raises(ApplicationError, match="--async-mode (eventlet or )?threading"):
            check(each, "chat:app", ASYNCIO)


def test_the_mode_of_an_application_whose_server_does_not_show(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions, "_servers", weakref.WeakKeyDictionary())
    server = socketio.Server(async_mode="threading", client_manager=ZmqManager())
    assert mode_for(print) is THREADING
    assert server.async_mode == "threading"


@pytest.mark.parametrize("mode", [EVENTLET, THREADING])
@pytest.mark.parametrize("app", [async_app, under(async_app), by_function(async_app)])
def test_asgi_applications_in_other_modes(app: Any, mode: AsyncMode) -> None:
    with pytest.raises(ApplicationError, match="which takes --async-mode asyncio"):
        check(app, "chat:app", mode)


@pytest.mark.parametrize("wrap", [under, beside, Middleware])
def test_a_sync_server_on_asyncio(wrap: Any) -> None:
    app = wrap(socketio.ASGIApp(socketio.Server(async_mode="threading")))
    with pytest.raises(ApplicationError, match="has a Server, whose handlers would block the loop"):
        check(app, "chat:app", ASYNCIO)


def test_servers_that_do_not_show_are_looked_at_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_servers", weakref.WeakKeyDictionary())
    server = socketio.AsyncServer(client_manager=AsyncZmqManager())
    check_servers(ASYNCIO)
    with pytest.raises(ApplicationError, match="^the application has an AsyncServer, which needs"):
        check_servers(THREADING)
    assert server.manager


@pytest.mark.parametrize("wrap", [lambda app: app, under, beside])
def test_an_async_server_without_our_manager(wrap: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_servers", weakref.WeakKeyDictionary())
    monkeypatch.setattr(sessions, "_managers_without_server", 0)
    with pytest.raises(ApplicationError) as caught:
        check_manager(wrap(async_app), "chat:app")
    assert str(caught.value).endswith(
        "write socketio.AsyncServer(client_manager=AsyncZmqManager())"
    )


def test_the_path_of_a_mounted_application() -> None:
    app = under(socketio.ASGIApp(socketio.AsyncServer(async_mode="asgi"), socketio_path="/ws/io"))
    check_path(app, ["/ws/io/"])
    with pytest.raises(ApplicationError, match="at /ws/io/, the router looks for /socket.io/"):
        check_path(app, ["/socket.io/"])
    # It takes all that comes under its mount, wherever that is.
    server = socketio.AsyncServer(async_mode="asgi")
    check_path(under(socketio.ASGIApp(server, socketio_path=None)), ["/socket.io/"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "socketio.AsyncServer(async_mode='asgi', client_manager=ZmqManager())",
            "ZmqManager is for a socketio.Server: ",
        ),
        (
            "socketio.Server(async_mode='threading', client_manager=AsyncZmqManager())",
            "AsyncZmqManager is for a socketio.AsyncServer: ",
        ),
        ("ZmqManager(url='tcp://x')", "url 'tcp://x' is not supported: "),
    ],
)
def test_what_we_refuse_is_told_in_a_line(write: Write, text: str, reason: str) -> None:
    write(
        "unit_chat.py",
        f"import socketio\nfrom supervisor_sio import AsyncZmqManager, ZmqManager\nsio = {text}\n",
    )
    error = error_of("unit_chat:app")
    assert str(error).startswith(f"importing 'unit_chat' failed at unit_chat.py:3: {reason}")
    assert error.detail == ""


def test_an_application_of_flask() -> None:
    app = Flask("chat")
    flask_socketio.SocketIO(app, async_mode="threading")
    with pytest.raises(ApplicationError, match="async_mode='threading'"):
        check(app)
    app = Flask("chat")
    flask_socketio.SocketIO(app, async_mode="eventlet", path="/chat")
    check(app)
    with pytest.raises(ApplicationError, match="at /chat/, the router looks for /socket.io/"):
        check_path(app, ["/socket.io/"])


def test_a_factory_is_called(write: Write) -> None:
    write(
        "unit_chat.py",
        "class site:\n    @staticmethod\n    def make(greeting=b'hi'):\n"
        "        return lambda environ, start_response: [greeting]\n",
    )
    assert load("unit_chat:site.make()")({}, None) == [b"hi"]


@pytest.mark.parametrize(
    ("text", "spec", "reason"),
    [
        ("def make(): return None", "unit_chat:make()", "is a NoneType, not a WSGI application"),
        ("def make(): 1 / 0", "unit_chat:make()", "failed with ZeroDivisionError"),
        (
            "def make(config): pass",
            "unit_chat:make()",
            "needs arguments, but is called without any",
        ),
        ("make = 5", "unit_chat:make()", "is not callable, its type is int"),
        ("def make(): pass", "unit_chat:make", "makes an application; write module:make()"),
        ("def make(a=1, b=2): pass", "unit_chat:make", "makes an application"),
        ("def make(config): pass", "unit_chat:make", "does not take environ and start_response"),
        ("x = 1", "unit_chat:()", "is not module:app"),
    ],
)
def test_factories_that_make_none(write: Write, text: str, spec: str, reason: str) -> None:
    write("unit_chat.py", text)
    assert reason in str(error_of(spec))


@pytest.mark.parametrize(
    "app",
    [print, lambda environ, start_response: [], lambda *args: [], Middleware(print), type],
)
def test_whatever_may_be_an_application(app: Any) -> None:
    check(app)


@pytest.mark.parametrize("path", ["/socket.io/", "/ws/", "/behind/middleware/ws/"])
def test_a_path_that_the_router_knows(path: str) -> None:
    check_path(eventlet_app("/ws"), ["/ws/"])
    check_path(eventlet_app(path), ["/socket.io/", "/ws/", "/behind/middleware/ws/"])
    check_path(print, ["/socket.io/"])


@pytest.mark.parametrize("wrap", [lambda app: app, Middleware])
def test_a_path_that_the_router_does_not_know(wrap: Any) -> None:
    with pytest.raises(ApplicationError, match="at /ws/, the router looks for /socket.io/, /b/"):
        check_path(wrap(eventlet_app("ws")), ["/socket.io/", "/b/"])


@pytest.mark.parametrize("wrap", [lambda app: app, Middleware])
def test_a_server_without_our_manager(wrap: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other poll of its clients would reach a worker that does not have their session."""
    monkeypatch.setattr(sessions, "_servers", weakref.WeakKeyDictionary())
    monkeypatch.setattr(sessions, "_managers_without_server", 0)
    app = Flask("chat")
    flask_socketio.SocketIO(app, async_mode="eventlet")
    for each in (eventlet_app(), app):
        with pytest.raises(ApplicationError) as caught:
            check_manager(wrap(each), "chat:app")
        assert str(caught.value) == (
            "chat:app has a Socket.IO server without ZmqManager: sessions are not sticky and emits "
            "stay in this worker; write socketio.Server(client_manager=ZmqManager())"
        )
    kept = ZmqManager()  # Flask-SocketIO puts that of a message_queue in its place
    with pytest.raises(ApplicationError, match="^chat:app makes a ZmqManager, .* message_queue"):
        check_manager(wrap(app), "chat:app")
    server = socketio.Server(async_mode="eventlet", client_manager=kept)
    check_manager(wrap(socketio.WSGIApp(server)), "chat:app")


def test_an_application_without_a_server_needs_no_manager(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions, "_servers", weakref.WeakKeyDictionary())
    for app in (print, Flask("chat"), Middleware(print)):
        check_manager(app)
