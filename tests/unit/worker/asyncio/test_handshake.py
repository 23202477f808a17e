"""Engine.IO handshakes through the application: who answers them, and that nothing is left over."""

from __future__ import annotations

import asyncio
import gc
import re
from typing import Any

import pytest

from supervisor_sio.worker.asyncio.handshake import Handshake
from supervisor_sio.worker.connection import Connection
from supervisor_sio.worker.taker import EXCHANGE

from .rig import GET, Rig, answering, until

OPEN = b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\nCookie: a=b\r\n\r\n"
WEBSOCKET = OPEN.replace(b"polling", b"websocket").replace(
    b"Cookie: a=b",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nengine"


class Server:
    """Takes requests like the Socket.IO server, and keeps their scope."""

    def __init__(self, pause: float = 0) -> None:
        self.scopes: list[Any] = []
        self.requests: list[Any] = []
        self._pause = pause

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        request, exchange = scope[EXCHANGE].take()
        self.requests.append(request)
        await asyncio.sleep(self._pause)
        exchange.answer(ANSWER)
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b"is not sent"})


@pytest.mark.parametrize("pause", [0, 0.05])
def test_the_engine_answers_what_the_server_takes(rig: Rig, pause: float) -> None:
    server = Server(pause)
    rig.use(server)

    async def test() -> None:
        client = rig.connect()
        for _ in range(3):
            answer = await client.request(OPEN)
            assert (answer.status, answer.body) == (200, b"engine")

    rig.run(test())
    scope, request = server.scopes[0], server.requests[0]
    assert request.address == "192.0.2.1" and request.transport == "polling"
    assert request.environ()["REMOTE_ADDR"] == "192.0.2.1"
    assert request.environ()["asgi.scope"] is scope and EXCHANGE not in scope
    assert scope["path"] == "/socket.io/" and scope["client"] == ("192.0.2.1", 5)
    assert dict(scope["headers"]) == {b"host": b"x", b"cookie": b"a=b"}
    # What clients have in common is there once.
    assert scope["headers"][0] is server.scopes[1]["headers"][0]


def test_a_scope_that_is_kept_keeps_no_connection(rig: Rig) -> None:
    server = Server()
    kept: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        copy = {**scope, "user": "somebody"}  # as a middleware does it
        kept.append(copy)
        await server(copy, receive, send)

    rig.use(app)

    async def test() -> None:
        client = rig.connect()
        await client.request(OPEN)
        client.sock.close()
        del client.connection
        await until(lambda: not rig.server.connections)
        server.requests.clear()
        await asyncio.sleep(0.01)
        gc.collect()
        assert not [o for o in gc.get_objects() if isinstance(o, (Connection, Handshake))]
        with pytest.raises(RuntimeError, match="the request has ended"):
            kept[0][EXCHANGE].take()

    rig.run(test())


