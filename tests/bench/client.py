"""A Socket.IO client on asyncio, step by step as a browser does it.

raw_clients.py has one that costs less.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import socket
from typing import Any

from frames import CLOSE, PING, PONG, TEXT, Failure, frame

RECORD_SEPARATOR = "\x1e"
WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Wire(asyncio.Protocol):
    """A client connection with a read buffer."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._arrived: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        self._transport: asyncio.Transport | None = None
        self.ended = False

    @classmethod
    async def open(cls, host: str, port: int) -> Wire:
        _, wire = await asyncio.get_running_loop().create_connection(cls, host, port)
        return wire

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._wake()

    def eof_received(self) -> None:
        self.ended = True
        self._wake()

    def connection_lost(self, error: BaseException | None) -> None:
        self.ended = True
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()

    def detach(self) -> tuple[socket.socket, bytes]:
        """The connection as a socket of its own, and what was read and not used."""
        assert self._transport is not None
        sock = self._transport.get_extra_info("socket").dup()
        self._transport.abort()
        return sock, bytes(self._buffer)

    async def _more(self) -> None:
        if self.ended:
            raise Failure("reset" if isinstance(self._error, OSError) else "closed")
        self._arrived = asyncio.get_running_loop().create_future()
        try:
            await self._arrived
        finally:
            self._arrived = None

    async def read_until(self, separator: bytes) -> bytes:
        """The bytes before the separator, which is dropped."""
        while (end := self._buffer.find(separator)) < 0:
            await self._more()
        data = bytes(self._buffer[:end])
        del self._buffer[: end + len(separator)]
        return data

    async def read_exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._more()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def read_head(self) -> tuple[int, dict[str, str]]:
        lines = (await self.read_until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        parts = lines[0].split(" ", 2)
        if len(parts) < 2 or not parts[1].isdigit():
            raise Failure(f"not HTTP: {lines[0][:40]!r}")
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return int(parts[1]), headers

    async def read_body(self, headers: dict[str, str]) -> str:
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await self.read_until(b"\r\n"), 16):
                body += await self.read_exactly(size)
                await self.read_until(b"\r\n")
            await self.read_until(b"\r\n")
        else:
            body = await self.read_exactly(int(headers.get("content-length", "0")))
        return body.decode()

    async def read_response(self) -> str:
        """The body of a 200; anything else is a failure."""
        status, headers = await self.read_head()
        body = await self.read_body(headers)
        if status != 200:
            raise Failure(f"HTTP {status} {body[:60]}".strip())
        return body


