"""Engine.IO sessions of a real ``socketio.Server``, served by the worker's HTTP side."""

from __future__ import annotations

import logging
import os
import re
import socket
import time
import warnings
from typing import Any
from urllib.parse import quote

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import eventlet
    from eventlet import hubs

import socketio

from supervisor_sio import ZmqManager
from supervisor_sio.cluster import sessions
from supervisor_sio.common.limits import UNQUOTED_AT_ONCE
from supervisor_sio.common.reasons import FAILED, PROTOCOL, TOO_SLOW
from supervisor_sio.engine.frames import BINARY, close_frame
from supervisor_sio.engine.session import Session, State
from supervisor_sio.worker import connection, patience
from supervisor_sio.worker.dispatchers import SyncDispatcher
from supervisor_sio.worker.eventlet import green
from supervisor_sio.worker.eventlet.install import install
from supervisor_sio.worker.refused import refusals
from unit.client_frames import masked
from unit.worker.served import HANDSHAKE, Client, connect, end, open_session, serve_by, upgrade
from unit.worker.served import GreenApp as App
from unit.worker.turns import let_run


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Any:
    serve_by(App, monkeypatch)
    return App


def test_the_environment_does_not_keep_the_connection(make: Any) -> None:
    app = make()
    connect(app)
    environ = app.sio.get_environ(next(iter(app.sio.manager.get_participants("/", None)))[0])
    assert environ["REMOTE_ADDR"] == "192.0.2.1"
    assert environ["wsgi.input"].read() == b""
    kept = [value for value in environ.values() if not isinstance(value, (str, bool, tuple))]
    assert kept == [environ["wsgi.errors"], environ["wsgi.input"], environ["eventlet.input"]]
    app.gone()


