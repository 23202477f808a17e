from __future__ import annotations

import logging
import re
from types import SimpleNamespace
from typing import Any, Iterator

import pytest

from supervisor_sio.common.limits import ACCESS_LOG_TEXT
from supervisor_sio.engine.engine import Engine
from supervisor_sio.engine.frames import CLOSE
from supervisor_sio.worker.access import AccessLog
from unit.client_frames import masked
from unit.worker.served import APPS, Client, connect, serve_by


@pytest.fixture(params=APPS, ids=[app.mode for app in APPS])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    serve_by(request.param, monkeypatch)
    yield request.param


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    records = [one for one in caplog.records if one.name == "supervisor_sio.access"]
    return [record.getMessage() for record in records]


@pytest.mark.parametrize("on", [True, False])
def test_a_line_for_each_begin_and_end(
    make: Any, on: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = make()
    if on:
        monkeypatch.setattr(app.runtime, "access", AccessLog())
        # Though other loggers are not enabled for it.
        assert logging.getLogger("supervisor_sio.access").isEnabledFor(logging.INFO)
    client = connect(app)
    sid = app.session.sid
    client.send(masked(CLOSE, b"\x03\xe8"))
    app.gone()
    app.settle(lambda: not on or len(lines(caplog)) == 2)
    if not on:
        assert not lines(caplog)
        return
    first, last = lines(caplog)
    assert re.fullmatch(rf'session {sid} opens: \S+ (websocket|polling) /socket.io/ ".*"', first)
    assert re.fullmatch(rf"session {sid} ends: \S+ \d+\.\d s transport close", last)


def test_one_that_ends_while_it_is_accepted(
    make: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    accept = Engine.accept

    def accept_and_end(engine: Engine, session: Any, *args: Any) -> None:
        accept(engine, session, *args)
        session.close("transport error", abort=True)

    monkeypatch.setattr(Engine, "accept", accept_and_end)
    app = make()
    monkeypatch.setattr(app.runtime, "access", AccessLog())
    Client(app).open_websocket()
    app.settle(lambda: len(lines(caplog)) == 2)
    first, last = lines(caplog)
    assert " opens: " in first and " ends: " in last
    assert not app.runtime.access._opened


def test_what_clients_send_stays_on_one_line() -> None:
    now = 100.0
    log = AccessLog(lambda: now)
    session: Any = SimpleNamespace(sid="s", address="")
    request: Any = SimpleNamespace(
        transport="polling",
        head=SimpleNamespace(path="/ä\n"),
        header=lambda name: 'a "browser"\r\x1b[31m' + "x" * 10_000,
    )
    said: list[str] = []

    def write(text: str, *arguments: Any) -> None:
        said.append(text % arguments)

    log.opened(session, request, write)
    now = 102.25
    log.ended(session, "ping timeout", write)
    log.ended(session, "ping timeout", write)  # begun at another worker
    assert said[0].startswith("session s opens: - polling /\\xe4\\n \"a 'browser'\\r\\x1b[31mxxx")
    assert said[0].isascii() and len(said[0]) < ACCESS_LOG_TEXT + 80
    assert said[1:] == ["session s ends: - 2.2 s ping timeout", "session s ends: - - ping timeout"]
