"""Volatile emits to clients with and without pending output, in each mode."""

from __future__ import annotations

from typing import Any, Iterator

import pytest

from unit.worker.served import APPS, App, Client, connect, end, open_session, serve_by

LONG = "x" * 100_000


@pytest.fixture(params=APPS)
def app(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    serve_by(request.param, monkeypatch)
    app = request.param()
    yield app
    end(app)


def emit(app: App, *args: Any, **options: Any) -> None:
    app.do(app.sio.manager.emit(*args, **options))


def test_a_websocket_that_is_behind(app: App) -> None:
    quick, slow = connect(app), connect(app)
    (first, _), (second, _) = app.sio.manager.get_participants("/", None)
    behind = app.sio.eio.sockets[app.sio.manager.eio_sid_from_sid(second, "/")]
    while not behind.waiting:
        emit(app, "long", LONG, to=second)
        app.sleep(0.001)
    emit(app, "volatile", 1, volatile=True)
    emit(app, "last", 1)
    quick.until(b'42["volatile",1]')
    quick.until(b'42["last",1]')
    before = slow.until(b'42["last",1]')
    assert b"volatile" not in before and before.count(LONG.encode()) > 1
    app.settle(lambda: not behind.waiting)
    emit(app, "volatile", 2, volatile=True)
    slow.until(b'42["volatile",2]')


def test_a_poll_that_has_not_been_fetched(app: App) -> None:
    client = Client(app)
    sid = open_session(app, client)
    emit(app, "volatile", 1, volatile=True)
    assert client.http("GET", sid) == '42["volatile",1]'
    emit(app, "kept", 1)
    emit(app, "volatile", 2, volatile=True)
    assert client.http("GET", sid) == '42["kept",1]'


def test_one_that_is_not_in_yet(app: App) -> None:
    async def on_connect(sid: str, environ: Any) -> None:
        await app.settled(app.sio.manager.emit("volatile", 1, to=sid, volatile=True))
        await app.settled(app.sio.emit("kept", 1, to=sid))

    app.on("connect", on_connect)
    client = Client(app)
    client.open_websocket()
    client.text("40")
    before = client.until(b'42["kept",1]')
    assert b"volatile" not in before