def test_upgrade(make: Any) -> None:
    app = make()
    polling, websocket, sid = upgrade(app)
    polling.send(
        f"GET /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    )
    websocket.text("2probe")
    websocket.until(b"3probe")
    assert b"\r\nConnection: close" in polling.until(b"\r\n\r\n")
    assert polling.ended() == b"6"  # nothing will come this way any more
    app.sio.emit("news", "while it upgrades")
    websocket.text("5", '421["echo",1]')
    before = websocket.until(b"431[1]")
    assert b'42["news","while it upgrades"]' in before
    assert app.session.state is State.WEBSOCKET
    websocket.text("1")
    app.gone()
    assert app.seen == [(1,), "client disconnect"]


@pytest.mark.parametrize("texts", [["5"], ["2probe", "2probe"], ["40"], ["2probe", ""]])
def test_an_upgrade_that_fails_leaves_the_session_with_polling(make: Any, texts: list[str]) -> None:
    app = make()
    polling, websocket, sid = upgrade(app)
    websocket.text(*texts)
    websocket.until(close_frame(1000))
    polling.http("POST", sid, '421["echo",2]')
    while "431[2]" not in polling.http("GET", sid):
        pass
    again = Client(app)  # and it can be tried once more
    again.open_websocket(sid)
    websocket.sock.close()
    again.text("2probe")
    again.until(b"3probe")
    again.text("5", '422["echo",3]')
    again.until(b"432[3]")
    app.gone()


@pytest.mark.parametrize("body", ["7", "x" * 1_000_001])
def test_a_post_that_ends_the_session_leaves_nothing(make: Any, body: str) -> None:
    app = make()
    client = Client(app)
    sid = re.search('"sid":"([^"]+)"', client.http("GET"))[1]  # type: ignore[index]
    client.send(
        f"POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: x\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body[:10]}".encode()
    )
    client.until(b"HTTP/1.1 400 ")
    app.gone()


@pytest.mark.parametrize("in_a_row", [True, False])
def test_a_poll_that_waits_at_the_upgrade_is_answered(make: Any, in_a_row: bool) -> None:
    app = make()
    poll, websocket = Client(app), Client(app)
    sid = re.search('"sid":"([^"]+)"', poll.http("GET"))[1]  # type: ignore[index]
    poll.http("POST", sid, "40")
    assert poll.http("GET", sid).startswith("40{")
    poll.send(
        f"GET /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    )
    websocket.open_websocket(sid)
    if in_a_row:
        websocket.text("2probe", "5")
    else:
        websocket.text("2probe")
        websocket.until(b"3probe")
        websocket.text("5")
    poll.until(b"HTTP/1.1 200 OK")
    assert poll.ended().endswith(b"\r\n\r\n6")
    websocket.text('421["echo",1]')
    websocket.until(b"431[1]")
    app.gone()


@pytest.mark.tries(4)
def test_an_emit_does_not_wait_for_the_end_of_a_client_that_is_gone(make: Any) -> None:
    app = make(ping_interval=0.1, ping_timeout=0.1)
    client = Client(app)
    sid = re.search('"sid":"([^"]+)"', client.http("GET"))[1]  # type: ignore[index]
    client.http("POST", sid, "40")
    while "2" != client.http("GET", sid):
        pass
    app.sio.on("disconnect", lambda sid, reason: app.go_on.wait())
    let_run(0.15)
    for _ in range(3):
        app.sio.emit("news", 1)
    app.settle(lambda: app.session.closed)
    app.go_on.set()
    app.settle(lambda: not app.sio.eio.sockets)


@pytest.mark.tries(4)
def test_a_connection_ends_that_is_not_used(make: Any) -> None:
    app = make()
    app.http.keepalive_timeout = 0.2
    used, unused = Client(app), Client(app)
    sid = re.search('"sid":"([^"]+)"', used.http("GET"))[1]  # type: ignore[index]
    began = time.monotonic()
    unused.http("POST", sid, "40")
    assert used.http("GET", sid).startswith("40{")
    used.send(
        f"GET /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    )
    assert unused.ended() == b""
    assert 0.1 < time.monotonic() - began
    app.sio.emit("news", 1)  # the poll has waited for longer, and has its answer
    used.until(b'42["news",1]')
    assert used.ended() == b""
    app.settle(lambda: not app.http.connections)


@pytest.mark.parametrize(
    "part",
    [
        "POST /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost",
        "POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: x\r\n"
        "Content-Length: 99\r\n\r\n42",
        "GET /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n42",
    ],
)
def test_a_client_that_stops_in_the_middle(
    make: Any, part: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection, "STALLED_SECONDS", 0.2)
    monkeypatch.setattr(green, "STALLED_SECONDS", 0.2)
    monkeypatch.setattr(patience, "STALLED_SECONDS", 0.2)
    app = make()
    app.http.head_timeout = 0.2
    stalled, other = Client(app), Client(app)
    sid = re.search('"sid":"([^"]+)"', other.http("GET"))[1]  # type: ignore[index]
    stalled.send(part.format(sid=sid).encode())
    stalled.ended()
    ended = Client(app)
    ended.send(part.format(sid=sid).encode())
    ended.sock.shutdown(socket.SHUT_WR)
    ended.ended()
    other.http("POST", sid, "40")
    assert other.http("GET", sid).startswith("40{")
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert all("too slow" in record.getMessage() for record in told) and len(told) <= 1


def test_a_client_that_does_not_take_the_answer(
    make: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection, "STALLED_SECONDS", 0.2)
    monkeypatch.setattr(green, "STALLED_SECONDS", 0.2)
    monkeypatch.setattr(patience, "STALLED_SECONDS", 0.2)
    app = make()
    app.http.app = lambda environ, start: start("200 OK", []) and None or [bytes(10_000_000)]
    client = Client(app)
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    app.settle(lambda: app.http.connections)
    app.settle(lambda: not app.http.connections)
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert all("too slow" in record.getMessage() for record in told) and len(told) <= 1


def test_a_second_websocket_is_closed_and_the_first_lives_on(make: Any) -> None:
    app = make()
    _, websocket, sid = upgrade(app)
    second = Client(app)
    second.open_websocket(sid)
    second.until(close_frame(1000))
    websocket.text("2probe", "5", '421["echo",1]')
    websocket.until(b"431[1]")
    app.gone()


@pytest.mark.parametrize("sid", [True, False])
def test_what_is_no_websocket_handshake(make: Any, sid: bool) -> None:
    app = make()
    extra = ""
    if sid:
        polling = Client(app)
        found = re.search('"sid":"([^"]+)"', polling.http("GET"))
        extra = f"&sid={found[1]}"  # type: ignore[index]
    client = Client(app)
    client.send(HANDSHAKE.format(sid=extra, version=8).encode())
    client.until(b"HTTP/1.1 400 ")
    client.until(b"Sec-WebSocket-Version is not 13")
    assert len(app.sio.eio.sockets) == sid


@pytest.mark.parametrize(
    "text",
    [
        *('42["echo"', "42{}", "4", "49", "42", '47["x"]', "42[{}]", "42[[]]", "42[]", "40{"),
        *('451-["x",{"_placeholder":true,"num":7}]', '451-/no,["x",{"_placeholder":true,"num":0}]'),
        *("4zz", "42" + "[" * 100_000, '42["connect"]', '42["disconnect"]'),
    ],
)
def test_packets_that_mean_nothing(make: Any, text: str, caplog: pytest.LogCaptureFixture) -> None:
    app = make()
    client = connect(app)
    before = refusals.by_reason[PROTOCOL]
    client.text(text, '422["echo",1]')
    assert b"432" not in client.until(close_frame(1000))
    app.gone()
    assert refusals.by_reason[PROTOCOL] == before + 1
    assert not [record for record in caplog.records if record.exc_info]


def test_a_post_in_chunks(make: Any) -> None:
    """A proxy may send it this way."""
    app = make(max_http_buffer_size=1000)
    client = Client(app)
    sid = re.search('"sid":"([^"]+)"', client.http("GET"))[1]  # type: ignore[index]
    client.http("POST", sid, "40")
    assert client.http("GET", sid).startswith("40{")

    def post(body: bytes) -> None:
        client.send(
            f"POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: x\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
            + b"3\r\n421\r\n"
            + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        )

    post(b'["echo","' + b"x" * 986 + b'"]')
    client.until(b"HTTP/1.1 200 OK")
    client.until(b"\r\n\r\n")
    client.until(b"ok")
    assert client.http("GET", sid).startswith("431[")
    post(b'["echo","' + b"x" * 987 + b'"]')
    client.until(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("body", ["xxx", "\x1e" * 100_000, "40\x1e", "40\x1e7"])
def test_a_post_that_means_nothing(make: Any, body: str, caplog: pytest.LogCaptureFixture) -> None:
    app = make()
    client, before = Client(app), refusals.by_reason[PROTOCOL]
    sid = re.search('"sid":"([^"]+)"', client.http("GET"))[1]  # type: ignore[index]
    client.send(
        f"POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: x\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    client.until(b"HTTP/1.1 400 ")
    app.gone()
    assert refusals.by_reason[PROTOCOL] == before + 1
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(
    ("head", "answer"),
    [
        ("GET http://x/socket.io/?EIO=4&transport=polling HTTP/1.1", b"HTTP/1.1 200 OK"),
        ("GET http://x HTTP/1.1", b"HTTP/1.1 404 "),
        ("OPTIONS * HTTP/1.1", b"HTTP/1.1 400 "),
        ("CONNECT example.org:443 HTTP/1.1", b"HTTP/1.1 400 "),
        ("HEAD / HTTP/1.1", b"\r\nConnection: close\r\n"),
    ],
)
def test_forms_of_requests(
    make: Any, head: str, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    app = make()
    client = Client(app)
    client.send(f"{head}\r\nHost: x\r\n\r\n".encode())
    client.until(answer)
    assert not [record for record in caplog.records if record.exc_info or "Trace" in record.msg]


def test_a_post_of_jsonp_lets_others_have_their_turn(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make()
    client = Client(app)
    sid = re.search('"sid":"([^"]+)"', client.http("GET"))[1]  # type: ignore[index]
    turns: list[Any] = []
    soon = app.sio.eio.soon
    monkeypatch.setattr(app.sio.eio, "soon", lambda task: (turns.append(task), soon(task)))
    name = quote("ä" * 50_000, safe="")
    body = f"d={quote('40')}%1e{quote('421[')}%22echo%22,%22{name}%22]&x=y"
    head = f"POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: x\r\n"
    data = f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
    while data:
        data = data[client.sock.send(data[:50_000]) :]
        eventlet.sleep(0.001)
    client.until(b"HTTP/1.1 200 OK")
    client.until(b"ok")
    app.settle(lambda: app.seen == [("ä" * 50_000,)])
    assert len(turns) >= len(body) // UNQUOTED_AT_ONCE
    client.http("POST", sid, "1")
    app.gone()


@pytest.mark.parametrize("text", ["", "x"])
def test_what_is_no_packet_ends_the_session(
    make: Any, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = make()
    client = connect(app)
    before = refusals.by_reason[PROTOCOL]
    client.text(text)
    client.until(close_frame(1007))
    app.gone()
    assert refusals.by_reason[PROTOCOL] == before + 1
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.tries(4)
def test_pings(make: Any) -> None:
    app = make(ping_interval=0.1, ping_timeout=0.3)
    client = connect(app)
    for _ in range(3):
        client.until(b"\x81\x012")
        client.text("3")
    client.until(b"\x81\x012")
    client.until(close_frame(1000))
    app.gone()
    assert app.seen == ["ping timeout"]


def test_an_application_that_is_there_first_is_served_too(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example a program that ends with ``serve(app)``."""
    make()  # the process has served before
    monkeypatch.setattr(sessions, "_install", None)
    sio = socketio.Server(async_mode="eventlet", client_manager=ZmqManager())
    assert type(sio.manager._outlet) is sessions.PlainOutlet
    sessions.serve_by(install)
    assert type(sio.manager._outlet) is SyncDispatcher


PLACE = '{"_placeholder":true,"num":%d}'


def test_more_attachments_where_the_application_takes_more(make: Any) -> None:
    app = make(max_attachments=50)
    client = connect(app)
    places = ",".join(PLACE % number for number in range(50))
    client.text(f'4550-1["echo",{places}]')
    for number in range(50):
        client.send(masked(BINARY, b"%02d" % number))
    client.until(b"4650-1[")
    client.until(b"\x82\x0249")
    app.gone()


def test_an_event_that_is_too_long_with_its_attachments(make: Any) -> None:
    app = make(max_attachments=50, max_http_buffer_size=10_000)
    client = connect(app)
    before = refusals.by_reason[PROTOCOL]
    places = ",".join(PLACE % number for number in range(20))
    client.text(f'4520-1["echo",{places}]')
    for _ in range(20):
        client.send(masked(BINARY, bytes(9_000)))
        eventlet.sleep(0.001)
    assert not app.sio.manager._outlet._partials
    assert b"61-" not in client.until(close_frame(1000))
    assert refusals.by_reason[PROTOCOL] == before + 1
    app.gone()


def test_text_before_all_attachments_have_come(make: Any) -> None:
    app = make()
    client = connect(app)
    before = refusals.by_reason[PROTOCOL]
    client.text(f'451-1["echo",{PLACE % 0}]', '422["echo",1]')
    client.until(close_frame(1000))
    assert refusals.by_reason[PROTOCOL] == before + 1
    app.gone()


@pytest.mark.tries(4)
def test_a_pong_without_its_ping_keeps_no_session(make: Any) -> None:
    app = make(ping_interval=0.1, ping_timeout=0.2)
    client = Client(app)
    sid = re.search('"sid":"([^"]+)"', client.http("GET"))[1]  # type: ignore[index]
    client.http("POST", sid, "3")
    assert client.http("GET", sid) == "2"
    client.http("POST", sid, "3")
    assert client.http("GET", sid) == "2"
    app.settle(lambda: not app.sio.eio.sockets)


def test_a_post_to_a_session_that_has_just_expired(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = make(ping_interval=0.05, ping_timeout=0.05)
    client = Client(app)
    sid = re.search('"sid":"([^"]+)"', client.http("GET"))[1]  # type: ignore[index]
    app.settle(lambda: not app.sio.eio.sockets)
    client.send(
        f"POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: x\r\n"
        "Content-Length: 2\r\n\r\n40".encode()
    )
    client.until(b"HTTP/1.1 400 ")
    assert not [record for record in caplog.records if record.exc_info]


def test_a_handshake_that_takes_the_application_too_long_leaves_no_session(make: Any) -> None:
    app = make()

    def connecting(sid: str, environ: Any) -> None:
        with eventlet.Timeout(0.01):
            eventlet.sleep(5)

    app.sio.eio.on("connect", connecting)
    client = Client(app)
    client.send(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n\r\n")
    client.until(b"HTTP/1.1 401 ")
    assert not app.sio.eio.sockets
    app.gone()


# --- requests of sessions, which go past the application -----------------------------------------


def post_of(sid: str, body: str, *fields: str) -> bytes:
    lines = "".join(f"{field}\r\n" for field in (f"Content-Length: {len(body)}", *fields))
    target = f"/socket.io/?EIO=4&transport=polling&sid={sid}"
    return f"POST {target} HTTP/1.1\r\nHost: x\r\n{lines}\r\n{body}".encode()


def poll_of(sid: str, *fields: str) -> bytes:
    lines = "".join(f"{field}\r\n" for field in fields)
    target = f"/socket.io/?EIO=4&transport=polling&sid={sid}"
    return f"GET {target} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode()


def test_requests_of_sessions_do_not_enter_the_application(make: Any) -> None:
    app = make()
    client = Client(app)
    sid = open_session(app, client)
    app.http.app = None
    client.http("POST", sid, '421["echo",1]')
    assert client.http("GET", sid) == "431[1]"
    client.http("POST", sid, "1")
    end(app)


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_many_requests_at_once_are_answered_in_their_order(make: Any, size: int) -> None:
    app = make()
    client = Client(app)
    sid = open_session(app, client)
    requests = b"".join(post_of(sid, f'42{n}["echo",{n}]') + poll_of(sid) for n in range(1, 6))
    for start in range(0, len(requests), size):
        client.send(requests[start : start + size])
        if not start % 7:
            eventlet.sleep(0)
    for number in range(1, 6):
        client.until(b"\r\n\r\nok")
        client.until(f"43{number}[{number}]".encode())
    end(app)


def test_what_comes_while_a_poll_waits_has_its_turn_behind_it(make: Any) -> None:
    app = make()
    client = Client(app)
    sid = open_session(app, client)
    requests = poll_of(sid) + post_of(sid, '421["echo",1]') * 300
    while requests:
        requests = requests[client.sock.send(requests[:5000]) :]
        eventlet.sleep(0.001)
    (waiting,) = app.http._open
    app.settle(lambda: waiting._reading is None)  # that is enough for now
    app.sio.emit("news", 1)
    client.until(b'42["news",1]')
    for _ in range(300):
        client.until(b"\r\n\r\nok")
    end(app)


def test_a_client_that_ends_its_connection_while_its_poll_waits(make: Any) -> None:
    app = make()
    client, poll = Client(app), Client(app)
    sid = open_session(app, client)
    poll.send(poll_of(sid))
    let_run(0.02)
    poll.sock.close()
    app.settle(lambda: not app.sio.eio.sockets)
    assert app.seen == ["transport close"]
    end(app)


def test_a_post_of_a_session_may_have_to_be_asked_for(make: Any) -> None:
    app = make()
    client = Client(app)
    sid = open_session(app, client)
    head, _, body = post_of(sid, '421["echo",1]', "Expect: 100-Continue").partition(b"\r\n\r\n")
    client.send(head + b"\r\n\r\n")
    client.until(b"HTTP/1.1 100 Continue\r\n\r\n")
    client.send(body)
    client.until(b"\r\n\r\nok")
    end(app)


def test_a_post_of_a_session_has_a_least_rate(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "BODY_GRACE_SECONDS", 0.3)
    app = make()
    client, slow = Client(app), Client(app)
    sid = open_session(app, client)
    before = refusals.by_reason[TOO_SLOW]
    slow.send(post_of(sid, "x" * 1000)[:-900])
    began = time.monotonic()
    with pytest.raises(OSError):
        while time.monotonic() < began + 19:
            slow.send(b"x")
            eventlet.sleep(0.05)
    assert 0.2 < time.monotonic() - began
    assert refusals.by_reason[TOO_SLOW] == before + 1
    client.http("POST", sid, '421["echo",1]')  # it can be tried again
    end(app)


def test_who_asks_for_it_has_the_connection_closed_at_once(make: Any) -> None:
    app = make()
    client = Client(app)
    sid = open_session(app, client)
    app.sio.emit("news", 1)
    client.send(poll_of(sid, "Connection: close"))
    began = time.monotonic()
    assert client.ended().endswith(b'42["news",1]')
    app.settle(lambda: not app.http.connections)
    assert time.monotonic() - began < 10
    end(app)


def test_a_poll_with_a_body_is_the_last_of_its_connection(make: Any) -> None:
    app = make()
    client = Client(app)
    sid = open_session(app, client)
    app.sio.emit("news", 1)
    client.send(poll_of(sid, "Content-Length: 5") + b"12345" + poll_of(sid))
    assert client.ended().count(b"HTTP/1.1 ") == 1
    end(app)


def test_a_number_that_is_opened_anew_is_not_closed(make: Any) -> None:
    """Other code has closed the descriptor without our knowledge."""
    app = make()
    clients = [connect(app), Client(app)]
    clients[1].http("GET")
    ours = list(app.http._open)
    numbers = [one.fileno() for one in ours]
    for number in numbers:
        hubs.notify_opened(number)
    app.settle(lambda: not app.http.connections)
    for number in numbers:
        os.close(number)  # fails if it was closed
    end(app)


def test_a_mistake_of_ours_ends_one_connection(
    make: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = make()
    client, other = Client(app), Client(app)
    sid, others = open_session(app, client), open_session(app, other)
    before = refusals.by_reason[FAILED]
    monkeypatch.setattr(Session, "poll", lambda *_: 1 / 0)
    client.send(poll_of(sid))
    assert client.ended() == b""
    monkeypatch.undo()
    assert "ZeroDivisionError" in caplog.text
    assert refusals.by_reason[FAILED] == before + 1
    other.http("POST", others, '421["echo",1]')
    assert other.http("GET", others) == "431[1]"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("body", ["", "x"])
def test_an_application_that_fails_around_the_engine(
    make: Any, when: str, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = make()
    inner = app.http.app

    def fail(environ: Any, start_response: Any) -> Any:
        if when == "before":
            environ["supervisor_sio.exchange"].take()
        else:
            inner(environ, start_response)
        raise ValueError("a mistake of the application")

    app.http.app = fail
    client = Client(app)
    client.send(
        b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body.encode())
    )
    client.until(b"HTTP/1.1 500 " if when == "before" else b"HTTP/1.1 200 ")
    # Of many at a time only some are logged.
    app.settle(lambda: re.search("a mistake of the application| more of ValueError", caplog.text))
    client.sock.close()
    app.settle(lambda: not app.http.connections)


def test_an_application_that_answers_where_a_handshake_came(make: Any) -> None:
    app = make()

    def answer(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", [("X-Its", "own")])
        write(b"one")
        yield b"two"
        yield b"three"

    app.http.app = lambda environ, start_response: list(answer(environ, start_response))
    for lazily in (False, True):
        if lazily:
            app.http.app = answer
        client = Client(app)
        client.send(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"X-Its: own" in client.until(b"\r\n\r\n")
        client.until(b"one")
        client.until(b"two")
        client.until(b"three")
        client.until(b"0\r\n\r\n")
    end(app)


@pytest.mark.parametrize("rest", ["fffff\r\n" + 2000 * "x", "not a size\r\n"])
def test_what_is_left_of_a_refused_body_is_no_request(make: Any, rest: str) -> None:
    """The body is too long or malformed, and the session ends meanwhile."""
    app = make(max_http_buffer_size=1000)
    client = Client(app)
    sid = open_session(app, client)
    fields = "Transfer-Encoding: chunked\r\nContent-Type: text/plain"
    head = post_of(sid, "", fields).replace(b"Content-Length: 0\r\n", b"")
    client.send(head + b"1\r\n4\r\n")
    app.settle(lambda: any(c.state is connection.State.BODY for c in app.http._open))
    app.session.close(abort=True)
    app.settle(lambda: not app.sio.eio.sockets)
    client.send(rest.encode())
    client.until(b"400 Bad Request")
    client.send(b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"HTTP/1.1 " not in client.ended()
    end(app)


def test_an_old_client_is_not_told_to_continue(make: Any) -> None:
    """RFC 9110, 10.1.1."""
    app = make()
    client = Client(app)
    sid = open_session(app, client)
    request = post_of(sid, '421["echo",1]', "Expect: 100-continue").replace(b"TP/1.1", b"TP/1.0")
    head, _, body = request.partition(b"\r\n\r\n")
    client.send(head + b"\r\n\r\n")
    app.settle(lambda: any(c.state is connection.State.BODY for c in app.http._open))
    client.send(body)
    assert client.ended().startswith(b"HTTP/1.1 200 OK")
    end(app)


def test_whether_an_origin_is_accepted_may_take_a_while_and_fail(make: Any) -> None:
    """The function of the application may query a database that does not answer."""
    fails = False

    def is_allowed(origin: str, environ: dict[str, Any]) -> bool:
        eventlet.sleep(0.001)
        if fails:
            raise OSError("no database")
        return environ["HTTP_ORIGIN"] == "http://good" == origin

    app = make(cors_allowed_origins=is_allowed)
    good = "Origin: http://good"
    client, polling = Client(app), Client(app)
    client.send(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n")
    client.send(f"{good}\r\n\r\n".encode())
    client.until(b"\r\n\r\n0{")
    sid = app.session.sid
    client.send(post_of(sid, "40", good))
    client.until(b"\r\n\r\nok")
    client.send(poll_of(sid, good))
    client.until(b"40{")
    refused, failed = Client(app), Client(app)
    refused.send(post_of(sid, "40", "Origin: http://bad"))
    refused.until(b"400 Bad Request")
    polling.send(poll_of(sid, good))
    app.settle(lambda: app.session._poll is not None)
    fails = True
    failed.send(poll_of(sid, good))
    failed.until(b"500 Internal Server Error")
    app.sio.emit("news", 1)
    assert b"Access-Control-Allow-Origin: http://good\r\n" in polling.until(b'42["news",1]')
    end(app)
    assert app.seen == ["server disconnect"]


def test_a_poll_whose_client_goes_while_its_origin_is_looked_up(make: Any) -> None:
    app = make(cors_allowed_origins=lambda origin: eventlet.sleep(0.05) is None)
    client, polling = Client(app), Client(app)
    open_session(app, client)
    polling.send(poll_of(app.session.sid, "Origin: http://good"))
    app.settle(lambda: any(c.state is connection.State.APPLICATION for c in app.http._open))
    ours = next(c for c in app.http._open if c.state is connection.State.APPLICATION)
    ours.end()
    app.settle(lambda: app.seen == ["transport close"])
    app.gone()
