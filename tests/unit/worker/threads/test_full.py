"""Sessions with many events that wait for a thread: acknowledgements behind these are read."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor_sio.common.limits import EVENTS_WAITING
from supervisor_sio.engine.frames import BINARY, TEXT
from unit.client_frames import masked
from unit.pythons import NEW_PYTHON
from unit.worker.served import Client, ThreadApp, connect, end, open_session, serve_by
from unit.worker.test_hold import PLACE, ask, dispatcher_of, fill, in_loop, kept, on_ask
from unit.worker.threads.test_take_back import occupied, with_threads

pytestmark = NEW_PYTHON

MANY = EVENTS_WAITING + 30


@pytest.fixture(autouse=True)
def serving(monkeypatch: pytest.MonkeyPatch) -> None:
    serve_by(ThreadApp, monkeypatch)


def echoes(count: int) -> list[str]:
    return [f'42["echo",{number}]' for number in range(count)]


def test_a_handler_gets_the_answer_that_is_behind_many_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else all threads wait for answers that are not read before one of them is free."""
    app = with_threads(1, monkeypatch)
    client = connect(app)
    number = ask(app, client)
    client.text(*echoes(MANY), f'43{number}["answer"]', '421["echo","last"]')
    client.until(b'431["last"]')
    assert app.seen == ["answer", *((n,) for n in range(MANY)), ("last",)]
    assert app.sio.eio.on_message == dispatcher_of(app).on_message
    app.gone()


def test_the_same_by_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """A POST is answered, although its events wait; else the client could not send the answer."""
    app = with_threads(1, monkeypatch)
    client = Client(app)
    sid = open_session(app, client)
    on_ask(app)
    assert client.http("POST", sid, "\x1e".join(['42["ask"]', *echoes(MANY)])) == "ok"
    question = client.http("GET", sid)
    number = question.removeprefix("42").partition("[")[0]
    assert client.http("POST", sid, f'43{number}["answer"]') == "ok"
    app.settle(lambda: len(app.seen) == 1 + MANY)
    assert app.seen == ["answer", *((n,) for n in range(MANY))]
    end(app)


def test_an_answer_with_attachments_behind_many_events(monkeypatch: pytest.MonkeyPatch) -> None:
    app = with_threads(1, monkeypatch)
    client = connect(app)
    number = ask(app, client)
    client.text(*echoes(MANY), f"461-{number}[{PLACE % 0}]")
    client.send(masked(BINARY, b"one"))
    app.settle(lambda: len(app.seen) == 1 + MANY)
    assert app.seen == [b"one", *((n,) for n in range(MANY))]
    app.gone()


def test_no_more_of_them_occupy_the_queue_of_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a client that sends many keeps all others waiting for longer."""
    app, client = occupied(monkeypatch)
    client.text(*echoes(MANY))
    app.settle(lambda: len(kept(app)) == MANY - EVENTS_WAITING)
    assert len(app.session.running) == 1 + EVENTS_WAITING
    app.go_on.set()
    app.settle(lambda: len(app.seen) == MANY)
    assert app.seen == [(n,) for n in range(MANY)]
    app.gone()


def test_what_is_read_on_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    app, client = occupied(monkeypatch)
    session = app.session
    client.text(*echoes(EVENTS_WAITING))
    app.settle(lambda: dispatcher_of(app).is_full(session))
    many = fill(app, client)
    client.text('421["echo","last"]')
    app.go_on.set()
    client.until(b'431["last"]')
    assert len(app.seen) == EVENTS_WAITING + many + 1
    app.gone()


def test_who_leaves_then_has_sent_all_before(monkeypatch: pytest.MonkeyPatch) -> None:
    app, client = occupied(monkeypatch)
    session = app.session
    client.text(*echoes(2 * MANY), "1")
    app.settle(lambda: session.closed)
    app.go_on.set()
    app.gone()
    assert app.seen == [*((n,) for n in range(2 * MANY)), "client disconnect"]
    dispatcher = dispatcher_of(app)
    assert not (dispatcher._waiting or dispatcher._held or dispatcher.hold._kept)


def test_answers_are_read_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a client could fill the memory with answers while callbacks take long."""
    app = with_threads(1, monkeypatch)
    client = connect(app)
    session, sid = app.session, app.sid
    began: list[Any] = []

    def answered(number: int) -> None:
        began.append(number)
        app.go_on.wait()

    app.runtime.pool.run(app.go_on.wait)
    client.text(*echoes(EVENTS_WAITING + 1))
    app.settle(lambda: dispatcher_of(app).is_full(session))
    for _ in range(3):
        app.emit("question", to=sid, callback=answered)
    asked = list(app.sio.manager._awaited._asked[sid])
    client.text(*(f"43{one}[{number}]" for number, one in enumerate(asked)), '42["echo","x"]')
    app.settle(lambda: began and session.held)
    app.sleep(0.02)
    assert began == [0] and len(kept(app)) == 1
    app.go_on.set()
    app.settle(lambda: len(app.seen) == EVENTS_WAITING + 2)
    assert began == [0, 1, 2] and app.seen[-1] == ("x",)
    app.gone()


def test_the_attachments_of_a_long_event_are_read_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of many attachments is long: the session is full when all of them have come."""
    app, client = occupied(monkeypatch)
    session = app.session
    client.text('42["echo",1]', f'452-["echo",{PLACE % 0},{PLACE % 1}]')
    client.send(masked(BINARY, bytes(20_000)))
    app.settle(lambda: dispatcher_of(app).is_within(session))
    client.send(masked(BINARY, b"x") + masked(TEXT, b'42["echo",2]'))
    app.settle(lambda: kept(app) == ['2["echo",2]'])
    app.go_on.set()
    app.settle(lambda: len(app.seen) == 3)
    assert app.seen == [(1,), (bytes(20_000), b"x"), (2,)]
    app.gone()


def test_nothing_is_left_of_who_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    app, client = occupied(monkeypatch)
    session = app.session
    client.text(*echoes(MANY))
    app.settle(lambda: len(kept(app)) == MANY - EVENTS_WAITING)
    in_loop(app, session.close)
    app.go_on.set()
    app.gone()
    assert app.seen == [*((n,) for n in range(MANY)), "server disconnect"]
    assert app.sio.eio.on_message == dispatcher_of(app).on_message
