"""Websockets of the application itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from wsproto import ConnectionType, WSConnection, events

from supervisor_sio.worker.asyncio import transport

from .rig import GET, Client, Rig, answering, until

HANDSHAKE = (
    b"GET /ws?a=b HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: one, two\r\n\r\n"
)


class Frames:
    """A websocket client, from its handshake on."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._frames = WSConnection(ConnectionType.CLIENT)
        # The handshake is not the test's: what follows it is.
        request = events.Request(host="x", target="/", subprotocols=["one", "two"])
        self._key = self._frames.send(request)

    async def connect(self, early: bytes = b"") -> None:
        await self._client.send(self._key + early)

    def frame(self, event: events.Event) -> bytes:
        return self._frames.send(event)

    async def send(self, event: events.Event) -> None:
        await self._client.send(self._frames.send(event))

    async def next(self) -> events.Event:
        while True:
            for event in self._frames.events():
                if not isinstance(event, events.Ping):
                    return event
            if not self._client.data:
                await self._client._read("a frame")
            data, self._client.data = self._client.data, b""
            self._frames.receive_data(data)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await answering()(scope, receive, send)
        return
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][-1]})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            scopes.append((scope, message["code"]))
            return
        await send({**message, "type": "websocket.send"})


scopes: list[Any] = []


@pytest.fixture(autouse=True)
def no_scopes() -> None:
    scopes.clear()


def test_messages_both_ways(rig: Rig) -> None:
    rig.use(echo)

    async def test() -> None:
        client = rig.connect(scheme="https")
        assert (await client.request(GET)).status == 200  # before it, on the same connection
        frames = Frames(client)
        await frames.connect()
        accepted = await frames.next()
        assert isinstance(accepted, events.AcceptConnection) and accepted.subprotocol == "two"
        assert client.connection.upgraded
        for size in (1, 70_000, 1_000_000):
            sending = asyncio.ensure_future(frames.send(events.BytesMessage(data=bytes(size))))
            got = 0
            while got < size:
                event = await frames.next()
                assert isinstance(event, events.BytesMessage)
                got += len(event.data)
            await sending
        await frames.send(events.TextMessage(data="é"))
        event = await frames.next()
        assert isinstance(event, events.TextMessage) and event.data == "é"
        await frames.send(events.CloseConnection(code=4000))
        assert isinstance(await frames.next(), events.CloseConnection)
        await client.ended()
        await until(lambda: scopes)

    rig.run(test())
    scope, code = scopes[0]
    assert code == 4000 and scope["scheme"] == "wss" and scope["client"] == ("192.0.2.1", 5)
    assert "supervisor_sio.exchange" not in scope and scope["state"] == {}


def test_frames_right_behind_the_handshake(rig: Rig) -> None:
    rig.use(echo)

    async def test() -> None:
        client = rig.connect()
        mask = b"\x00" * 4
        await client.send(HANDSHAKE + b"\x81\x85" + mask + b"hello" + b"\x81\x81" + mask + b"!")
        await client.until(b"\r\n\r\n")
        assert await client.take(10) == b"\x81\x05hello\x81\x01!"

    rig.run(test())


def test_the_application_refuses(rig: Rig) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.close"})

    rig.use(app)

    async def test() -> None:
        client = rig.connect()
        await client.send(HANDSHAKE)
        assert (await client.ended()).startswith(b"HTTP/1.1 403 ")

    rig.run(test())


def test_a_handshake_that_is_not_one(rig: Rig) -> None:
    rig.use(echo)

    async def test() -> None:
        for bad in (HANDSHAKE.replace(b": 13", b": 12"), HANDSHAKE.replace(b"-Key", b"-Ki")):
            client = rig.connect()
            await client.send(bad)
            assert (await client.ended()).startswith(b"HTTP/1.1 4")

    rig.run(test())


def test_the_application_fails(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        raise ValueError("a mistake")

    rig.use(app)

    async def test() -> None:
        client = rig.connect()
        await client.send(HANDSHAKE)
        assert (await client.ended()).startswith(b"HTTP/1.1 101 ")

    rig.run(test())
    assert caplog.text.count("ValueError: a mistake") == 1


def test_a_client_that_goes_without_a_word(rig: Rig) -> None:
    rig.use(echo)

    async def test() -> None:
        client = rig.connect()
        await client.send(HANDSHAKE)
        await client.until(b"\r\n\r\n")
        client.sock.close()
        await until(lambda: scopes and not rig.server.connections)

    rig.run(test())


def test_a_worker_that_drains_ends_them_with_1012(rig: Rig) -> None:
    rig.use(echo)

    async def test() -> None:
        frames = Frames(rig.connect())
        await frames.connect()
        await frames.next()
        rig.server.draining = True
        rig.server.end_websockets()
        event = await frames.next()
        assert isinstance(event, events.CloseConnection) and event.code == 1012
        await until(lambda: scopes)
        assert scopes[0][1] == 1012

    rig.run(test())


def test_one_that_comes_when_all_were_ended(rig: Rig) -> None:
    rig.use(echo)

    async def test() -> None:
        client = rig.connect()
        await until(lambda: rig.server.connections)
        rig.server.draining = True
        rig.server.end_websockets()
        await client.send(HANDSHAKE)
        await until(lambda: scopes and not rig.server.connections)

    rig.run(test())


def test_pings_of_a_client_that_takes_no_pongs_take_no_memory(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "READING_STOPS", 10_000)
    rig.use(echo)

    async def test() -> None:
        client = rig.connect()
        await client.send(HANDSHAKE)
        await client.until(b"\r\n\r\n")
        ping = b"\x89\xfd" + bytes(4 + 125)
        flood = asyncio.ensure_future(client.send(ping * 50_000))
        await asyncio.sleep(0.3)
        tenant: Any = client.connection.tenant
        assert not flood.done() and tenant._transport.get_write_buffer_size() < 50_000
        got = 0
        while got < 50_000 * 127:
            got += len(await asyncio.wait_for(client._loop.sock_recv(client.sock, 1 << 20), 20))
        await flood

    rig.run(test())


def test_many_small_messages_wait_in_the_system(rig: Rig) -> None:
    """They do not all fill the queue of a slow application."""
    go_on: list[asyncio.Event] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await go_on[0].wait()
        for _ in range(20_000):
            await receive()
        await send({"type": "websocket.send", "text": "done"})

    rig.use(app)

    async def test() -> None:
        go_on.append(asyncio.Event())
        client = rig.connect()
        await client.send(HANDSHAKE)
        await client.until(b"\r\n\r\n")
        flood = asyncio.ensure_future(
            client.send((b"\x81\x94\x00\x00\x00\x00" + b"x" * 20) * 20_000)
        )
        await asyncio.sleep(0.2)
        tenant: Any = client.connection.tenant
        assert tenant._protocol.queue.qsize() < 1000 and not flood.done()
        go_on[0].set()
        assert await client.take(6) == b"\x81\x04done"
        await flood

    rig.run(test())