class Session:
    """One client. `step` says how far it got.

    :param query: of its requests; like this a browser asks.
    """

    def __init__(
        self,
        host: str,
        port: int,
        path: str = "/socket.io/",
        query: str = "EIO=4&transport={}",
    ) -> None:
        self.host = host
        self.port = port
        self.path = path
        self.query = query
        self.step = "start"
        self.sid = ""  # of Engine.IO
        self.socket_sid = ""  # of Socket.IO, in the main namespace
        self._polling: Wire | None = None
        self._websocket: Wire | None = None

    @property
    def polling(self) -> Wire:
        assert self._polling is not None
        return self._polling

    @property
    def websocket(self) -> Wire:
        assert self._websocket is not None
        return self._websocket

    def _head(self, method: str, transport: str) -> str:
        sid = f"&sid={self.sid}" if self.sid else ""
        return (
            f"{method} {self.path}?{self.query.format(transport)}{sid} HTTP/1.1\r\n"
            f"Host: {self.host}:{self.port}\r\nAccept: */*\r\n"
        )

    def _get(self) -> None:
        self.polling.write((self._head("GET", "polling") + "\r\n").encode())

    def _post(self, body: str) -> None:
        head = self._head("POST", "polling")
        fields = f"Content-Type: text/plain;charset=UTF-8\r\nContent-Length: {len(body)}\r\n\r\n"
        self.polling.write((head + fields + body).encode())

    async def connect_polling(self) -> None:
        """Handshake, namespace connect and the poll that brings its answer."""
        self.step = "handshake"
        self._polling = await Wire.open(self.host, self.port)
        self._get()
        body = await self.polling.read_response()
        if not body.startswith("0{"):
            raise Failure(f"unexpected {body[:40]!r}")
        self.sid = json.loads(body[1:])["sid"]

        self.step = "connect"
        self._post("40")
        body = await self.polling.read_response()
        if body.lower() != "ok":
            raise Failure(f"unexpected {body[:40]!r}")

        self.step = "poll"
        self._get()
        body = await self.polling.read_response()
        self._connected(body)

    def _connected(self, packets: str) -> None:
        for packet in packets.split(RECORD_SEPARATOR):
            if packet.startswith('40{"sid"'):
                self.socket_sid = json.loads(packet[2:])["sid"]
                return
        raise Failure(f"unexpected {packets[:40]!r}")

    async def connect_websocket(self) -> None:
        """Handshake and namespace connect on a websocket, without polling before."""
        await self.open_websocket()
        self.step = "connect"
        self.send("40")
        self._connected(await self.receive())

    async def open_websocket(self) -> None:
        """The handshake of connect_websocket."""
        await self._request_websocket()
        self.step = "handshake"
        packet = await self.receive()
        if not packet.startswith("0{"):
            raise Failure(f"unexpected {packet[:40]!r}")
        self.sid = json.loads(packet[1:])["sid"]

    async def upgrade(self) -> None:
        """To the websocket, while a poll is pending."""
        self._get()
        await self._request_websocket()

        self.step = "probe"
        self.send("2probe")
        if (packet := await self.receive()) != "3probe":
            raise Failure(f"unexpected {packet[:40]!r}")

        self.step = "noop"
        body = await self.polling.read_response()
        if "6" not in body.split(RECORD_SEPARATOR):
            raise Failure(f"unexpected {body[:40]!r}")
        self.send("5")

    async def _request_websocket(self) -> None:
        self.step = "upgrade"
        self._websocket = await Wire.open(self.host, self.port)
        key = base64.b64encode(os.urandom(16))
        self.websocket.write(
            (
                self._head("GET", "websocket") + "Connection: Upgrade\r\nUpgrade: websocket\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key.decode()}\r\n\r\n"
            ).encode()
        )
        status, headers = await self.websocket.read_head()
        if status != 101:
            body = await self.websocket.read_body(headers)
            raise Failure(f"HTTP {status} {body[:60]}".strip())
        accept = base64.b64encode(hashlib.sha1(key + WEBSOCKET_GUID).digest())
        if headers.get("sec-websocket-accept") != accept.decode():
            raise Failure("wrong Sec-WebSocket-Accept")

    def send(self, packet: str) -> None:
        self.websocket.write(frame(TEXT, packet.encode()))

    async def receive(self) -> str:
        """The next Engine.IO packet from the websocket, pings answered, NOOPs dropped."""
        while True:
            first, size = await self.websocket.read_exactly(2)
            if size == 126:
                size = int.from_bytes(await self.websocket.read_exactly(2), "big")
            elif size == 127:
                size = int.from_bytes(await self.websocket.read_exactly(8), "big")
            payload = await self.websocket.read_exactly(size)
            opcode = first & 0x0F
            if opcode == TEXT:
                packet = payload.decode()
                if packet == "2":
                    self.send("3")
                elif packet != "6":
                    return packet
            elif opcode == PING:
                self.websocket.write(frame(PONG, payload))
            elif opcode == CLOSE:
                raise Failure("websocket closed")
            else:
                raise Failure(f"unexpected opcode {opcode}")

    async def ask(self, event: str, *args: Any) -> Any:
        """Emit with an ack: the answer; other events that come meanwhile are dropped."""
        self.step = event
        self.send("421" + json.dumps([event, *args]))
        while True:
            packet = await self.receive()
            if packet.startswith("431"):
                answer = json.loads(packet[3:])
                return answer[0] if answer else None

    def close(self) -> None:
        for wire in (self._polling, self._websocket):
            if wire is not None:
                wire.close()