@pytest.mark.parametrize("request_", [OPEN, WEBSOCKET])
def test_a_middleware_refuses(rig: Rig, request_: bytes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            await answering(b"who are you", 401)(scope, receive, send)

    rig.use(app)

    async def test() -> None:
        client = rig.connect()
        await client.send(request_)
        if request_ is WEBSOCKET:
            assert (await client.ended()).startswith(b"HTTP/1.1 403 ")
            return
        answer = await client.answer()
        assert (answer.status, answer.body) == (401, b"who are you")
        assert (await client.request(GET)).status == 401  # on the same connection

    rig.run(test())


def test_another_route_streams(rig: Rig) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        gone = asyncio.ensure_future(receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        number = 0
        while not gone.done():
            number += 1
            data = b"%d\n" % number
            await send({"type": "http.response.body", "body": data, "more_body": True})
            await asyncio.sleep(0.005)
        outcome.append(gone.result()["type"])

    outcome: list[str] = []
    rig.use(app)

    async def test() -> None:
        client = rig.connect()
        await client.send(OPEN)
        await client.until(b"\n10\n")
        client.sock.close()
        await until(lambda: outcome)

    rig.run(test())
    assert outcome == ["http.disconnect"]


@pytest.mark.parametrize("taken", [False, True])
def test_the_application_fails(rig: Rig, caplog: pytest.LogCaptureFixture, taken: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if taken:
            await Server()(scope, receive, send)
        raise ValueError("a mistake")

    rig.use(app)

    async def test() -> None:
        assert (await rig.connect().request(OPEN)).status == (200 if taken else 500)

    rig.run(test())
    assert caplog.text.count("ValueError: a mistake") == 1


def test_the_application_says_nothing(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        pass

    rig.use(app)

    async def test() -> None:
        for request in (OPEN, WEBSOCKET):
            client = rig.connect()
            await client.send(request)
            assert (await client.ended()).startswith(b"HTTP/1.1 500 ")

    rig.run(test())
    assert len(caplog.records) == 2


def test_a_request_with_a_body_that_the_engine_answers(rig: Rig) -> None:
    """Of a session that has ended, or on a path that was not known yet."""
    bodies: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        _, exchange = scope[EXCHANGE].take()
        more = True
        while more:
            message = await receive()
            bodies.append(message["body"])
            more = message["more_body"]
        rig.runtime.call_soon(exchange.answer, ANSWER)

    rig.use(app)

    async def test() -> None:
        client = rig.connect()
        post = b"POST /socket.io/?EIO=4&sid=x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
        for _ in range(2):
            await client.send(post + b"40")
            await asyncio.sleep(0.02)
            await client.send(b"41")
            assert (await client.answer()).body == b"engine"

    rig.run(test())
    assert b"".join(bodies) == b"40414041"


def test_a_request_is_taken_when_its_client_is_gone(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await until(lambda: not rig.server.connections)
        taken.append(scope[EXCHANGE].take()[1])
        taken[0].answer(ANSWER)

    rig.use(app)

    async def test() -> None:
        client = rig.connect()
        await client.send(
            b"POST /socket.io/?EIO=4 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
        )
        await until(lambda: client.connection.tenant)
        client.sock.close()
        await until(lambda: taken)
        assert taken[0].ended

    rig.run(test())
    assert not caplog.records


def test_a_handshake_that_uvicorn_refuses(rig: Rig) -> None:
    """The application is not left waiting to send."""
    ended: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        with pytest.raises(OSError):
            await send({"type": "websocket.accept"})
        ended.append(1)

    rig.use(app)

    async def test() -> None:
        client = rig.connect()
        await client.send(WEBSOCKET.replace(b": 13", b": 7"))
        assert (await client.ended()).startswith(b"HTTP/1.1 4")
        await until(lambda: ended)

    rig.run(test())


def test_uvicorn_refuses_a_websocket(rig: Rig) -> None:
    """The running application gets an ordinary disconnect."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while not seen or seen[-1] != "websocket.disconnect":
            seen.append((await receive())["type"])

    seen: list[str] = []
    rig.use(app)

    async def test() -> None:
        client = rig.connect()
        await client.send(re.sub(rb"Sec-WebSocket-Key.*\r\n", b"", WEBSOCKET))
        assert (await client.ended()).startswith(b"HTTP/1.1 400 ")
        await until(lambda: "websocket.disconnect" in seen)

    rig.run(test())


def test_an_application_fails_that_has_been_refused(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        assert (await receive())["type"] == "websocket.disconnect"
        raise ValueError("of the application")

    rig.use(app)

    async def test() -> None:
        client = rig.connect()
        await client.send(re.sub(rb"Sec-WebSocket-Key.*\r\n", b"", WEBSOCKET))
        await client.ended()
        await until(lambda: "of the application" in caplog.text)
        gc.collect()

    rig.run(test())
    assert "never retrieved" not in caplog.text


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit])
def test_an_application_ends_its_task(rig: Rig, error: type[BaseException]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["query_string"]:
            raise error
        await answering()(scope, receive, send)

    rig.use(app)

    async def test() -> None:
        client = rig.connect()
        await client.send(OPEN)
        assert (await client.ended()).startswith(b"HTTP/1.1 500 ")
        assert (await rig.connect().request(GET)).body == b"served"

    rig.run(test())


def test_a_receive_that_is_given_up(rig: Rig) -> None:
    """Starlette does this to check whether the client is still connected."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        look = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        look.cancel()
        await answering()(scope, receive, send)

    rig.use(app)

    async def test() -> None:
        assert (await rig.connect().request(OPEN)).body == b"served"

    rig.run(test())


def test_a_client_is_gone_before_uvicorn_begins(rig: Rig) -> None:
    """The request ends completely: otherwise a stopping worker would wait for it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        look = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        look.cancel()
        client.connection.end()

    client: Any = None
    rig.use(app)

    async def test() -> None:
        nonlocal client
        client = rig.connect()
        await client.send(OPEN)
        await until(lambda: client.connection.ended)
        await until(lambda: not rig.runtime.busy)

    rig.run(test())
