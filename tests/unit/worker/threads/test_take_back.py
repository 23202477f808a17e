"""Events that no thread has started when their session moves: they move with it."""

from __future__ import annotations

import random
import sys
import time
from types import SimpleNamespace
from typing import Any, Iterator

import pytest

from supervisor_sio import ZmqManager
from supervisor_sio.common.limits import EVENTS_WAITING, LONG_EVENT
from supervisor_sio.engine.frames import BINARY, TEXT
from supervisor_sio.worker.dispatchers import ThreadDispatcher
from supervisor_sio.worker.threads.pool import Pool
from unit.client_frames import masked
from unit.polling import make_server
from unit.pythons import NEW_PYTHON
from unit.worker.served import Client, ThreadApp, connect, serve_by
from unit.worker.test_hold import PLACE, ask, dispatcher_of, hold_of, in_loop, kept, move
from unit.worker.threads.test_pool import wait_for

pytestmark = NEW_PYTHON


@pytest.fixture(autouse=True)
def serving(monkeypatch: pytest.MonkeyPatch) -> None:
    serve_by(ThreadApp, monkeypatch)


def with_threads(threads: int, monkeypatch: pytest.MonkeyPatch, **options: Any) -> ThreadApp:
    app = ThreadApp(**options)
    monkeypatch.setattr(app.runtime, "pool", Pool(threads))
    return app


def occupy(app: ThreadApp, client: Client) -> None:
    """Occupy its only thread."""
    client.text('42["wait"]')
    # What clients of tests before this one leave behind may wait for the thread, too.
    app.settle(lambda: app.waiting == 1)


def occupied(monkeypatch: pytest.MonkeyPatch) -> tuple[ThreadApp, Client]:
    """An application whose only thread a handler of the client has."""
    app = with_threads(1, monkeypatch)
    client = connect(app)
    occupy(app, client)
    return app, client


def test_only_what_runs_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    app, client = occupied(monkeypatch)
    session, dispatcher = app.session, dispatcher_of(app)
    text = f'52-7["echo",{PLACE % 0},{PLACE % 1}]'
    client.text('42["echo",1]', "4" + text)
    client.send(masked(BINARY, b"one") + masked(BINARY, b"two"))
    client.text('428["echo",3]', "40/nowhere,")
    in_order = ['2["echo",1]', text, b"one", b"two", '28["echo",3]', "0/nowhere,"]
    app.settle(lambda: dispatcher._eio.is_busy(session))
    assert len(session.running) == 4
    in_loop(app, hold_of(app).keep_all)
    assert kept(app) == in_order
    assert len(session.running) == 1 and not dispatcher._eio.is_busy(session)
    app.go_on.set()
    app.settle(lambda: not dispatcher.is_running(session))
    app.settle(lambda: not app.runtime.pool.unfinished)
    assert app.seen == [] and kept(app) == in_order
    move(app, session)
    client.until(b'44/nowhere,{"message":"Invalid namespace"}')
    assert app.seen == [(1,), (b"one", b"two"), (3,)]
    app.settle(lambda: not dispatcher.is_running(session))
    app.gone()


def test_each_is_answered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    app, client = occupied(monkeypatch)
    session = app.session
    client.text(*(f'42{number}["echo",{number}]' for number in range(20)))
    app.settle(lambda: len(session.running) == 21)
    in_loop(app, hold_of(app).keep_all)
    app.go_on.set()
    app.settle(lambda: not session.running)
    move(app, session)
    for number in range(20):
        assert b"43" not in client.until(b"43%d[%d]" % (number, number))
    assert app.seen == [(number,) for number in range(20)]
    app.gone()


def test_an_event_that_begins_with_attachments_is_behind_those_that_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app, client = occupied(monkeypatch)
    text = f'51-["echo",{PLACE % 0}]'
    client.text('42["echo",1]', '42["echo",2]', "4" + text)
    app.settle(lambda: dispatcher_of(app)._partials)
    in_loop(app, hold_of(app).keep_all)
    client.send(masked(BINARY, b"one"))
    app.settle(lambda: len(kept(app)) == 4)
    assert kept(app) == ['2["echo",1]', '2["echo",2]', text, b"one"]
    app.go_on.set()
    app.gone()


def test_what_waits_behind_many_events_moves_behind_them(monkeypatch: pytest.MonkeyPatch) -> None:
    app = with_threads(1, monkeypatch)
    client = connect(app)
    session, dispatcher = app.session, dispatcher_of(app)
    number = ask(app, client)
    many = EVENTS_WAITING + 5
    client.text(*(f'42["echo",{n}]' for n in range(many)))
    app.settle(lambda: len(kept(app)) == 5)
    assert dispatcher.is_full(session)
    in_loop(app, hold_of(app).keep_all)
    assert kept(app) == [f'2["echo",{n}]' for n in range(many)]
    client.text(f'43{number}["answer"]')
    app.settle(lambda: app.seen == ["answer"])
    app.settle(lambda: not dispatcher.is_running(session) and not dispatcher.is_full(session))
    move(app, session)
    app.settle(lambda: len(app.seen) == 1 + many)
    assert app.seen[1:] == [(n,) for n in range(many)]
    app.gone()


