"""Environments of handshakes, in a process that takes clients over."""

from __future__ import annotations

import io
import json
import sys
from typing import Any, Callable, Iterator

import pytest

from supervisor_sio.cluster import environs
from supervisor_sio.cluster.plain import NotPlain, Writer
from supervisor_sio.common.blocking import settle
from supervisor_sio.engine.saved import Saved
from supervisor_sio.worker.asgi_environ import make_environ as make_async_environ


@pytest.fixture(autouse=True)
def another_process() -> Iterator[None]:
    yield
    environs.serve(None)


def move(environ: dict[str, Any], to: Callable[[], Any] = lambda: None) -> dict[str, Any]:
    """:param to: called when the other process begins."""
    text = json.dumps(environs.save(environ, Writer()))
    to()
    return environs.restore(Saved(json.loads(text), "environ"))


def wsgi_environ(**more: Any) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/socket.io/",
        "QUERY_STRING": "EIO=4",
        "HTTP_COOKIE": "session=\xe4",
        "HTTP_USER_AGENT": "a browser",
        "REMOTE_ADDR": "192.0.2.1",
        "wsgi.version": (1, 0),
        "wsgi.errors": sys.stderr,
        "wsgi.input": io.BytesIO(b"gone"),
        "wsgi.url_scheme": "https",
        "wsgi.multithread": True,
        **more,
    }


def test_what_is_text_is_the_same() -> None:
    of_request = {
        "wsgi.file_wrapper": object,
        "eventlet.input": object(),
        "werkzeug.request": object(),
        "supervisor_sio.exchange": object(),
    }
    environ = wsgi_environ()
    moved = move({**environ, **of_request})
    assert moved.pop("wsgi.input").read() == b""
    assert moved.pop("wsgi.errors") is sys.stderr
    for key in ("wsgi.input", "wsgi.errors"):
        del environ[key]
    assert moved == environ
    assert type(moved["wsgi.version"]) is tuple


def test_clients_share_what_they_have_in_common() -> None:
    first, second = move(wsgi_environ()), move(wsgi_environ())
    assert first["HTTP_USER_AGENT"] is second["HTTP_USER_AGENT"]
    assert first["HTTP_COOKIE"] is not second["HTTP_COOKIE"]
    assert [id(key) for key in first] == [id(key) for key in second]


def test_an_object_of_a_middleware_is_named() -> None:
    with pytest.raises(NotPlain) as caught:
        environs.save(wsgi_environ(**{"beaker.session": object()}), Writer())
    assert (caught.value.path, caught.value.what) == ("beaker.session", "of type object")


def test_an_application_that_is_not_found_is_named() -> None:
    with pytest.raises(NotPlain, match=r"flask\.app is of type object"):
        environs.save(wsgi_environ(**{"flask.app": object()}), Writer())


@pytest.mark.parametrize("wrong", [[], {}, {"values": 1}, {"values": {}, "sessions": {}, "own": 1}])
def test_what_is_no_environment_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="environ"):
        environs.restore(Saved(wrong, "environ"))


# --- ASGI ---------------------------------------------------------------------------


def scope_of(**more: Any) -> dict[str, Any]:
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 80),
        "client": ("192.0.2.1", 1234),
        "scheme": "ws",
        "root_path": "",
        "headers": [(b"host", b"example.org"), (b"cookie", b"a=\xff"), (b"user-agent", b"x")],
        "path": "/socket.io/",
        "raw_path": b"/socket.io/",
        "query_string": b"EIO=4&transport=websocket",
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
        **more,
    }


def test_the_scope_of_asgi() -> None:
    environ = make_async_environ(scope_of())
    moved = move(environ)
    body = moved["wsgi.input"].read(5)
    with pytest.raises(StopIteration) as stop:
        settle(body).send(None)
    assert stop.value.value == b""
    for key in ("wsgi.input", "wsgi.errors"):
        del environ[key], moved[key]
    assert moved == environ
    scope = moved["asgi.scope"]
    assert scope == scope_of()
    assert all(type(field) is tuple for field in scope["headers"])
    assert type(scope["client"]) is tuple


def test_the_state_of_a_lifespan_is_that_of_the_process() -> None:
    pools = [object(), object()]
    environs.serve(None, lambda: {"pool": pools[0], "n": 1})
    scope = scope_of(state={"pool": pools[0], "n": 2, "mine": ["x"]})
    moved = move(
        make_async_environ(scope), lambda: environs.serve(None, lambda: {"pool": pools[1]})
    )
    assert moved["asgi.scope"]["state"] == {"pool": pools[1], "n": 2, "mine": ["x"]}
    with pytest.raises(
        ValueError, match="'pool' is not in the state of the application's lifespan"
    ):
        environs.serve(None, lambda: {"pool": pools[0]})
        move(make_async_environ(scope), lambda: environs.serve(None))


def test_an_object_in_the_state_of_a_request_is_named() -> None:
    environ = make_async_environ(scope_of(state={"user": {"id": 1, "key": object()}}))
    with pytest.raises(NotPlain) as caught:
        environs.save(environ, Writer())
    assert caught.value.path == "asgi.scope.state.user.key"


def test_what_only_led_to_the_socket_io_server_is_left_out() -> None:
    more = {
        "router": object(),
        "endpoint": object(),
        "route": object(),
        "starlette.exception_handlers": ({}, {}),
        "fastapi_inner_astack": object(),
    }
    moved = move(make_async_environ(scope_of(**more)))
    assert moved["asgi.scope"] == scope_of()


@pytest.mark.parametrize("is_async", [False, True])
def test_of_a_client_whose_worker_has_died(is_async: bool) -> None:
    flask = pytest.importorskip("flask")
    app = flask.Flask(__name__)
    environs.serve(lambda environ, start_response: app(environ, start_response))
    environ = environs.unknown(is_async)
    assert environ["flask.app"] is app
    if not is_async:
        with app.request_context(environ):
            assert flask.request.path == "/socket.io/" and not flask.request.data
    else:
        assert environ["asgi.scope"]["path"] == "/socket.io/"
