"""Socket.IO clients on plain sockets, step by step as a browser does it.

They cost little, half of it the system's: frames are made once, and of an answer only what has to
be right is looked at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from epoll import Loop, Steps, Wire
from frames import CLOSE, PING, PONG, TEXT, Failure, first_frame, frame

RECORD_SEPARATOR = b"\x1e"

#: Those of RFC 6455, 1.3.
KEY, ACCEPT = b"dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_ACCEPT = re.compile(rb"\r\nsec-websocket-accept: *" + re.escape(ACCEPT), re.IGNORECASE)
_SID = re.compile(rb'"sid":"([^"]+)"')

_CONNECT, _PROBE, _UPGRADE, _PONG, _DISCONNECT = (
    frame(TEXT, packet) for packet in (b"40", b"2probe", b"5", b"3", b"41")
)
_ECHO_EVENT, _ECHO_ANSWER = b'421["echo","hello"]', b'431["hello"]'
_ECHO = frame(TEXT, _ECHO_EVENT)
_LEAVE = _DISCONNECT + frame(CLOSE, b"\x03\xe8")


@dataclass(frozen=True)
class Target:
    """Where clients connect, and how they ask there: like a browser, by default."""

    host: str
    port: int
    path: str = "/socket.io/"
    query: str = "EIO=4&transport={}"

    def head(self, method: str, transport: str, sid: bytes = b"") -> bytes:
        """A request without its last empty line."""
        query = self.query.format(transport) + (f"&sid={sid.decode()}" if sid else "")
        return (
            f"{method} {self.path}?{query} HTTP/1.1\r\n"
            f"Host: {self.host}:{self.port}\r\nAccept: */*\r\n"
        ).encode()


class Client:
    """One client.

    :param source: its address, if it has one of its own.
    :ivar step: how far it has got.
    """

    __slots__ = ("_get", "_loop", "_polling", "_source", "_target", "_websocket", "sid", "step")

    def __init__(self, loop: Loop, target: Target, source: str = "") -> None:
        self._loop = loop
        self._target = target
        self._source = source
        self._polling: Wire | None = None
        self._websocket: Wire | None = None
        self._get = b""
        self.step = "start"
        self.sid = b""

    @property
    def polling(self) -> Wire:
        assert self._polling is not None
        return self._polling

    @property
    def websocket(self) -> Wire:
        assert self._websocket is not None
        return self._websocket

    def open_polling(self) -> Steps[None]:
        """Handshake."""
        self.step = "handshake"
        target = self._target
        self._polling = yield from self._open(target.head("GET", "polling") + b"\r\n")
        self._take_handshake((yield from read_answer(self._polling)))
        self._get = target.head("GET", "polling", self.sid) + b"\r\n"

    def join_polling(self) -> Steps[None]:
        """Namespace connect, and the poll that brings its answer."""
        self.step = "connect"
        yield from self.post(b"40")
        self.step = "poll"
        self._take_connect((yield from self.poll()))

    def poll(self) -> Steps[bytes]:
        """The packets of the answer."""
        self.polling.write(self._get)
        return (yield from self._read_poll())

    def _read_poll(self) -> Steps[bytes]:
        """The packets that come with the pending poll, pings answered."""
        while True:
            packets = (yield from read_answer(self.polling)).split(RECORD_SEPARATOR)
            if b"2" in packets:
                packets.remove(b"2")
                yield from self.post(b"3")
            if packets:
                return RECORD_SEPARATOR.join(packets)
            self.polling.write(self._get)

    def post(self, packets: bytes) -> Steps[None]:
        self.polling.write(
            self._target.head("POST", "polling", self.sid)
            + b"Content-Type: text/plain;charset=UTF-8\r\nContent-Length: %d\r\n\r\n" % len(packets)
            + packets
        )
        body = yield from read_answer(self.polling)
        if body.lower() != b"ok":
            raise Failure(f"unexpected {body[:40]!r}")

    def upgrade(self) -> Steps[None]:
        """To the websocket, while a poll is pending."""
        self.polling.write(self._get)
        yield from self._open_websocket()

        self.step = "probe"
        self.websocket.write(_PROBE)
        yield from self._expect(b"3probe")

        self.step = "noop"
        body = yield from self._read_poll()
        if b"6" not in body.split(RECORD_SEPARATOR):
            raise Failure(f"unexpected {body[:40]!r}")
        self.websocket.write(_UPGRADE)

    def open_websocket(self) -> Steps[None]:
        """Handshake on a websocket, without polling before."""
        yield from self._open_websocket()
        self.step = "handshake"
        self._take_handshake((yield from self.receive()))

    def join_websocket(self) -> Steps[None]:
        """Namespace connect."""
        self.step = "connect"
        self.websocket.write(_CONNECT)
        self._take_connect((yield from self.receive()))

    def echo(self) -> Steps[None]:
        """An event with an ack, and its answer, on the websocket."""
        self.step = "echo"
        self.websocket.write(_ECHO)
        yield from self._expect(_ECHO_ANSWER)

    def echo_polling(self) -> Steps[None]:
        """As :meth:`echo`, in two requests."""
        self.step = "post"
        yield from self.post(_ECHO_EVENT)
        self.step = "poll"
        body = yield from self.poll()
        if body != _ECHO_ANSWER:
            raise Failure(f"unexpected {body[:40]!r}")

    def receive(self) -> Steps[bytes]:
        """The next Engine.IO packet from the websocket, pings answered, NOOPs dropped."""
        wire = self.websocket
        while True:
            while (found := first_frame(wire.data)) is None:
                yield from wire.more()
            opcode, payload, size = found
            wire.data = wire.data[size:]
            if opcode == TEXT:
                if payload == b"2":
                    wire.write(_PONG)
                elif payload != b"6":
                    return payload
            elif opcode == PING:
                wire.write(frame(PONG, payload))
            elif opcode == CLOSE:
                raise Failure("websocket closed")
            else:
                raise Failure(f"unexpected opcode {opcode}")

    def stay(self) -> Steps[None]:
        """Answer pings, until the connection fails."""
        self.step = "stay"
        if self._websocket is not None:
            while True:
                yield from self.receive()
        while True:
            yield from self.poll()

    def leave(self) -> Steps[None]:
        """Leave as a browser does and see the server hang up; one that polls does not wait."""
        self.step = "close"
        if self._websocket is None:
            yield from self.post(b"1")
            return
        self.websocket.write(_LEAVE)
        while not self.websocket.ended:
            try:
                yield from self.receive()
            except Failure:
                break

    def stop_polling(self) -> None:
        """Close the connection of the polls; after an upgrade a client has no use for it."""
        self.polling.close()

    def close(self) -> None:
        for wire in (self._polling, self._websocket):
            if wire is not None:
                wire.close()

    def _open(self, first: bytes) -> Steps[Wire]:
        target = self._target
        return (yield from self._loop.open(target.host, target.port, first, self._source))

    def _open_websocket(self) -> Steps[None]:
        self.step = "upgrade"
        request = self._target.head("GET", "websocket", self.sid) + (
            b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n" % KEY
        )
        self._websocket = yield from self._open(request)
        head = yield from self._websocket.take_until(b"\r\n\r\n")
        if head[9:12] != b"101":
            body = yield from read_body(self._websocket, head)
            raise _refused(head, body)
        if not _ACCEPT.search(head):
            raise Failure("wrong Sec-WebSocket-Accept")

    def _expect(self, packet: bytes) -> Steps[None]:
        came = yield from self.receive()
        if came != packet:
            raise Failure(f"unexpected {came[:40]!r}")

    def _take_handshake(self, packet: bytes) -> None:
        found = _SID.search(packet)
        if found is None or not packet.startswith(b"0{"):
            raise Failure(f"unexpected {packet[:40]!r}")
        self.sid = found[1]

    @staticmethod
    def _take_connect(packets: bytes) -> None:
        if b'40{"sid"' not in packets:
            raise Failure(f"unexpected {packets[:40]!r}")


def read_answer(wire: Wire) -> Steps[bytes]:
    """The body of a 200; anything else is a failure."""
    head = yield from wire.take_until(b"\r\n\r\n")
    body = yield from read_body(wire, head)
    if head[9:12] != b"200":
        raise _refused(head, body)
    return body


def read_body(wire: Wire, head: bytes) -> Steps[bytes]:
    length = _LENGTH.search(head)
    if length is not None:
        return (yield from wire.take(int(length[1])))
    body = b""
    if _CHUNKED.search(head):
        while size := int((yield from wire.take_until(b"\r\n")), 16):
            body += yield from wire.take(size)
            yield from wire.take(2)
        yield from wire.take(2)
    return body


def _refused(head: bytes, body: bytes) -> Failure:
    status = head[9:12].decode("latin-1")
    if not head.startswith(b"HTTP/1."):
        return Failure(f"not HTTP: {head[:40]!r}")
    return Failure(f"HTTP {status} {body[:60].decode('latin-1')}".strip())
