"""Messages that are held while their session moves."""

from __future__ import annotations

import re
from typing import Any, Iterator

import pytest

from supervisor_sio.common.limits import MESSAGES_AT_ONCE, MESSAGES_HELD, OUTPUT_OBJECT
from supervisor_sio.engine.frames import BINARY, TEXT
from unit.client_frames import masked
from unit.worker.served import APPS, App, Client, connect, end, open_session, serve_by

PLACE = '{"_placeholder":true,"num":%d}'


@pytest.fixture(params=APPS, ids=[app.mode for app in APPS])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    serve_by(request.param, monkeypatch)
    yield request.param


def dispatcher_of(app: App) -> Any:
    return app.sio.manager._outlet


def hold_of(app: App) -> Any:
    return dispatcher_of(app).hold


def in_loop(app: App, call: Any, *args: Any) -> None:
    """Call it as the worker does."""
    done: list[Any] = []
    app.runtime.call_soon(lambda: done.append(call(*args)))
    app.settle(lambda: done)


def kept(app: App) -> list[Any]:
    messages: list[Any] = hold_of(app).kept(app.session)
    return messages


def move(app: App, session: Any) -> None:
    """Move a session, with the held messages, back to the worker that it leaves."""
    messages, hold = kept(app), hold_of(app)
    hold._all = False
    in_loop(app, hold.moved, session)
    in_loop(app, hold.keep, session, messages)
    in_loop(app, hold.release, session)


def fill(app: App, client: Client) -> int:
    """Send events until no more is read, and check how much is held; return their number."""
    session, message, many = app.session, '42["echo","' + "x" * 10_000 + '"]', 0
    while not session.held:
        client.text(message)
        many += 1
        app.sleep(0.001)
        assert many < 2 * MESSAGES_HELD // len(message)
    most = MESSAGES_HELD + len(message) + OUTPUT_OBJECT
    assert sum(len(one) + OUTPUT_OBJECT for one in kept(app)) <= most
    return many


def test_what_comes_is_kept_in_order_and_handled_in_order(make: Any) -> None:
    app = make()
    client = connect(app)
    in_loop(app, hold_of(app).keep, app.session, ['2["echo","along"]'])
    client.text(*(f'42["echo",{number}]' for number in range(3)))
    app.settle(lambda: len(kept(app)) == 4)
    assert app.seen == []
    in_loop(app, hold_of(app).release, app.session)
    client.text('42["echo","behind"]')
    app.settle(lambda: len(app.seen) == 5)
    assert app.seen == [("along",), (0,), (1,), (2,), ("behind",)]
    # From here on the engine calls the dispatcher itself again.
    assert app.sio.eio.on_message == dispatcher_of(app).on_message
    app.gone()


def test_more_than_goes_at_once(make: Any) -> None:
    app = make()
    connect(app)
    many = 3 * MESSAGES_AT_ONCE + 1
    session = app.session
    in_loop(app, hold_of(app).keep, session, [f'2["echo",{n}]' for n in range(many)])
    in_loop(app, hold_of(app).release, session)
    app.settle(lambda: len(app.seen) == many)
    assert app.seen == [(number,) for number in range(many)]
    app.gone()


def test_an_answer_between_the_parts_of_a_held_event(make: Any) -> None:
    """Not all that is held is handled in one turn; else the answer is taken for an attachment."""
    app = make()
    client = connect(app)
    session = app.session
    number = ask(app, client)
    messages = ['2["echo","first"]'] * (MESSAGES_AT_ONCE - 1)
    event = [f'52-["echo",{PLACE % 0},{PLACE % 1}]', b"one", b"two"]
    in_loop(app, hold_of(app).keep, session, [*messages, *event, '2["echo","last"]'])

    def release_and_answer() -> None:
        hold_of(app).release(session)
        app.sio.eio.on_message(session, f'3{number}["answer"]')

    in_loop(app, release_and_answer)
    app.settle(lambda: len(app.seen) == MESSAGES_AT_ONCE + 2)
    assert not session.closed
    handled = [one for one in app.seen if one != "answer"]
    assert handled[-2:] == [(b"one", b"two"), ("last",)] or app.mode == "threading"
    app.gone()


