"""What handlers of a Socket.IO server and its clients observe, in each mode."""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import threading
from typing import Any, Callable, Iterator

import msgpack
import pytest
import socketio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgpack import ExtType, Timestamp

from supervisor_sio.common.limits import TRACEBACKS
from supervisor_sio.common.reasons import NO_ANSWER, PROTOCOL, TOO_SLOW, WRONG_ARGUMENTS
from supervisor_sio.engine import session as session_module
from supervisor_sio.engine.frames import BINARY, CLOSE, TEXT, close_frame
from supervisor_sio.engine.session import Session, State
from supervisor_sio.worker import compat
from supervisor_sio.worker.clients import PlainClients
from supervisor_sio.worker.refused import refusals
from unit.client_frames import masked
from unit.examples import examples
from unit.in_the_middle import Other
from unit.worker.served import (
    APPS,
    HANDSHAKE,
    App,
    Client,
    connect,
    end,
    open_session,
    serve_by,
    upgrade,
)

PLACE = '{"_placeholder":true,"num":%d}'


@pytest.fixture(params=APPS, ids=[app.mode for app in APPS])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    serve_by(request.param, monkeypatch)
    yield request.param


only = {
    mode: pytest.mark.parametrize(
        "make", [a for a in APPS if a.mode in mode.split()], indirect=True
    )
    for mode in ("asyncio", "threading", "eventlet threading")
}


def test_a_websocket(make: Any) -> None:
    app = make()
    client = connect(app)
    assert type(app.session) is Session and app.session.transport == "websocket"
    client.text('421["echo","ä",{"a":1}]')
    client.until(b'431["\\u00e4",{"a":1}]')
    app.emit("news", 5)
    client.until(b'42["news",5]')
    client.send(masked(CLOSE, b"\x03\xe8"))
    client.until(close_frame(1000))
    app.gone()
    assert app.seen == [("ä", {"a": 1}), "transport close"]


def test_polling_and_the_change_to_a_websocket(make: Any) -> None:
    app = make()
    polling, websocket, sid = upgrade(app)
    assert app.sio.eio.transport(sid) == "polling"
    polling.http("POST", sid, '421["echo",0]')
    assert polling.http("GET", sid) == "431[0]"
    websocket.text("2probe")
    websocket.until(b"3probe")
    app.emit("news", "while it upgrades")
    websocket.text("5", '421["echo",1]')
    before = websocket.until(b"431[1]")
    assert b'42["news","while it upgrades"]' in before
    assert app.session.state is State.WEBSOCKET
    assert app.sio.eio.transport(sid) == "websocket"
    websocket.text("1")
    app.gone()
    assert app.seen == [(0,), (1,), "client disconnect"]


def test_an_option_that_is_set_while_it_runs(make: Any) -> None:
    app = make()
    eio = app.sio.eio
    eio.ping_timeout = 7
    with pytest.raises(ValueError, match="^ping_timeout: -1 is not a number above 0"):
        eio.ping_timeout = -1
    assert eio.ping_timeout == 7
    eio.ping_interval = 9
    handshake = Client(app).http("GET")
    assert '"pingTimeout":7000' in handshake and '"pingInterval":9000' in handshake


def test_a_handler_that_waits_holds_up_nobody(make: Any) -> None:
    app = make()
    client = connect(app)
    client.text('421["wait"]', '422["echo",1]')
    client.until(b"432[1]")
    app.go_on.set()
    client.until(b'431["waited"]')
    app.gone()


def test_handlers_one_after_the_other(make: Any) -> None:
    app = make(async_handlers=False)
    client = connect(app)
    client.text(*(f'42["order",{number}]' for number in (1, 2, 3)))
    app.settle(lambda: len(app.seen) == 6)
    assert app.seen == [1, -1, 2, -2, 3, -3]
    app.gone()


