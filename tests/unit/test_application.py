from __future__ import annotations

import sys
from pathlib import Path
from typing import Callable, Iterator

import pytest
import socketio

from supervisor_sio.worker.application import ApplicationError, check, load

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
    assert str(error_of(spec)) == f"{spec!r} is not module:app, as in chat:app"


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


def test_a_file_name_instead_of_a_module(write: Write) -> None:
    write("unit_chat.py", "app = print")
    assert str(error_of("unit_chat.py:app")).startswith("no module named 'unit_chat.py'")


@pytest.mark.parametrize("attribute", ["ap", "app.deeper", "app.", ".app"])
def test_no_such_attribute(write: Write, attribute: str) -> None:
    write("unit_chat.py", "app = print")
    message = f"module 'unit_chat' has no {attribute!r}"
    assert str(error_of(f"unit_chat:{attribute}")) == message


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


def test_an_application() -> None:
    check(socketio.WSGIApp(socketio.Server(async_mode="threading")))