def test_what_runs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    app = with_threads(1, monkeypatch, async_handlers=False)
    client = connect(app)
    session, dispatcher = app.session, dispatcher_of(app)
    app.runtime.pool.run(app.go_on.wait)
    client.text('42["order",1]', '42["order",2]')
    app.settle(lambda: session.held)
    in_loop(app, hold_of(app).keep_all)
    app.settle(lambda: len(kept(app)) == 2)
    assert not dispatcher.is_running(session)
    move(app, session)
    app.go_on.set()
    app.settle(lambda: len(app.seen) == 4)
    assert app.seen == [1, -1, 2, -2]
    app.gone()


@pytest.mark.parametrize("alone", [False, True])
def test_of_who_stays_they_are_handled_before_the_end(
    alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = with_threads(1, monkeypatch, async_handlers=not alone)
    client = connect(app)
    session, dispatcher = app.session, dispatcher_of(app)
    app.runtime.pool.run(app.go_on.wait)
    client.text('42["echo",1]', *(['42["echo",2]'] * (not alone)))
    app.settle(lambda: dispatcher.is_running(session))
    app.settle(lambda: alone or len(session.running) == 2)
    in_loop(app, hold_of(app).keep_all)
    assert not dispatcher.is_running(session)
    in_loop(app, session.close)
    app.go_on.set()
    app.gone()
    assert app.seen == [(1,), *([(2,)] * (not alone)), "server disconnect"]
    assert not dispatcher._waiting and not dispatcher._held and not dispatcher._partials


def test_of_who_has_ended_they_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    app, client = occupied(monkeypatch)
    session = app.session
    client.text('42["echo",1]', '42["echo",2]', "40/nowhere,")
    app.settle(lambda: dispatcher_of(app)._eio.is_busy(session))
    in_loop(app, session.close)  # told of when what runs alone is done
    in_loop(app, hold_of(app).keep_all)
    assert kept(app) == []
    app.go_on.set()
    app.gone()
    assert app.seen == [(1,), (2,), "server disconnect"]


def test_attachments_are_a_part_of_how_long_an_event_is(monkeypatch: pytest.MonkeyPatch) -> None:
    app, client = occupied(monkeypatch)
    session = app.session
    client.send(masked(TEXT, f'452-["echo",{PLACE % 0},{PLACE % 1}]'.encode()))
    client.send(masked(BINARY, bytes(LONG_EVENT)) + masked(BINARY, b"x"))
    app.settle(lambda: len(session.running) == 2)
    assert dispatcher_of(app).is_full(session)
    app.go_on.set()
    app.settle(lambda: not dispatcher_of(app).is_full(session))
    app.gone()


# --- a thread begins one at that very moment ------------------------------------------------


@pytest.fixture
def switching() -> Iterator[None]:
    """Let threads switch as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Recorder(ThreadDispatcher):
    """An application whose handlers record what they get, in any thread."""

    def __init__(self, pool: Pool) -> None:
        eio: Any = SimpleNamespace(
            engine=SimpleNamespace(sessions={}, deadlines=None),
            runtime=SimpleNamespace(run=pool.run, events=None),
            is_busy=None,
        )
        super().__init__(make_server(client_manager=ZmqManager()), eio, None, 10)
        self.begun: list[tuple[Any, int]] = []

    def _run_handler(self, sid: str, session: Any, *event: Any) -> None:
        self.begun.append((session.sid, event[0]))
        session.running.pop()

    def put(self, session: Any, number: int) -> None:
        self._messages = (str(number),)
        self._begin("", session, number)


class Peer:
    """The attributes of a session that the dispatcher uses."""

    def __init__(self, sid: int) -> None:
        self.sid = sid
        self.closed = False
        self.running: list[None] = []


@pytest.mark.parametrize("seed", range(20))
def test_each_begins_or_is_taken_back(seed: int, switching: None) -> None:
    print("seed", seed)
    chance = random.Random(seed)
    pool = Pool(chance.choice((1, 2, 8, 32)))
    dispatcher = Recorder(pool)
    peers = [Peer(sid) for sid in range(20)]
    count = dict.fromkeys(range(20), 0)
    for _ in range(chance.randrange(200, 1000)):
        peer: Any = chance.choice(peers)
        dispatcher.put(peer, count[peer.sid])
        count[peer.sid] += 1
    time.sleep(chance.random() * 0.005)
    taken: dict[int, list[int]] = {peer.sid: [] for peer in peers}
    for session, (message,) in dispatcher.take_back():
        taken[session.sid].insert(0, int(message))  # type: ignore[call-overload]
    wait_for(lambda: not pool.unfinished)
    for peer in peers:
        begun = sorted(number for sid, number in dispatcher.begun if sid == peer.sid)
        # Also: what has begun came before what was taken back.
        assert begun + taken[peer.sid] == list(range(count[peer.sid]))
        assert peer.running == []
