"""Requests through an ASGI application: what it sees, and what a request may cost."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import resource
import socket
import weakref
from contextvars import ContextVar
from typing import Any

import pytest

from supervisor_sio.common.reasons import PROTOCOL, TOO_SLOW
from supervisor_sio.worker import patience
from supervisor_sio.worker.application import ApplicationError
from supervisor_sio.worker.asyncio import asgi, transport
from supervisor_sio.worker.refused import refusals

from .rig import GET, Rig, answering, post, until

START = {"type": "http.response.start", "status": 200, "headers": []}
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def part(data: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": True}


async def read_body(receive: Any) -> bytes:
    pieces = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        pieces.append(message["body"])
        if not message["more_body"]:
            return b"".join(pieces)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body = await read_body(receive)
    await answering(body)(scope, receive, send)


def test_requests_on_a_kept_connection(rig: Rig) -> None:
    seen: list[Any] = []
    rig.use(answering(seen=seen))

    async def test() -> None:
        client = rig.connect()
        for target in (b"/a%20b?c=d", b"/", b"http://other.example/e"):
            answer = await client.request(b"GET %b HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n" % target)
            assert (answer.status, answer.body) == (200, b"served")
            assert answer.fields[b"date"].endswith(b"gmt")
            assert b"server" not in answer.fields and b"connection" not in answer.fields

    rig.run(test())
    first, _, last = seen
    assert first["path"] == "/a b" and first["raw_path"] == b"/a%20b"
    assert first["query_string"] == b"c=d"
    assert first["client"] == ("192.0.2.1", 5) and first["server"] == ("192.0.2.2", 80)
    assert first["scheme"] == "http" and first["http_version"] == "1.1"
    assert first["headers"] == [(b"host", b"x"), (b"a", b"b")]
    assert first["state"] == {}
    assert last["path"] == "/e" and last["headers"][0] == (b"host", b"other.example")


def test_the_client_behind_tls_is_the_real_one(rig: Rig) -> None:
    seen: list[Any] = []
    rig.use(answering(seen=seen))

    async def test() -> None:
        for peer in (("2001:db8::1", 7, 0, 0), ""):
            await rig.connect(peer, scheme="https").request(GET)

    rig.run(test())
    assert [scope["scheme"] for scope in seen] == ["https", "https"]
    assert [scope["client"] for scope in seen] == [("2001:db8::1", 7), None]


def test_pipelined_requests_are_answered_in_order(rig: Rig) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.01)
        await answering(scope["path"].encode())(scope, receive, send)

    rig.use(app)

    async def test() -> None:
        client = rig.connect()
        await client.send(b"".join(GET.replace(b"/", b"/%d" % n, 1) for n in range(20)))
        assert [(await client.answer()).body for _ in range(20)] == [b"/%d" % n for n in range(20)]

    rig.run(test())


def test_each_request_is_looked_at_by_the_worker(rig: Rig) -> None:
    """A request of another worker's session goes back to the router, also a pipelined one."""
    rig.use(answering())
    rig.kept = lambda request: not request.tag
    other = b"GET /socket.io/?EIO=4&sid=other.x HTTP/1.1\r\nHost: x\r\n\r\n"

    async def test() -> None:
        client = rig.connect()
        await client.send(GET + other)
        assert (await client.answer()).body == b"served"
        await until(lambda: rig.handed_back)

    rig.run(test())
    assert rig.handed_back == [other]