def test_a_handler_that_fails(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    app = make()
    client = connect(app)
    client.text('421["fail"]', '422["echo",1]')
    client.until(b"432[1]")
    app.settle(lambda: "a mistake of the application" in caplog.text)
    app.gone()


def test_plain_functions_are_handlers_in_each_mode(make: Any) -> None:
    app = make()
    app.sio.on("double", lambda sid, number: 2 * number)
    app.sio.on("*", lambda event, sid, *data: [event, *data])
    app.sio.on("connect", lambda sid, environ: app.seen.append(environ["REMOTE_ADDR"]))
    client = connect(app)
    client.text('421["double",21]', '422["anything",1]')
    client.until_all(b"431[42]", b'432[["anything",1]]')
    assert app.seen == ["192.0.2.1"]
    app.gone()


def test_handlers_in_a_class(make: Any) -> None:
    app = make()
    base: Any = socketio.AsyncNamespace if app.mode == "asyncio" else socketio.Namespace

    async def on_ask(sid: str, number: int) -> int:
        await app.nap(0.001)
        return number + 1

    async def on_disconnect(sid: str, reason: str) -> None:
        app.seen.append(reason)

    handlers = {"on_ask": on_ask, "on_disconnect": on_disconnect}
    namespace = base("/math")
    for name, handler in handlers.items():
        setattr(namespace, name, app.as_handler(handler))
    app.sio.register_namespace(namespace)
    client = connect(app)
    client.text("40/math,", '42/math,1["ask",41]')
    client.until(b"43/math,1[42]")
    client.text('42/math,2["not there"]')
    client.until(b"43/math,2[]")
    client.text("41/math,")
    app.settle(lambda: app.seen == ["client disconnect"])
    app.gone()


def test_attachments(make: Any) -> None:
    app = make()
    client = connect(app)
    client.send(
        masked(TEXT, b'451-7["echo",{"_placeholder":true,"num":0}]') + masked(BINARY, b"\x00\xff")
    )
    client.until(b'461-7[{"_placeholder":true,"num":0}]')
    client.until(b"\x82\x02\x00\xff")
    app.gone()


def test_another_serializer(make: Any) -> None:
    app = make(serializer="msgpack")
    client = Client(app)
    client.open_websocket()
    client.until(b'"maxPayload":1000000}')
    client.send(masked(BINARY, msgpack.dumps({"type": 0, "data": None, "nsp": "/"})))
    client.until(b"sid")
    event = {"type": 2, "data": ["echo", b"\x00"], "nsp": "/", "id": 4}
    client.send(masked(BINARY, msgpack.dumps(event)))
    client.until(msgpack.dumps([b"\x00"]))
    app.gone()


#: What notepack.io, and so socket.io-msgpack-parser, writes for undefined.
UNDEFINED = ExtType(0, b"\0")


def open_msgpack(app: App, auth: Any = UNDEFINED) -> Client:
    client = Client(app)
    client.open_websocket()
    client.until(b'"maxPayload":1000000}')
    client.send(masked(BINARY, msgpack.dumps({"type": 0, "data": auth, "nsp": "/"})))
    client.until(b"sid")
    return client


def test_undefined_of_msgpack_is_none(make: Any) -> None:
    app = make(serializer="msgpack")
    app.sio.on("connect", lambda sid, environ, auth: app.seen.append(auth))
    client = open_msgpack(app)
    event = {"type": 2, "data": ["echo", {"a": [UNDEFINED, 1]}], "nsp": "/", "id": 4}
    client.send(masked(BINARY, msgpack.dumps(event)))
    client.until(msgpack.dumps([{"a": [None, 1]}]))
    app.gone()
    assert app.seen == [None, ({"a": [None, 1]},), "transport close"]


def test_a_timestamp_and_a_date_of_msgpack(make: Any) -> None:
    """A timestamp is msgpack's own; JavaScript writes a Date as an extension of type 0."""
    app = make(serializer="msgpack")
    client = open_msgpack(app)
    values = [Timestamp(5), ExtType(0, bytes(8))]
    event = {"type": 2, "data": ["echo", values], "nsp": "/", "id": 4}
    client.send(masked(BINARY, msgpack.dumps(event)))
    client.until(msgpack.dumps([values]))
    app.gone()
    assert app.seen == [(values,), "transport close"]


def test_a_disconnect_by_msgpack_has_no_data(make: Any) -> None:
    """JavaScript's parser takes nil for data, and refuses a DISCONNECT with data."""
    app = make(serializer="msgpack")
    client = open_msgpack(app)
    app.do(app.sio.disconnect(app.sid))
    client.until(masked(BINARY, b"")[:1] + b"\x0d" + msgpack.dumps({"type": 1, "nsp": "/"}))
    app.gone()


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1",
        b"\x81",
        b"abc",
        msgpack.dumps(["type", 2]),
        msgpack.dumps({"type": 2, "nsp": "/"}),
        msgpack.dumps({"type": 2, "data": ["echo"]}),
        msgpack.dumps({"type": 2, "data": ["echo"], "nsp": 5}),
        msgpack.dumps({"type": True, "nsp": "/"}),
        msgpack.dumps({"type": 2, "data": ["echo"], "nsp": "/", "id": "1"}),
        msgpack.dumps({"type": 2, "data": ["echo", ExtType(5, b"x")], "nsp": "/"}),
        msgpack.dumps({"type": 2, "data": ["echo", ExtType(0, bytes(1))], "nsp": UNDEFINED}),
        b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data\x92\xa4echo\xc7\x05\xff" + bytes(5),  # no timestamp
        msgpack.dumps({"type": 2, "data": ["echo"], "nsp": "/"}) + b"\xc0",
    ],
)
def test_msgpack_that_is_not_a_packet_ends_the_session(
    make: Any, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    app = make(serializer="msgpack")
    client, before = open_msgpack(app), refusals.by_reason[PROTOCOL]
    client.send(masked(BINARY, data))
    client.until(close_frame(1000))
    app.gone()
    assert app.seen == ["transport error"]
    assert refusals.by_reason[PROTOCOL] == before + 1
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("text", ['42["echo"', "4abc", "42{}", '42abc["echo",1]', "44{}", "4"])
def test_what_is_not_a_packet_ends_the_session(
    make: Any, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = make()
    client, before = connect(app), refusals.by_reason[PROTOCOL]
    client.text('421["echo",1]', text, '422["echo",2]')
    assert b"432" not in client.until(close_frame(1000))
    app.gone()
    app.settle(lambda: len(app.seen) == 2)
    assert sorted(app.seen, key=str) == [(1,), "transport error"]
    assert refusals.by_reason[PROTOCOL] == before + 1
    assert not [record for record in caplog.records if record.exc_info]


def test_what_is_not_a_packet_ends_a_polling_session(make: Any) -> None:
    app = make()
    client, before = Client(app), refusals.by_reason[PROTOCOL]
    sid = open_session(app, client)
    with pytest.raises(AssertionError, match=" 400 "):
        client.http("POST", sid, '42{}\x1e421["echo",1]')
    app.gone()
    assert app.seen == ["transport error"]
    assert refusals.by_reason[PROTOCOL] == before + 1


@pytest.mark.parametrize("text", ['42["echo",1]', "41", f'451-["echo",{PLACE % 0}]'])
def test_who_begins_without_a_connect_does_not_stay(make: Any, text: str) -> None:
    app = make()
    client, before = Client(app), refusals.by_reason[PROTOCOL]
    client.open_websocket()
    client.until(b'"maxPayload":')
    client.text(text)
    client.until(close_frame(1000))
    app.gone()
    assert app.seen == [] and refusals.by_reason[PROTOCOL] == before + 1


def test_what_a_client_sends_while_it_is_disconnected_ends_nothing(make: Any) -> None:
    """An event, also with attachments, that was sent before the server's DISCONNECT arrived."""
    app = make()
    client = connect(app)
    app.do(app.sio.disconnect(app.sid))
    client.until(b"41")
    client.text('421["echo",1]', f'452-2["echo",{PLACE % 0},{PLACE % 1}]')
    client.send(masked(BINARY, b"one") + masked(BINARY, b"two"))
    client.text("40")
    client.until(b'40{"sid"')
    client.text('423["echo",3]')
    client.until(b"433[3]")
    app.gone()
    assert app.seen == ["server disconnect", (3,), "transport close"]


def let_time_to_connect_pass(app: App, times: int = 1) -> None:
    """Let the time to connect expire for all sessions that have begun."""
    unconnected, done = app.sio.manager._outlet._unconnected, []
    over = app.runtime.deadlines.clock() + times * (unconnected._seconds + 1)
    app.runtime.call_soon(unconnected.on_deadline, over)
    app.runtime.call_soon(done.append, True)
    app.settle(lambda: done)


def test_a_session_that_has_moved_is_not_waited_for(make: Any) -> None:
    """The worker that it has moved to waits for its CONNECT."""
    app = make()
    client = Client(app)
    client.open_websocket()
    client.until(b'"maxPayload":')
    before, done = refusals.by_reason[TOO_SLOW], []
    app.runtime.call_soon(app.sio.manager._outlet.hold.moved, app.session)
    app.runtime.call_soon(done.append, True)
    app.settle(lambda: done)
    let_time_to_connect_pass(app)
    assert refusals.by_reason[TOO_SLOW] == before and not app.session.closed
    app.gone()


def test_who_does_not_connect_in_time_does_not_stay(make: Any) -> None:
    app = make()
    in_time, refused, never = connect(app), Client(app), Client(app)
    before = refusals.by_reason[TOO_SLOW]
    for client in (refused, never):
        client.open_websocket()
        client.until(b'"maxPayload":')
    refused.text("40/nowhere,")
    refused.until(b"44/nowhere,")
    # The refusal is sent while its CONNECT is still handled.
    eio = app.sio.manager._outlet._eio
    app.settle(lambda: not any(eio.is_busy(one) for one in app.sio.eio.sockets.values()))
    let_time_to_connect_pass(app)
    for client in (refused, never):
        client.until(close_frame(1000))
    in_time.text('421["echo",1]')
    in_time.until(b"431[1]")
    assert refusals.by_reason[TOO_SLOW] == before + 2
    app.gone()
    assert app.seen == [(1,), "transport close"]


def test_a_connect_handler_that_takes_long_is_waited_for(make: Any) -> None:
    app = make()

    async def connecting(sid: str, environ: Any) -> None:
        app.seen.append("connecting")
        await app.settled(app.go_on.wait())

    app.on("connect", connecting)
    client = Client(app)
    client.open_websocket()
    client.text("40")
    app.settle(lambda: app.seen)
    let_time_to_connect_pass(app)
    app.go_on.set()
    client.until(b'40{"sid"')
    client.text('421["echo",1]')
    client.until(b"431[1]")
    let_time_to_connect_pass(app, times=3)
    client.text('422["echo",2]')
    client.until(b"432[2]")
    app.gone()


@pytest.mark.parametrize("origin", ["http://friend.example", "http://stranger.example"])
def test_a_page_may_read_that_its_request_was_malformed(make: Any, origin: str) -> None:
    app = make(cors_allowed_origins=["http://friend.example"])
    client = Client(app)
    client.send(f"GET / HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\nNo field\r\n\r\n".encode())
    answer = client.ended()
    assert answer.startswith(b"HTTP/1.1 400 ")
    allowed = f"Access-Control-Allow-Origin: {origin}\r\n".encode() in answer
    assert allowed == ("friend" in origin)
    app.gone()


@pytest.mark.parametrize("method, status", [("GET", "414 "), ("OPTIONS", "200 ")])
def test_a_page_may_read_that_its_request_was_too_long(make: Any, method: str, status: str) -> None:
    """Also on a kept connection, of which the worker reads a few bytes at a time; the preflight
    before such a request is accepted.
    """
    app = make(cors_allowed_origins="*")
    client = Client(app)
    sid = open_session(app, client)
    line = f"{method} /socket.io/?EIO=4&transport=polling&sid={sid}&x={'x' * 9000} HTTP/1.1\r\n"
    asked = "Access-Control-Request-Method: GET\r\n" if method == "OPTIONS" else ""
    client.send(f"{line}Host: x\r\nOrigin: http://page.example\r\n{asked}\r\n".encode())
    answer = client.ended()
    assert answer.startswith(f"HTTP/1.1 {status}".encode())
    assert b"\r\nAccess-Control-Allow-Origin: http://page.example\r\n" in answer
    end(app)


def test_a_websocket_of_another_version(make: Any) -> None:
    """RFC 6455, 4.4."""
    app = make()
    client = Client(app)
    client.send(HANDSHAKE.format(sid="", version=8).encode())
    client.until(b"HTTP/1.1 400 ")
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in client.until(b"\r\n\r\n") + b"\r\n"
    app.gone()


def start_poll(app: App, sid: str) -> Client:
    client = Client(app)
    target = f"/socket.io/?EIO=4&transport=polling&sid={sid}"
    client.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    app.settle(lambda: app.session.connections())
    return client


def test_a_poll_that_its_client_has_left_takes_no_message(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "ABANDONED_POLL_SECONDS", 60)
    app = make()
    client = Client(app)
    sid = open_session(app, client)
    for number in range(5):
        start_poll(app, sid).sock.close()
        app.emit("news", number)
        assert client.http("GET", sid) == f'42["news",{number}]'
    start_poll(app, sid).sock.close()
    app.settle(lambda: not app.session.connections())
    app.emit("news", 5)
    assert client.http("GET", sid) == '42["news",5]'
    end(app)


@pytest.mark.parametrize("ends", [True, False], ids=["it ends", "it is dead"])
def test_an_answer_that_its_client_has_not_read_comes_again(
    make: Any, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    monkeypatch.setattr(session_module, "ABANDONED_POLL_SECONDS", 60)
    app = make()
    client = Client(app)
    sid = open_session(app, client)
    left, long = start_poll(app, sid), "x" * 3_000_000
    app.emit("long", long)
    left.wait(lambda data: len(data) > 1000, "part of the answer")
    app.emit("news", 1)
    if ends:
        left.sock.close()
    assert client.http("GET", sid) + client.http("GET", sid) == f'42["long","{long}"]42["news",1]'
    end(app)


def test_who_does_not_poll_again_is_gone(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "ABANDONED_POLL_SECONDS", 0.1)
    app = make()
    sid = open_session(app, Client(app))
    start_poll(app, sid).sock.close()
    app.settle(lambda: app.seen)
    app.gone()
    assert app.seen == ["transport close"]


def test_with_loggers(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    loud = logging.getLogger("loud")
    loud.setLevel(logging.INFO)
    app = make(logger=loud, engineio_logger=loud)
    client = connect(app)
    client.text('421["echo",1]')
    client.until(b"431[1]")
    app.emit("news", 7)
    client.until(b'42["news",7]')
    assert "Sending packet MESSAGE data 31[1]" in caplog.text
    assert 'Sending packet MESSAGE data 2["news",7]' in caplog.text
    assert 'received event "echo"' in caplog.text
    app.gone()


def test_an_instrumented_server_has_the_same_sessions(make: Any) -> None:
    from engineio.async_socket import AsyncSocket
    from engineio.socket import Socket

    before = {kind: dict(vars(kind)) for kind in (Socket, AsyncSocket)}
    app = make()
    admin = app.sio.instrument(auth=False)
    try:
        client = connect(app)
        assert type(app.session) is Session
        client.text('421["echo",1]')
        client.until(b"431[1]")
        client.sock.close()
        app.settle(lambda: not app.sio.environ)
    finally:
        admin.stop_stats_event.set()
        for kind, names in before.items():
            for name, value in names.items():
                if vars(kind).get(name) is not value:
                    setattr(kind, name, value)


# --- coming and going ----------------------------------------------------------------------------


def test_the_message_behind_a_connect_waits_for_its_handler(make: Any) -> None:
    app = make()

    async def connecting(sid: str, environ: Any) -> None:
        app.seen.append("connecting")
        await app.settled(app.go_on.wait())
        app.seen.append("connected")

    app.on("connect", connecting)
    client = Client(app)
    client.open_websocket()
    client.text("40", '421["echo",1]')
    app.settle(lambda: app.seen)
    app.sleep(0.02)
    assert app.seen == ["connecting"]
    app.go_on.set()
    client.until(b"431[1]")
    app.gone()
    assert app.seen == ["connecting", "connected", (1,), "transport close"]


def test_a_client_that_leaves_while_it_connects(make: Any) -> None:
    app = make()

    async def connecting(sid: str, environ: Any) -> None:
        app.seen.append("connecting")
        await app.settled(app.go_on.wait())

    app.on("connect", connecting)
    client = Client(app)
    client.open_websocket()
    client.text("40")
    app.settle(lambda: app.seen)
    client.sock.close()
    app.sleep(0.02)
    app.go_on.set()
    app.gone()
    assert app.seen == ["connecting", "transport close"]


@pytest.mark.parametrize("fails", ["arguments", "error"])
def test_a_connect_handler_that_fails_refuses_the_client(make: Any, fails: str) -> None:
    app = make()
    before = refusals.by_reason[WRONG_ARGUMENTS]

    async def error(sid: str, environ: Any, auth: Any) -> None:
        raise ValueError("a mistake of the application")

    async def arguments(sid: str, environ: Any) -> None: ...

    handler = error if fails == "error" else arguments
    # python-socketio looks at the arguments of the handler itself.
    app.sio.on("connect", handler if app.mode == "asyncio" else lambda sid, environ: 1 / 0)
    client = Client(app)
    client.open_websocket()
    client.text('40{"token":1}')
    client.until(b'44{"message":"Connection rejected by server"}')
    app.settle(lambda: not app.sio.manager.rooms and not app.sio.manager.pending_connect)
    assert not app.sio.manager._early
    app.gone()
    counted = fails == "arguments" or app.mode != "asyncio"
    assert refusals.by_reason[WRONG_ARGUMENTS] - before == counted


def test_a_connect_handler_that_refuses(make: Any) -> None:
    app = make()

    async def connecting(sid: str, environ: Any, auth: Any) -> Any:
        if auth is None:
            raise socketio.exceptions.ConnectionRefusedError("who are you?", 7)
        return auth == "friend"

    app.on("connect", connecting)
    client = Client(app)
    client.open_websocket()
    client.text("40", '40"foe"', '40"friend"')
    client.until(b'44{"message":"who are you?","data":7}')
    client.until(b'44{"message":"Connection rejected by server"}')
    client.until(b'40{"sid":"')
    app.gone()


def test_a_connect_handler_that_fails_refuses_also_who_is_connected_always(make: Any) -> None:
    app = make(always_connect=True)
    app.sio.on("connect", lambda sid, environ: 1 / 0)
    client = Client(app)
    client.open_websocket()
    client.text("40")
    client.until(b'40{"sid":')
    client.until(masked(TEXT, b"")[:1] + b"\x0241")  # with data, JavaScript's clients come again
    app.settle(lambda: not app.sio.manager.rooms)
    app.gone()
    assert app.seen == []


def test_who_is_connected_always_may_emit_before_it_is_refused(make: Any) -> None:
    app = make(always_connect=True)
    app.sio.on("connect", lambda sid, environ: False)
    app.sio.on("connect", lambda sid, environ: None, namespace="/b")
    app.sio.on("echo", lambda sid, data: data, namespace="/b")
    client = Client(app)
    client.open_websocket()
    client.text("40", '42["echo",1]', f'451-["echo",{PLACE % 0}]')
    client.send(masked(BINARY, b"one"))
    client.text("40/b,", '42/b,1["echo",2]')
    client.until(b'40{"sid":')
    client.until(b'40/b,{"sid":')
    client.until(b"43/b,1[2]")
    app.gone()
    assert app.seen == []


def test_who_is_in_a_namespace_may_answer_before_that_is_noted(make: Any) -> None:
    """A recovered client gets its CONNECT, and missed events, before the session is marked."""
    app = make()
    client = connect(app)
    app.session.connected = False
    client.text("4317[]", f'451-1["echo",{PLACE % 0}]')
    client.send(masked(BINARY, b"one"))
    client.until(b"461-1[")
    assert app.seen == [(b"one",)] and not app.session.closed
    client.text("41/nowhere,")
    client.until(b"\x88")  # not there
    app.gone()


def test_much_for_a_client_that_has_yet_to_connect(make: Any) -> None:
    app = make()

    async def connecting(sid: str, environ: Any) -> None:
        for number in range(30):
            await app.settled(app.sio.emit("early", str(number) * 50_000, to=sid))

    app.on("connect", connecting)
    client = Client(app)
    client.open_websocket()
    client.text("40")
    client.until(b'40{"sid"')
    app.settle(lambda: not app.sio.manager._early)
    app.emit("now", 1)
    assert 5 < client.until(b'42["now",1]').count(b'42["early"') < 30
    app.gone()


def test_the_application_disconnects(make: Any) -> None:
    app = make()
    client = connect(app)
    app.emit("bye", 1)
    app.do(app.sio.disconnect(app.sid))
    client.until(b'42["bye",1]')
    client.until(b"41")
    app.do(app.sio.eio.disconnect(app.session.sid))
    client.until(close_frame(1000))
    client.send(masked(CLOSE, b"\x03\xe8"))
    client.ended()
    app.gone()
    assert app.seen == ["server disconnect"]


def test_the_application_disconnects_a_client_and_its_handler_fails(make: Any) -> None:
    """The caller of ``disconnect()`` gets the error, and nothing of the client is left."""
    app = make()
    app.sio.on("disconnect", lambda sid, reason: 1 / 0)
    client = connect(app)
    sid = app.sid
    app.do(app.sio.enter_room(sid, "blue"))
    with pytest.raises(ZeroDivisionError):
        app.do(app.sio.disconnect(sid))
    client.until(b"41")
    assert not app.sio.manager.rooms and not app.sio.manager.pending_disconnect
    app.do(app.sio.disconnect(sid))  # it is gone
    client.text("40")
    client.until(b'40{"sid":"')
    end(app)


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_a_disconnect_handler_that_fails_leaves_nothing(make: Any, transport: str) -> None:
    app = make()
    app.on("disconnect", app.fail)
    if transport == "polling":
        open_session(app, Client(app))
    else:
        connect(app)
    end(app)


def test_a_disconnect_handler_without_a_reason(make: Any) -> None:
    """The signature before python-socketio 5.12."""
    app = make()
    app.sio.on("disconnect", lambda sid: app.seen.append("gone"))
    connect(app)
    end(app)
    assert app.seen == ["gone"]


# --- mistakes, and whose they are ----------------------------------------------------------------


def test_wrong_arguments_are_the_clients(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    app = make()

    async def pair(sid: str, one: int, two: int) -> None: ...

    app.sio.on("pair", pair if app.mode == "asyncio" else lambda sid, one, two: None)
    before = refusals.by_reason[WRONG_ARGUMENTS]
    client = connect(app)
    client.text('421["pair",1]', '422["pair",1,2,3]', '423["pair",1,2]')
    assert b"43" not in client.until(b"433[]")
    app.settle(lambda: refusals.by_reason[WRONG_ARGUMENTS] == before + 2)
    assert not [record for record in caplog.records if record.exc_info]
    app.gone()


@pytest.mark.parametrize("name", ["own_mistake", "of_a_library"])
def test_a_type_error_of_the_application_is_not_the_clients(
    make: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = make()
    before = refusals.by_reason[WRONG_ARGUMENTS]
    app.sio.on("own_mistake", lambda sid: len(5))  # type: ignore[arg-type]
    app.sio.on("of_a_library", lambda sid: app.sio.emit())
    client = connect(app)
    client.text(f'421["{name}"]', '422["echo",1]')
    client.until(b"432[1]")
    app.settle(lambda: "TypeError" in caplog.text)
    assert refusals.by_reason[WRONG_ARGUMENTS] == before
    app.gone()


def test_an_answer_to_call(make: Any) -> None:
    app = make()

    async def ask(sid: str) -> None:
        app.seen.append(await app.settled(app.sio.call("question", 5, to=sid, timeout=20)))

    app.on("ask", ask)
    client = connect(app)
    client.text(*['42["ask"]'] * 40)  # more than there are threads
    for _ in range(40):
        question = client.until(b'["question",5]')
        number = question[question.rindex(b"\x81") + 4 :].decode()
        client.text(f'43{number}["answer"]')
    app.settle(lambda: app.seen == ["answer"] * 40)
    app.gone()


def test_no_answer_to_call_is_no_traceback(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    app = make()
    before = refusals.by_reason[NO_ANSWER]

    async def ask(sid: str) -> None:
        await app.settled(app.sio.call("question", to=sid, timeout=0.01))

    app.on("ask", ask)
    client = connect(app)
    client.text(*(f'421{number}["ask"]' for number in range(50)))
    app.settle(lambda: refusals.by_reason[NO_ANSWER] == before + 50)
    client.text('421["echo",1]')
    client.until(b"431[1]")
    assert not [record for record in caplog.records if record.exc_info]
    assert len([record for record in caplog.records if NO_ANSWER in record.getMessage()]) <= 2
    app.gone()


def test_a_timeout_of_the_application_is_told(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    app = make()

    async def ask_others(sid: str) -> None:
        raise socketio.exceptions.TimeoutError()  # as a client of another server does

    app.on("ask", ask_others)
    client = connect(app)
    client.text('42["ask"]', '421["echo",1]')
    client.until(b"431[1]")
    app.settle(lambda: "ask_others" in caplog.text)
    app.gone()


def test_a_handler_that_fails_all_the_time_does_not_fill_the_log(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = make()

    async def often(sid: str) -> None:
        raise ValueError("again and again")

    app.on("often", often)
    client = connect(app)
    for _ in range(3):
        client.text(*['42["often"]'] * 100)
        client.text('421["echo",1]')
        client.until(b"431[1]")
    app.settle(lambda: re.search(" more of ValueError at .*handlers", caplog.text))
    told = [r for r in caplog.records if r.exc_info and "again" in str(r.exc_info[1])]
    assert len(told) == TRACEBACKS
    more = sum(map(int, re.findall(r"and (\d+) more of ValueError at .*handlers", caplog.text)))
    assert more + len(told) == 300
    app.gone()


# --- what is stored for a session ----------------------------------------------------------------


def test_what_the_application_stores_for_a_client(make: Any) -> None:
    app = make()
    connect(app)
    sid = app.sid
    app.do(app.sio.save_session(sid, {"name": "Ann"}))
    stored = app.do(app.sio.get_session(sid))
    assert stored == {"name": "Ann"}
    context = app.sio.session(sid)
    entered = getattr(context, "__aenter__", None) or context.__enter__
    data = app.do(entered())
    data["age"] = 5
    left = getattr(context, "__aexit__", None) or context.__exit__
    app.do(left(None, None, None))
    assert app.do(app.sio.get_session(sid)) == {"name": "Ann", "age": 5}
    eio_sid = app.session.sid
    assert app.do(app.sio.eio.get_session(eio_sid)) == {"/": {"name": "Ann", "age": 5}}
    app.do(app.sio.eio.save_session(eio_sid, {"/": {}}))
    assert app.do(app.sio.get_session(sid)) == {}
    app.gone()
    with pytest.raises(KeyError):
        app.do(app.sio.eio.get_session(eio_sid))


def test_messages_of_engine_io(make: Any) -> None:
    app = make()
    client = connect(app)
    sid = app.session.sid
    app.do(app.sio.eio.send(sid, "plain"))
    client.until(b"4plain")
    app.do(app.sio.eio.send(sid, b"\x01\x02"))
    client.until(b"\x82\x02\x01\x02")
    app.gone()
    app.do(app.sio.eio.send(sid, "too late"))


# --- a python-socketio that has changed ----------------------------------------------------------


def test_a_changed_python_socketio_is_served_by_its_public_interface(
    make: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(compat._METHODS, "_no_such_name", 1)
    app = make()
    assert "this release of python-socketio has changed _no_such_name" in caplog.text
    assert type(app.sio.manager._outlet) is PlainClients
    client = connect(app)
    client.text('421["echo",1]')
    client.until(b"431[1]")
    app.emit("news", 5)
    client.until(b'42["news",5]')
    client.send(masked(CLOSE, b"\x03\xe8"))
    app.gone()
    assert app.seen == [(1,), "transport close"]


@pytest.mark.parametrize("kind", [socketio.Server, socketio.AsyncServer])
def test_names_that_are_not_what_they_were(kind: Any) -> None:
    """Also if one has become a coroutine function, or is not one any more."""
    mode = "asgi" if kind is socketio.AsyncServer else "threading"

    async def waits(eio_sid: str, pkt: Any) -> None: ...

    def plain(eio_sid: str, pkt: Any) -> None: ...

    class Changed(kind):  # type: ignore[misc]
        _handle_ack = None
        _send_packet = staticmethod(plain if kind is socketio.AsyncServer else waits)

        def _handle_connect(self, one: Any) -> None: ...

    assert compat.missing(kind(async_mode=mode)) == []
    assert compat.missing(Changed(async_mode=mode)) == [
        "_send_packet",
        "_handle_ack",
        "_handle_connect",
    ]


# --- requests that go through the application all the same ---------------------------------------


def test_requests_of_sessions_at_a_path_where_nobody_has_come(make: Any) -> None:
    app = make()
    client = Client(app)
    sid = open_session(app, client)
    for _ in range(2):
        app.sio.eio.engine.paths.clear()
        client.http("POST", sid, '421["echo",1]')
        app.sio.eio.engine.paths.clear()
        assert client.http("GET", sid) == "431[1]"
    app.sio.eio.engine.paths.clear()
    client.http("POST", sid, '421["echo","' + "x" * 200_000 + '"]')
    assert len(client.http("GET", sid)) > 200_000
    app.sio.eio.engine.paths.clear()
    target = f"/socket.io/?EIO=4&transport=polling&sid={sid}"
    client.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())  # it waits
    app.sleep(0.02)
    app.emit("news", 1)
    client.until(b'42["news",1]')
    end(app)


def test_a_post_that_is_too_long_at_a_path_where_nobody_has_come(make: Any) -> None:
    app = make(max_http_buffer_size=1000)
    client = Client(app)
    sid = open_session(app, client)
    app.sio.eio.engine.paths.clear()
    target = f"/socket.io/?EIO=4&transport=polling&sid={sid}"
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n"
    client.send(head.encode() + b"x" * 2000)
    client.until(b"HTTP/1.1 400 ")
    app.settle(lambda: not app.sio.eio.sockets)
    app.gone()


def test_whether_an_origin_is_accepted_may_be_asked(make: Any) -> None:
    """In threads, and on eventlet, the function may wait for a database."""

    def is_allowed(origin: str, environ: dict[str, Any]) -> bool:
        app.seen.append(threading.current_thread() is threading.main_thread())
        return bool(environ["HTTP_ORIGIN"] == "http://good" == origin)

    app = make(cors_allowed_origins=is_allowed)
    for origin, status in (("good", b"200"), ("bad", b"400")):
        client = Client(app)
        client.send(
            b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n"
            + f"Origin: http://{origin}\r\n\r\n".encode()
        )
        client.until(b"HTTP/1.1 " + status)
    assert set(app.seen) == {app.mode != "threading"}
    app.seen.clear()
    end(app)


def test_the_environment_does_not_keep_the_connection(make: Any) -> None:
    app = make()
    client = connect(app)
    environ = app.sio.get_environ(app.sid)
    assert environ["REMOTE_ADDR"] == "192.0.2.1"
    assert (environ["PATH_INFO"], environ["HTTP_UPGRADE"]) == ("/socket.io/", "websocket")
    assert not [key for key in environ if "exchange" in key or key in ("asgi.send", "asgi.receive")]
    scope = environ.get("asgi.scope", {})
    assert (scope.get("type") == "websocket") == (app.mode == "asyncio")
    assert not [key for key in scope if "exchange" in key]
    client.sock.close()
    app.gone()


# --- order ---------------------------------------------------------------------------------------


@settings(max_examples=examples(15), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    events=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    waiting=st.sets(st.integers(0, 11)),
    transport=st.sampled_from(["polling", "websocket", "upgraded"]),
    async_handlers=st.booleans(),
    loud=st.booleans(),
)
def test_handlers_start_in_the_order_of_the_events(
    make: Any,
    monkeypatch: pytest.MonkeyPatch,
    events: list[int],
    waiting: set[int],
    transport: str,
    async_handlers: bool,
    loud: bool,
) -> None:
    """``events``: for each event of the client, its number of attachments."""
    monkeypatch.setattr(session_module, "CROSSED_POLL_SECONDS", 0.01)
    logger = logging.getLogger("events")
    logger.setLevel(logging.INFO if loud else logging.ERROR)
    app = make(async_handlers=async_handlers, logger=logger)

    async def number(sid: str, value: int, *attachments: bytes) -> None:
        assert attachments == (b"%d" % value,) * events[value]
        app.seen.append(value)
        if value in waiting:
            await app.nap(0.001)

    app.on("number", number)
    messages: list[Any] = []
    for value, count in enumerate(events):
        places = "".join("," + PLACE % n for n in range(count))
        kind = f"5{count}-" if count else "2"
        messages += [f'4{kind}["number",{value}{places}]', *[b"%d" % value] * count]
    if transport == "websocket":
        client = connect(app)
    else:
        polling, client, sid = upgrade(app)
    if transport == "polling":
        encode = base64.b64encode
        body = [m if isinstance(m, str) else "b" + encode(m).decode() for m in messages]
        polling.http("POST", sid, "\x1e".join(body))
    else:
        if transport == "upgraded":
            client.text("2probe", "5")
        for message in messages:
            if isinstance(message, str):
                client.text(message)
            else:
                client.send(masked(BINARY, message))
    app.settle(lambda: len(app.seen) == len(events))
    # Threads that begin one after the other may come to their first line in another order.
    in_order = app.seen if app.mode != "threading" or not async_handlers else sorted(app.seen)
    assert in_order == list(range(len(events)))
    if transport == "polling":
        polling.http("POST", sid, "1")
    app.gone()


# --- other threads, and tasks that are cancelled -------------------------------------------------


@only["threading"]
def test_other_threads_may_do_what_handlers_may(make: Any) -> None:
    app = make()
    client = connect(app)
    sid, eio_sid = app.sid, app.session.sid
    failed: list[BaseException] = []

    def work() -> None:
        try:
            app.sio.save_session(sid, {"by": "a thread"})
            assert app.sio.get_session(sid) == {"by": "a thread"}
            assert app.sio.transport(sid) == "websocket"
            for number in range(300):
                app.sio.emit("news", number)
            app.sio.eio.send(eio_sid, "plain")
            app.sio.disconnect(sid)
            app.sio.eio.disconnect(eio_sid)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    for number in range(300):
        client.until(b'42["news",%d]' % number)
    client.until(b"4plain")
    client.until(b"41")
    client.until(close_frame(1000))
    thread.join(5)
    assert not failed
    app.gone()
    assert app.seen == ["server disconnect"]


class Stored:
    """Where a client's data is kept; another thread calls when it is looked at."""

    def __init__(self, call: Callable[[], Any], look: int) -> None:
        self._call, self._looks = call, look
        self._data: Any = None

    @property
    def data(self) -> Any:
        found = self._data
        self._looks -= 1
        if not self._looks:
            self._call()
        return found

    @data.setter
    def data(self, data: Any) -> None:
        self._data = data


def interrupted(
    eio: Any, monkeypatch: pytest.MonkeyPatch, look: int, call: Callable[..., Any], *args: Any
) -> tuple[Other, Stored]:
    """A client's data, and another thread's call while it is looked at."""
    other = Other(eio, call, "a client", *args, lock="_making")
    stored = Stored(other.call, look)
    monkeypatch.setattr(eio, "_stored", {"a client": stored}.__getitem__)
    return other, stored


@only["threading"]
@pytest.mark.parametrize("look", [1, 2])
def test_threads_that_look_for_a_clients_data_first_get_the_same(
    make: Any, monkeypatch: pytest.MonkeyPatch, look: int
) -> None:
    eio = make().sio.eio
    other, stored = interrupted(eio, monkeypatch, look, eio.get_session)
    assert eio.get_session("a client") is other.result() is stored.data == {}


@only["threading"]
@pytest.mark.parametrize("look", [1, 2])
def test_data_that_a_thread_stores_while_another_looks_for_it_first(
    make: Any, monkeypatch: pytest.MonkeyPatch, look: int
) -> None:
    eio = make().sio.eio
    other, stored = interrupted(eio, monkeypatch, look, eio.save_session, {"n": 1})
    eio.get_session("a client")
    other.result()
    assert stored.data == {"n": 1}


@only["asyncio"]
def test_another_loop_is_told_what_to_write(make: Any) -> None:
    app = make()
    client = connect(app)
    sid, eio_sid = app.sid, app.session.sid
    eio = app.sio.eio
    told: list[str] = []

    def work() -> None:
        for call, args in (
            (app.sio.emit, ("news", 1)),
            (app.sio.disconnect, (sid,)),
            (eio.send, (eio_sid, "x")),
            (eio.disconnect, (eio_sid,)),
        ):
            try:
                asyncio.run(call(*args))
            except RuntimeError as error:
                told.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(told) == 4
    assert all("asyncio.run_coroutine_threadsafe(" in text for text in told)
    client.text('421["echo",1]')
    client.until(b"431[1]")
    app.gone()


@only["asyncio"]
def test_handlers_that_are_cancelled(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    """At the end of a worker: the sessions end, and nothing is logged."""
    app: App = make()
    go_on = asyncio.Event()

    async def leaving(sid: str, reason: str) -> None:
        app.seen.append(reason)
        await go_on.wait()

    app.on("disconnect", leaving)

    async def coming(sid: str, environ: Any, auth: Any) -> None:
        await go_on.wait()

    waiting, connecting = connect(app), Client(app)
    waiting.text('421["wait"]')
    app.on("connect", coming)
    connecting.open_websocket()
    connecting.text("40")
    app.settle(lambda: len(app.runtime._tasks) == 2)
    for session in list(app.sio.eio.sockets.values()):
        session.close(abort=True)
    app.settle(lambda: len(app.runtime._tasks) == 3)
    for _ in range(3):
        for task in list(app.runtime._tasks):
            task.cancel()
        app.sleep(0.01)
    app.gone()
    assert not [record for record in caplog.records if record.exc_info]


def test_a_websocket_whose_handshake_was_with_the_application_when_all_were_ended(
    make: Any,
) -> None:
    app = make()
    app.http.end_websockets()
    client = Client(app)
    client.open_websocket()
    client.ended()
    app.settle(lambda: not app.http.connections)