def test_a_message_that_runs_alone_holds_up_those_behind_it(make: Any) -> None:
    app = make(async_handlers=False)
    client = connect(app)
    in_loop(app, hold_of(app).keep, app.session, [f'2["order",{n}]' for n in (1, 2)])
    client.text('42["order",3]')
    app.settle(lambda: len(kept(app)) == 3)
    in_loop(app, hold_of(app).release, app.session)
    app.settle(lambda: len(app.seen) == 6)
    assert app.seen == [1, -1, 2, -2, 3, -3]
    app.gone()


def on_ask(app: App) -> None:
    """Add a handler that waits for its client's acknowledgement."""

    async def handler(sid: str) -> None:
        app.seen.append(await app.settled(app.sio.call("question", to=sid, timeout=20)))

    app.on("ask", handler)


def ask(app: App, client: Client) -> int:
    """Let a handler wait for the client's acknowledgement; return the number of its event."""
    on_ask(app)
    client.text('42["ask"]')
    client.until(b'["question"]')
    ((asked,),) = app.sio.manager._awaited._asked.values()
    return int(asked)


def test_a_handler_that_waits_for_the_client_gets_the_answer(make: Any) -> None:
    app = make()
    client = connect(app)

    number = ask(app, client)
    session = app.session
    assert dispatcher_of(app).is_running(session)
    in_loop(app, hold_of(app).keep_all)
    client.text('42["echo",1]', f'43{number}["answer"]')
    app.settle(lambda: app.seen == ["answer"])
    app.settle(lambda: not dispatcher_of(app).is_running(session))
    assert kept(app) == ['2["echo",1]']
    app.gone()


def test_an_answer_with_attachments(make: Any) -> None:
    app = make()
    client = connect(app)

    number = ask(app, client)
    client.send(masked(TEXT, f"462-{number}[{PLACE % 0},{PLACE % 1}]".encode()))
    client.send(masked(BINARY, b"one"))
    app.settle(lambda: dispatcher_of(app)._partials)
    in_loop(app, hold_of(app).keep_all)
    client.send(masked(BINARY, b"two"))
    app.settle(lambda: app.seen == [(b"one", b"two")])
    assert kept(app) == []
    app.gone()


def test_a_session_does_not_move_in_the_middle_of_an_answer(make: Any) -> None:
    """Also if no handler waits for it: the other worker would get only the rest."""
    app = make()
    client = connect(app)
    app.emit("question", to=app.sid, callback=lambda *data: app.seen.append(data))
    found = client.wait(lambda data: re.search(rb'42(\d+)\["question"\]', data), "the question")
    asked = int(found[1])
    client.send(masked(TEXT, f"461-{asked}[{PLACE % 0}]".encode()))
    app.settle(lambda: dispatcher_of(app)._partials)
    in_loop(app, hold_of(app).keep_all)
    assert dispatcher_of(app).is_running(app.session)
    client.send(masked(BINARY, b"one"))
    app.settle(lambda: app.seen == [(b"one",)])
    app.settle(lambda: not dispatcher_of(app).is_running(app.session))
    assert kept(app) == []
    app.gone()


def test_a_session_does_not_move_in_the_middle_of_an_event_for_nobody(make: Any) -> None:
    app = make()
    client = connect(app)
    app.do(app.sio.disconnect(app.sid))
    client.send(masked(TEXT, f'451-["echo",{PLACE % 0}]'.encode()))
    app.settle(lambda: dispatcher_of(app)._partials)
    in_loop(app, hold_of(app).keep_all)
    assert dispatcher_of(app).is_running(app.session)
    client.send(masked(BINARY, b"one"))
    app.settle(lambda: not dispatcher_of(app).is_running(app.session))
    assert kept(app) == [] and app.seen == ["server disconnect"]
    app.gone()


