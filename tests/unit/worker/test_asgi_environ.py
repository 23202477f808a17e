from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engineio.async_drivers.asgi import translate_request

from supervisor_sio.worker.asgi_environ import make_environ

#: What engineio makes up, or what ends with the handshake.
DIFFERENT = {
    *("REMOTE_ADDR", "REMOTE_PORT", "SERVER_NAME", "SERVER_PORT"),
    *("wsgi.input", "wsgi.url_scheme", "asgi.receive", "asgi.send"),
}


def scope_of(*headers: tuple[bytes, bytes], **more: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "scheme": "https",
        "path": "/socket.io/",
        "query_string": b"EIO=4&transport=polling",
        "client": ("192.0.2.1", 5),
        "server": ("192.0.2.2", 443),
        "headers": list(headers),
        **more,
    }


def of_engineio(scope: dict[str, Any]) -> Any:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    return asyncio.run(translate_request(scope, receive, None))


@pytest.mark.parametrize(
    "scope",
    [
        scope_of(),
        scope_of((b"host", b"x"), (b"cookie", b"a=1"), (b"cookie", b"b=2"), query_string=b""),
        scope_of(
            (b"content-type", b"text/plain"), (b"content-length", b"0"), (b"x-a", b"\xc3\xa4")
        ),
        scope_of((b"x-latin", b"\xe4"), query_string=b"\xe4"),
        scope_of((b"upgrade", b"websocket"), type="websocket", scheme="wss"),
    ],
)
def test_it_is_what_engineio_makes_of_a_scope(scope: dict[str, Any]) -> None:
    ours, stock = make_environ(scope), of_engineio(scope)
    assert ours.keys() ^ stock.keys() == {"asgi.receive", "asgi.send"}
    for key in stock.keys() - DIFFERENT:
        assert ours[key] == stock[key], key
    assert ours["asgi.scope"] is scope
    assert ours["wsgi.url_scheme"] == "https"
    assert asyncio.run(ours["wsgi.input"].read(5)) == b""


def test_the_addresses_are_those_of_the_scope() -> None:
    """Middleware may have replaced the client's address."""
    environ = make_environ(scope_of())
    assert [environ[key] for key in ("REMOTE_ADDR", "REMOTE_PORT")] == ["192.0.2.1", "5"]
    assert [environ[key] for key in ("SERVER_NAME", "SERVER_PORT")] == ["192.0.2.2", "443"]
    environ = make_environ(scope_of(client=None, server=("/run/app.sock", None)))
    assert [environ[key] for key in ("REMOTE_ADDR", "REMOTE_PORT")] == ["", "0"]
    assert [environ[key] for key in ("SERVER_NAME", "SERVER_PORT")] == ["/run/app.sock", "0"]


def test_a_proxy_says_by_which_scheme_the_client_came() -> None:
    assert make_environ(scope_of((b"x-forwarded-proto", b"http")))["wsgi.url_scheme"] == "http"


def test_a_name_with_an_underscore_is_not_taken_for_one_with_a_hyphen() -> None:
    environ = make_environ(scope_of((b"x-user", b"ann"), (b"x_user", b"root")))
    assert environ["HTTP_X_USER"] == "ann"
