"""Which clients a worker has reconnect, and how their connections end, in each mode."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor_sio.cluster import sessions as cluster_sessions
from supervisor_sio.common.limits import REBALANCE_LOOKED_AT
from supervisor_sio.worker import queries
from supervisor_sio.worker import releasing as module
from supervisor_sio.worker.releasing import choose
from unit.worker.served import APPS, HANDSHAKE, App, Client, connect, end, open_session, serve_by
from unit.worker.test_recovery import Visitor, note


@pytest.fixture(params=APPS, ids=[app.mode for app in APPS])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    serve_by(request.param, monkeypatch)

    def make_app(**options: Any) -> App:
        app: App = request.param(**options)
        monkeypatch.setattr(cluster_sessions, "servers", lambda: [app.sio])
        return app

    return make_app


def release(app: App, most: int) -> int:
    """As the router asks for it."""
    answers: list[tuple[list[Any], int]] = []
    question = {"what": "release", "tag": "", "limit": most, "id": 1}
    app.runtime.call_soon(lambda: answers.append(queries.answer(question)))
    app.settle(lambda: answers)
    ((rows, closed),) = answers
    assert rows == []
    return closed


def test_some_connections_end(make: Any) -> None:
    """As if the network had failed: no packet says that the client is not to come back."""
    app = make()
    clients = [connect(app) for _ in range(3)]
    assert release(app, 2) == 2
    app.settle(lambda: len(app.seen) == 2)
    assert app.seen == ["transport close", "transport close"]
    for client in clients[:2]:
        assert client.ended() == b"\x88\x02\x03\xe8"  # the close frame, and nothing else
    clients[2].text('421["echo",1]')
    clients[2].until(b"431[1]")
    assert release(app, 5) == 1
    app.gone()


def test_one_that_polls(make: Any) -> None:
    """Its poll is answered, and the next one says that there is no such session."""
    app = make()
    client, poll = Client(app), Client(app)
    sid = open_session(app, client)
    get = f"GET /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: x\r\n\r\n"
    poll.send(get.encode())
    app.settle(lambda: app.session._poll is not None)
    assert release(app, 1) == 1
    poll.until(b"\r\n\r\n6")
    app.settle(lambda: app.seen == ["transport close"])
    poll.send(get.encode())
    poll.until(b"HTTP/1.1 400 ")
    app.gone()


def test_clients_that_are_still_connecting_are_left_alone(make: Any) -> None:
    app = make()
    client = Client(app)
    client.open_websocket()
    client.until(b'"maxPayload":')
    assert release(app, 5) == 0
    client.text("40")
    client.until(b'40{"sid":"')
    app.settle(lambda: app.session.connected)
    assert release(app, 5) == 1
    app.gone()


def test_one_whose_handler_runs_goes_last(make: Any) -> None:
    app = make()
    busy, quiet = connect(app), connect(app)
    busy.text('421["wait"]')
    app.settle(lambda: app.waiting)
    assert release(app, 1) == 1
    quiet.ended()
    app.settle(lambda: len(app.sio.eio.sockets) == 1)
    assert app.session.running and not app.session.at_rest
    app.runtime.call_soon(app.go_on.set)
    busy.until(b'431["waited"]')
    app.settle(lambda: app.session.at_rest)
    end(app)


def test_those_that_come_back_to_their_session_go_first(make: Any) -> None:
    """And no handler but that for it runs."""
    app = make(recovery=60)
    note(app)
    plain = Client(app)
    of_python = HANDSHAKE.replace("EIO=4&transport=websocket", "transport=websocket&EIO=4")
    plain.send(of_python.format(sid="", version=13).encode())
    plain.until(b'"maxPayload":')
    plain.text("40")
    plain.until(b'40{"sid":"')
    visitor = Visitor(app)
    visitor.come(pid=None)
    sid = visitor.sid
    assert visitor.pid
    assert release(app, 1) == 1
    app.settle(lambda: app.sio.manager.lost == 1)
    app.emit("news", 1)
    assert visitor.come() and visitor.sid == sid
    visitor.gets("news", 1)
    plain.until(b'42["news",1]')
    app.settle(lambda: ("recovered", sid) in [line[:2] for line in app.seen])
    assert [line[0] for line in app.seen if line[1] == sid] == ["connect", "recovered"]
    end(app)


def test_two_servers_of_a_process_give_up_no_more_together(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = make(), make()
    monkeypatch.setattr(cluster_sessions, "servers", lambda: [one.sio, other.sio])
    for app in (one, one, other, other):
        connect(app)
    assert release(one, 3) == 3
    one.gone()
    other.settle(lambda: len(other.sio.eio.sockets) == 1)
    end(other)


class Sessions:
    """Some, of which only a part is looked at."""

    def __init__(self, **states: str) -> None:
        self.all: Any = [
            SimpleNamespace(
                sid=sid,
                connected="c" in state,
                closed="x" in state,
                at_rest="r" in state,
                recovers="b" in state,
            )
            for sid, state in states.items()
        ]

    def chosen(self, most: int) -> list[str]:
        found = choose(self.all, most, lambda session: session.recovers)  # type: ignore[attr-defined]
        return [session.sid for session in found]


def test_who_loses_least_is_chosen() -> None:
    sessions = Sessions(a="c", b="cr", c="cb", d="cbr", e="r", f="cbrx", g="cbr", h="cr")
    order = ["d", "g", "c", "b", "h", "a"]
    for most in range(8):
        assert sessions.chosen(most) == order[:most]


def test_only_some_sessions_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[Any] = []

    def note_all(sessions: Iterator[Any], most: int, comes_back: Any) -> list[Any]:
        looked_at.extend(sessions)
        return []

    monkeypatch.setattr(module, "choose", note_all)
    monkeypatch.setattr(module, "recoveries", lambda runtime: [])
    many = {str(number): number for number in range(REBALANCE_LOOKED_AT + 5)}
    engine = SimpleNamespace(sessions=many)
    server = SimpleNamespace(manager=None, eio=SimpleNamespace(runtime=None, engine=engine))
    assert module.release([server], 10) == 0
    assert looked_at == list(range(REBALANCE_LOOKED_AT))