@pytest.mark.parametrize("size", [0, 5, 70_000, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_bodies(rig: Rig, size: int, chunked: bool) -> None:
    rig.use(echo)
    body = (bytes(range(251)) * (size // 251 + 1))[:size]

    async def test() -> None:
        client = rig.connect()
        for _ in range(2):
            if chunked:
                pieces = [body[at : at + 10_000] for at in range(0, size, 10_000)]
                framed = b"".join(b"%X;x=y\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
                sending = client.send(CHUNKED + framed + b"0\r\nTrailer: x\r\n\r\n")
            else:
                sending = client.send(post(size) + body)
            sent = asyncio.ensure_future(sending)
            answer = await client.answer()
            await sent
            assert answer.status == 200 and answer.body == body

    rig.run(test())


def test_an_upload_of_100_megabytes_takes_no_memory(rig: Rig) -> None:
    digest = hashlib.sha256()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            digest.update(message["body"])
            if not message["more_body"]:
                break
        await answering(b"done")(scope, receive, send)

    rig.use(app)
    block = bytes(range(256)) * 4096  # 1 MiB

    async def test() -> None:
        client = rig.connect()
        await client.send(post(100 * len(block)))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        expected = hashlib.sha256()
        for _ in range(100):
            expected.update(block)
            await client.send(block)
        assert (await client.answer()).body == b"done"
        assert digest.digest() == expected.digest()
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024

    rig.run(test())


def test_an_application_that_does_not_read_stops_its_client(rig: Rig) -> None:
    size = 50_000_000
    go_on: list[asyncio.Event] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go_on[0].wait()
        await echo(scope, receive, send)

    rig.use(app)

    async def test() -> None:
        go_on.append(asyncio.Event())
        client = rig.connect()
        sending = asyncio.ensure_future(client.send(post(size) + bytes(size)))
        await asyncio.sleep(0.3)
        assert not sending.done()
        go_on[0].set()
        assert len((await client.answer()).body) == size

    rig.run(test())


def test_a_client_that_does_not_read_stops_the_application(rig: Rig) -> None:
    sent = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send(START)
        for _ in range(500):
            await send(part(bytes(100_000)))
            sent += 1
        await send({"type": "http.response.body"})

    rig.use(app)

    async def test() -> None:
        client = rig.connect()
        await client.send(GET)
        await until(lambda: sent)
        await asyncio.sleep(0.2)
        assert sent < 20
        assert len((await client.answer()).body) == 50_000_000

    rig.run(test())


def test_a_client_that_takes_nothing_is_cut_off(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "STALLED_SECONDS", 0.2)
    outcome: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        gone = asyncio.ensure_future(receive())
        await send(START)
        while not gone.done():
            await send(part(bytes(100_000)))
        outcome.append(gone.result()["type"])

    rig.use(app)
    before = refusals.by_reason[TOO_SLOW]

    async def test() -> None:
        await rig.connect().send(GET)
        await until(lambda: outcome)

    rig.run(test())
    assert outcome == ["http.disconnect"]
    assert refusals.by_reason[TOO_SLOW] == before + 1


@pytest.mark.parametrize("request_", [post(10) + b"12345", CHUNKED + b"a\r\n12345"])
def test_a_client_that_sends_no_body_is_cut_off(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, request_: bytes
) -> None:
    monkeypatch.setattr(patience, "BODY_GRACE_SECONDS", 0.2)
    outcome: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await read_body(receive)
        except ConnectionError as error:
            outcome.append(error)

    rig.use(app)
    before = refusals.by_reason[TOO_SLOW]

    async def test() -> None:
        client = rig.connect()
        await client.send(request_)
        assert await client.ended() == b""
        await until(lambda: outcome)

    rig.run(test())
    assert refusals.by_reason[TOO_SLOW] == before + 1


def test_time_that_the_application_takes_is_not_the_clients(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "BODY_GRACE_SECONDS", 0.3)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await asyncio.sleep(0.6)
        await echo(scope, receive, send)

    rig.use(app)

    async def test() -> None:
        client = rig.connect()
        await client.send(post(10) + b"12345")
        await asyncio.sleep(0.5)
        await client.send(b"67890")
        assert (await client.answer()).status == 200

    rig.run(test())


def test_expect(rig: Rig) -> None:
    rig.use(echo)

    async def test() -> None:
        client = rig.connect()
        await client.send(post(5).replace(b"Host", b"Expect: 100-continue\r\nHost"))
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue"
        await client.send(b"hello")
        assert (await client.answer()).body == b"hello"
        assert (await client.request(GET)).status == 200

    rig.run(test())


def test_a_refusal_without_the_expected_body_closes(rig: Rig) -> None:
    rig.use(answering(status=413))

    async def test() -> None:
        client = rig.connect()
        await client.send(post(5).replace(b"Host", b"Expect: 100-continue\r\nHost"))
        assert (await client.answer()).status == 413
        assert await client.ended() == b""

    rig.run(test())


def test_what_is_left_unread_of_a_short_body_keeps_the_connection(rig: Rig) -> None:
    rig.use(answering(status=404))

    async def test() -> None:
        client = rig.connect()
        body = bytes(60_000)
        for request, rest in ((post(60_000), body), (CHUNKED, b"ea60\r\n%b\r\n0\r\n\r\n" % body)):
            assert (await client.request(request)).status == 404
            await client.send(rest)
        assert (await client.request(post(200_000))).status == 404
        await client.send(bytes(100_000))
        assert await client.ended() == b""

    rig.run(test())


def test_chunks_that_are_not_valid(rig: Rig) -> None:
    outcome: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await read_body(receive)
        except ConnectionError as error:
            outcome.append(error)

    rig.use(app)
    before = refusals.by_reason[PROTOCOL]

    async def test() -> None:
        client = rig.connect()
        await client.send(CHUNKED + b"5\r\nhello\r\n")
        await client.send(b"-5\r\nhello\r\n" + GET)
        assert (await client.ended()).startswith(b"HTTP/1.1 400 ")
        await until(lambda: outcome)

    rig.run(test())
    assert refusals.by_reason[PROTOCOL] == before + 1


def test_head_and_no_content(rig: Rig) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "HEAD":
            await answering(b"12345")(scope, receive, send)
        else:
            await send({**START, "status": 204})
            await send({"type": "http.response.body"})

    rig.use(app)

    async def test() -> None:
        client = rig.connect()
        await client.send(GET.replace(b"GET", b"HEAD"))
        assert (await client.answer(has_body=False)).fields[b"content-length"] == b"5"
        assert (await client.request(GET)).status == 204
        await client.send(GET.replace(b"GET", b"HEAD"))
        assert (await client.answer(has_body=False)).status == 200

    rig.run(test())


def test_http_1_0(rig: Rig) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["http_version"] == "1.0"
        await send(START)
        await send(part(b"some"))
        await send({"type": "http.response.body", "body": b"thing"})

    rig.use(app)

    async def test() -> None:
        client = rig.connect()
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        head, _, body = (await client.ended()).partition(b"\r\n\r\n")
        assert body == b"something" and b"chunked" not in head.lower()

    rig.run(test())


def test_a_client_that_wants_the_connection_closed(rig: Rig) -> None:
    rig.use(answering())

    async def test() -> None:
        client = rig.connect()
        await client.send(GET.replace(b"Host", b"Connection: close\r\nHost"))
        assert (await client.ended()).endswith(b"served")

    rig.run(test())


def test_an_event_stream_ends_with_its_client(rig: Rig) -> None:
    outcome: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        gone = asyncio.ensure_future(receive())
        await send(START)
        number = 0
        while not gone.done():
            number += 1
            await send(part(b"data: %d\n\n" % number))
            await asyncio.sleep(0.01)
        outcome.append(gone.result()["type"])

    rig.use(app)

    async def test() -> None:
        client = rig.connect()
        await client.send(GET)
        await client.until(b"data: 5\n\n")
        client.sock.close()
        await until(lambda: outcome)

    rig.run(test())
    assert outcome == ["http.disconnect"]


def test_background_tasks_do_not_delay_the_next_request(rig: Rig) -> None:
    done: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answering()(scope, receive, send)
        await asyncio.sleep(0.3)
        done.append((await receive())["type"])

    rig.use(app)

    async def test() -> None:
        client = rig.connect()
        for _ in range(3):
            assert (await client.request(GET)).status == 200
        assert not done and rig.application.busy
        await until(lambda: not rig.application.busy)

    rig.run(test())
    assert done == ["http.disconnect"] * 3


@pytest.mark.parametrize("begun", [False, True])
def test_an_application_that_fails(rig: Rig, caplog: pytest.LogCaptureFixture, begun: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if begun:
            await send(START)
            await send(part(b"some"))
        raise ValueError("a mistake")

    rig.use(app)

    async def test() -> None:
        client = rig.connect()
        await client.send(GET)
        head, _, body = (await client.ended()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 " if begun else b"HTTP/1.1 500 ")
        assert body == (b"4\r\nsome\r\n" if begun else b"Internal Server Error")

    rig.run(test())
    assert caplog.text.count("ValueError: a mistake") == 1


def test_an_application_that_never_answers(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "HALF_CLOSED_SECONDS", 0.1)
    outcome: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        outcome.append((await receive())["type"])

    rig.use(app)

    async def test() -> None:
        client = rig.connect()
        await client.send(GET)
        await asyncio.sleep(0.1)
        assert rig.server.connections == 1 and not outcome
        client.sock.close()
        await until(lambda: outcome and not rig.server.connections)

    rig.run(test())


def test_a_client_that_has_ended_its_side_gets_an_answer(rig: Rig) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.1)
        await echo(scope, receive, send)

    rig.use(app)

    async def test() -> None:
        client = rig.connect()
        await client.send(post(5) + b"hello")
        client.sock.shutdown(socket.SHUT_WR)
        assert (await client.ended()).endswith(b"hello")

    rig.run(test())


def test_a_client_that_ends_with_its_body_is_gone_soon(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body and the end arrive in one turn of the loop, while the application waits."""
    monkeypatch.setattr(asgi, "HALF_CLOSED_SECONDS", 0.1)
    outcome: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await read_body(receive) == b"hello"
        outcome.append((await receive())["type"])

    rig.use(app)

    async def test() -> None:
        client = rig.connect()
        await client.send(post(5))
        await until(lambda: client.connection.tenant)
        await asyncio.sleep(0.02)
        client.sock.send(b"hello")
        client.sock.close()
        await until(lambda: outcome)

    rig.run(test())
    assert outcome == ["http.disconnect"]


@pytest.mark.parametrize("request_", [post(5) + b"hel", CHUNKED + b"5\r\nhel"])
def test_a_body_that_breaks_off(
    rig: Rig, caplog: pytest.LogCaptureFixture, request_: bytes
) -> None:
    rig.use(echo)

    async def test() -> None:
        client = rig.connect()
        await client.send(request_)
        client.sock.shutdown(socket.SHUT_WR)
        assert (await client.ended()).startswith(b"HTTP/1.1 400 ")

    rig.run(test())
    assert not caplog.records


def test_what_an_application_says_of_a_client_that_is_gone_is_not_news(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await read_body(receive)
        finally:
            ended.append(1)

    rig.use(app)

    async def test() -> None:
        client = rig.connect()
        await client.send(post(5))
        client.sock.close()
        await until(lambda: ended)
        await asyncio.sleep(0.01)

    rig.run(test())
    assert not caplog.records


def test_an_upgrade_to_something_else_is_a_plain_request(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """No log line is written, and a request with a body does not become a websocket."""
    seen: list[Any] = []
    rig.use(answering(seen=seen))
    caplog.set_level(logging.DEBUG)
    h2c = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nHost"
    websocket = b"Connection: Upgrade\r\nUpgrade: websocket\r\nHost"

    async def test() -> None:
        client = rig.connect()
        assert (await client.request(GET.replace(b"Host", h2c))).status == 200
        request = post(5).replace(b"Host", websocket) + b"hello"
        assert (await client.request(request)).status == 200
        assert (await client.request(GET)).status == 200

    rig.run(test())
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]
    assert not any(b"upgrade" in dict(scope["headers"]) for scope in seen)


def test_context_variables_of_a_request_end_with_it(rig: Rig) -> None:
    user: ContextVar[str] = ContextVar("user")
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(user.get(None))
        user.set("somebody")
        await answering()(scope, receive, send)

    rig.use(app)

    async def test() -> None:
        client = rig.connect()
        await client.send(GET + GET)
        for _ in range(2):
            await client.answer()
        await client.request(GET)

    rig.run(test())
    assert seen == [None] * 3


def test_nothing_is_left_of_a_request(rig: Rig) -> None:
    kept: list[Any] = []

    class Big:
        pass

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["big"] = big = Big()
        kept.append(weakref.ref(big))
        await answering()(scope, receive, send)

    rig.use(app)

    async def test() -> None:
        client = rig.connect()
        await client.request(GET)
        await until(lambda: client.connection.tenant is None)
        gc.collect()
        assert kept[0]() is None

    rig.run(test())


# --- lifespan ---------------------------------------------------------------------------


def test_the_lifespan_has_a_state(rig: Rig) -> None:
    events: list[str] = []
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                event = (await receive())["type"]
                events.append(event)
                scope["state"]["pool"] = "a pool"
                await send({"type": f"{event}.complete"})
            return
        await answering(seen=seen)(scope, receive, send)

    rig.use(app)

    async def test() -> None:
        await rig.application.start_up()
        await rig.connect().request(GET)
        await rig.application.shut_down()

    rig.run(test())
    assert seen[0]["state"] == {"pool": "a pool"}
    assert events == ["lifespan.startup", "lifespan.shutdown"]


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ("before", ["startup", "shutdown"]),
        ("after", ["startup", "shutdown"]),
        ("never", ["startup", "cancelled"]),
    ],
)
def test_a_worker_that_is_stopped_during_startup(rig: Rig, ends: str, expected: list[str]) -> None:
    """The shutdown follows if the startup has finished meanwhile; otherwise it is cancelled."""
    events: list[str] = []
    may_end = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(2):
            events.append((await receive())["type"].partition(".")[2])
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                events.append("cancelled")
                raise
            await send({"type": f"lifespan.{events[-1]}.complete"})

    rig.use(app)

    async def test() -> None:
        starting = asyncio.ensure_future(rig.application.start_up())
        while not events:
            await asyncio.sleep(0)
        if ends == "before":
            may_end.set()
            await asyncio.sleep(0)
        starting.cancel()
        if ends == "after":
            may_end.set()
        await asyncio.wait([starting])
        assert starting.cancelled()
        for _ in range(3):
            await asyncio.sleep(0)
        await rig.application.shut_down()
        while events != expected:
            await asyncio.sleep(0)

    rig.run(asyncio.wait_for(test(), 20))


def test_a_startup_that_fails_is_told_in_one_line(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        message = "Traceback (most recent call last):\n  there\nValueError: no database\n"
        await send({"type": "lifespan.startup.failed", "message": message})

    rig.use(app)

    async def test() -> None:
        with pytest.raises(ApplicationError) as caught:
            await rig.application.start_up()
        assert str(caught.value) == "the application's startup failed: ValueError: no database"
        assert "there" in caught.value.detail
        await rig.application.shut_down()

    rig.run(test())
    assert "database" not in caplog.text


def test_an_application_without_a_lifespan(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.use(answering())

    async def test() -> None:
        await rig.application.start_up()
        assert (await rig.connect().request(GET)).status == 200
        await rig.application.shut_down()

    rig.run(test())
    assert not caplog.records


def test_who_sends_on_to_nobody_does_not_stop_the_loop(rig: Rig) -> None:
    sent: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/":
            await echo(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(20_000):
            sent.append(number)
            await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})

    rig.use(app)

    async def test() -> None:
        client = rig.connect()
        await client.send(GET.replace(b"/", b"/stream", 1))
        await client.until(b"x" * 1000)
        client.sock.close()
        await until(lambda: not rig.server.connections)
        assert (await rig.connect().request(GET)).status == 200
        assert len(sent) < 10_000
        await until(lambda: not rig.runtime.busy, 20)

    rig.run(test())
