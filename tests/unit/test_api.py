"""What ``supervisor_sio`` exports: loaded on first use, and strict about what it is given."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import supervisor_sio
from supervisor_sio import AsyncZmqManager, ZmqManager, serve


def test_nothing_is_loaded_before_its_first_use() -> None:
    program = (
        "import supervisor_sio, supervisor_sio.rpcinterface, supervisor_sio.ctlplugin, sys\n"
        "packages = {name.partition('.')[0] for name in sys.modules}\n"
        "print(*packages & {'eventlet', 'greenlet', 'socketio', 'engineio', 'zmq', 'asyncio'})\n"
        "print(*(name for name in sys.modules if name.startswith('supervisor_sio.cluster')))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    # Supervisor 4.2.5 warns on standard error, of pkg_resources.
    assert (done.returncode, done.stdout.split()) == (0, []), done


@pytest.mark.parametrize("name", supervisor_sio.__all__)
def test_each_name_is_there(name: str) -> None:
    namespace: dict[str, Any] = {}
    exec(f"from supervisor_sio import {name}", namespace)
    assert namespace[name] is getattr(supervisor_sio, name)
    assert name in dir(supervisor_sio)


def test_a_name_that_nobody_has_is_an_error() -> None:
    with pytest.raises(AttributeError, match="'supervisor_sio' has no attribute 'ZmqManger'"):
        supervisor_sio.ZmqManger  # noqa: B018
    with pytest.raises(ImportError, match="ZmqManger"):
        exec("from supervisor_sio import ZmqManger")


@pytest.mark.parametrize("manager", [ZmqManager, AsyncZmqManager])
def test_a_misspelt_option_is_named(manager: Any) -> None:
    with pytest.raises(TypeError, match="'takover'"):
        manager(takover=True)


def test_a_misspelt_option_of_serve_is_named() -> None:
    with pytest.raises(TypeError, match="'listne'"):
        serve(None, listne="127.0.0.1:8000")  # type: ignore[call-arg]


@pytest.mark.parametrize("manager", [ZmqManager, AsyncZmqManager])
@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("emit", ("event", None)),
        ("emit_with_acks", ("event",)),
        ("fetch_sockets", ()),
        ("fetch_rooms", ()),
        ("server_count", ()),
        ("sockets_join", ("room",)),
        ("sockets_leave", ("room",)),
        ("disconnect_sockets", ()),
        ("disconnect", ("sid",)),
        ("server_side_emit", ("event",)),
        ("server_side_call", ("event",)),
        ("enter_room", ("sid", "/", "room")),
        ("leave_room", ("sid", "/", "room")),
        ("close_room", ("room",)),
        ("on", ("event",)),
        ("on_takeover", ()),
        ("on_recovery", ()),
        ("run_once", ("task",)),
    ],
)
def test_a_misspelt_parameter_is_named(manager: Any, method: str, arguments: Any) -> None:
    with pytest.raises(TypeError, match="'name_space'"):
        getattr(manager(), method)(*arguments, name_space="/")


@pytest.mark.parametrize("manager", [ZmqManager, AsyncZmqManager])
@pytest.mark.parametrize("method", ["on_takeover", "on_recovery"])
def test_a_namespace_is_no_handler(manager: Any, method: str) -> None:
    with pytest.raises(TypeError) as error:
        getattr(manager(), method)("/news")
    text = f"{method}(): '/news' is not a function; write namespace='/news'"
    assert str(error.value) == text


@pytest.mark.parametrize("manager", [ZmqManager, AsyncZmqManager])
def test_on_wants_an_event_and_a_function(manager: Any) -> None:
    with pytest.raises(TypeError, match=r"on\(\): 5 is not a function$"):
        manager().on("reload", 5)
    with pytest.raises(
        TypeError, match=r'on\(\): <function .* is not an event: write on\("event"\)'
    ):

        @manager().on
        def reload() -> None: ...