def test_an_event_whose_attachments_come_while_it_is_kept(make: Any) -> None:
    app = make()
    client = connect(app)
    text = f'52-["echo",{PLACE % 0},{PLACE % 1}]'
    client.send(masked(TEXT, b"4" + text.encode()) + masked(BINARY, b"one"))
    app.settle(lambda: dispatcher_of(app)._partials)
    in_loop(app, hold_of(app).keep_all)
    client.send(masked(BINARY, b"two") + masked(TEXT, b'42["echo",3]'))
    app.settle(lambda: len(kept(app)) == 4)
    assert kept(app) == [text, b"one", b"two", '2["echo",3]']
    move(app, app.session)
    app.settle(lambda: len(app.seen) == 2)
    assert app.seen == [(b"one", b"two"), (3,)]
    app.gone()


def test_an_event_that_was_begun_goes_before_what_is_kept(make: Any) -> None:
    """In a worker that stops while it handles messages that were passed on to it."""
    app = make()
    client = connect(app)
    text, hold = f'51-["echo",{PLACE % 0}]', hold_of(app)
    before = [f'2["echo",{number}]' for number in range(MESSAGES_AT_ONCE - 1)]
    behind = [text, b"one", '2["echo","last"]']

    def begin_and_leave() -> None:
        hold.keep(app.session, [*before, text])
        hold.release(app.session)
        hold.keep_all()

    in_loop(app, begin_and_leave)
    client.send(masked(BINARY, b"one"))
    client.text('42["echo","last"]')
    app.settle(lambda: kept(app)[-1:] == behind[-1:])
    # Threads may not have begun some.
    assert kept(app)[-3:] == behind and len(kept(app)) <= len(before) + 3
    app.settle(lambda: len(app.seen) + len(kept(app)) == len(before) + 3)
    app.gone()
    app.settle(lambda: len(app.seen) == len(before) + 3)  # threads may not have done all
    assert app.mode == "threading" or app.seen[-3:] == [(b"one",), ("last",), "transport close"]


def test_what_was_sent_before_the_client_went_is_handled_first(make: Any) -> None:
    app = make()
    client = connect(app)
    in_loop(app, hold_of(app).keep_all)
    client.text('42["echo",1]', '42["echo",2]')
    app.settle(lambda: len(kept(app)) == 2)
    client.text("1")
    app.gone()
    app.settle(lambda: len(app.seen) == 3)
    assert app.seen == [(1,), (2,), "client disconnect"] or (
        # Threads begin them in this order, and run side by side.
        app.mode == "threading" and set(app.seen) == {(1,), (2,), "client disconnect"}
    )


def test_whoever_sends_more_than_is_kept_is_read_no_more(make: Any) -> None:
    app = make()
    client = connect(app)
    session = app.session
    in_loop(app, hold_of(app).keep_all)
    many = fill(app, client)
    move(app, session)
    client.text('421["order",0]')
    client.until(b"431[]")
    assert app.seen[:-2] == [("x" * 10_000,)] * many
    app.gone()


def test_a_post_whose_rest_waits(make: Any) -> None:
    app = make()
    client = Client(app)
    sid = open_session(app, client)
    in_loop(app, hold_of(app).keep_all)
    assert client.http("POST", sid, '42["echo",1]') == "ok"
    assert kept(app) == ['2["echo",1]'] and app.seen == []
    end(app)


def test_handlers_that_run_are_counted(make: Any) -> None:
    app = make()
    client = connect(app)
    session, dispatcher = app.session, dispatcher_of(app)
    assert not dispatcher.is_running(session)
    client.text('42["wait"]', '42["fail"]', '42["echo",1]', '421["wait"]')
    app.settle(lambda: app.seen and len(session.running) == 2)
    app.settle(lambda: dispatcher.is_running(session))
    app.go_on.set()
    client.until(b'431["waited"]')
    app.settle(lambda: not dispatcher.is_running(session))
    app.gone()
