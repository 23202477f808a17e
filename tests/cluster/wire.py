"""Engine.IO as it is on the wire: single requests, polls that wait, and websockets.

For tests that look at an answer's status, headers and bytes, or at what ends a connection.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Union
from urllib.parse import urlencode

from .websocket_cases import BINARY, CLOSE, NO_CODE, PING, PONG, TEXT, frame

TIMEOUT = 20.0
SEPARATOR = "\x1e"
PATH = "/socket.io/"

#: The key and what it is answered with, of RFC 6455, section 1.3.
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@dataclass(frozen=True)
class Answer:
    """``headers`` by their names in lower case; one that comes twice is joined with a comma."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def packets(self) -> list[str]:
        assert self.status == 200, self
        return self.text.split(SEPARATOR)

    @property
    def refusal(self) -> tuple[int, int, str]:
        """Status, code and message of a refused request."""
        value = json.loads(self.body)
        assert set(value) == {"code", "message"}, value
        return self.status, value["code"], value["message"]


class Request:
    """A request that is on its way; its answer is read when it is asked for.

    :param length: what Content-Length says, where that is not the body's.
    :param timeout: seconds to wait for each part of the answer.
    """

    def __init__(
        self,
        port: int,
        method: str,
        target: str,
        body: str = "",
        headers: Mapping[str, str] | None = None,
        length: int | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        data = body.encode()
        lines = {"Host": f"127.0.0.1:{port}", **(headers or {})}
        if method not in ("GET", "OPTIONS") or data:
            lines["Content-Length"] = str(len(data) if length is None else length)
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.sock.sendall(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + data)
        self._method = method

    def answer(self) -> Answer:
        """:raises http.client.HTTPException: when the connection ends without one."""
        with self.sock:
            response = http.client.HTTPResponse(self.sock, method=self._method)
            response.begin()
            body = response.read()
        headers: dict[str, str] = {}
        for name, value in response.getheaders():
            key = name.lower()
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
        return Answer(response.status, headers, body)

    def abandon(self) -> None:
        """Close the connection, as a client does that does not want the answer any more."""
        self.sock.close()


def target(path: str = PATH, **query: str) -> str:
    return f"{path}?{urlencode(query)}"


class Session:
    """A polling session, with a connection for each request.

    :ivar handshake: what the server has told.
    """

    def __init__(self, port: int, path: str = PATH) -> None:
        self.port = port
        self.path = path
        answer = Request(port, "GET", target(path, EIO="4", transport="polling")).answer()
        (packet,) = answer.packets
        assert packet[0] == "0", packet
        self.handshake: dict[str, Any] = json.loads(packet[1:])
        self.sid: str = self.handshake["sid"]

    @property
    def target(self) -> str:
        return target(self.path, EIO="4", transport="polling", sid=self.sid)

    def start_poll(self) -> Request:
        return Request(self.port, "GET", self.target)

    def poll(self) -> Answer:
        return self.start_poll().answer()

    def start_post(self, *packets: str, length: int | None = None) -> Request:
        return Request(self.port, "POST", self.target, SEPARATOR.join(packets), length=length)

    def post(self, *packets: str) -> Answer:
        return self.start_post(*packets).answer()

    def join(self, namespace: str = "") -> str:
        """Connect to a namespace other than "/", or to that; the Socket.IO sid."""
        assert self.post(f"40{namespace and namespace + ','}").status == 200
        (packet,) = self.poll().packets
        return sid_of(packet)

    def websocket(self) -> WebSocket:
        """One with which the session may go on."""
        return WebSocket(self.port, self.path, self.sid)

    def upgrade(self) -> WebSocket:
        """The session goes on with this."""
        websocket = self.websocket()
        websocket.send("2probe")
        assert websocket.receive() == "3probe"
        websocket.send("5")
        return websocket

    def talks(self) -> None:
        """It goes on by polling: an event is acknowledged."""
        assert self.post('427["echo","still here"]').status == 200
        packets = self.poll().packets
        while packets == ["6"]:
            packets = self.poll().packets
        assert packets == ['437["still here"]']


def sid_of(packet: str) -> str:
    """The Socket.IO sid in the answer to a CONNECT."""
    assert packet.startswith("40"), packet
    value = json.loads(packet[packet.index("{") :])
    assert set(value) == {"sid"}, packet
    return str(value["sid"])


class Closed(Exception):
    """The server has ended the websocket; with the close frame's code, or none."""

    def __init__(self, code: int | None) -> None:
        super().__init__(code)
        self.code = code


class WebSocket:
    """A websocket whose handshake has been accepted.

    :ivar headers: of the server's answer to it.
    :raises Refused: when it has not.
    """

    def __init__(
        self,
        port: int,
        path: str = PATH,
        sid: str = "",
        protocols: Sequence[str] = (),
    ) -> None:
        query = {"EIO": "4", "transport": "websocket", **({"sid": sid} if sid else {})}
        headers = upgrade_headers()
        if protocols:
            headers["Sec-WebSocket-Protocol"] = ", ".join(protocols)
        request = Request(port, "GET", target(path, **query), headers=headers)
        self.sock = request.sock
        self._data = b""
        while b"\r\n\r\n" not in self._data:
            more = self.sock.recv(65536)
            assert more, f"the handshake ended after {self._data!r}"
            self._data += more
        head, _, rest = self._data.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        self.headers = {
            name.lower(): value for name, value in (line.split(": ", 1) for line in lines)
        }
        if not status.startswith("HTTP/1.1 101 "):
            self.sock.close()
            raise Refused(status)
        assert self.headers["sec-websocket-accept"] == ACCEPT
        self._data = rest
        if not sid:
            packet = self.receive()
            assert isinstance(packet, str) and packet[0] == "0", packet
            self.handshake: dict[str, Any] = json.loads(packet[1:])
            self.sid: str = self.handshake["sid"]

    def send(self, *messages: str | bytes) -> None:
        frames = [
            frame(TEXT, m.encode()) if isinstance(m, str) else frame(BINARY, m) for m in messages
        ]
        self.sock.sendall(b"".join(frames))

    def receive(self) -> Union[str, bytes]:
        """The next message.

        :raises Closed: when there is none.
        """
        while True:
            opcode, payload = self._frame()
            if opcode == CLOSE:
                self.sock.close()
                raise Closed(int.from_bytes(payload[:2], "big") if payload else NO_CODE)
            if opcode == PING:
                self.sock.sendall(frame(PONG, payload))
            elif opcode != PONG:
                return payload.decode() if opcode == TEXT else payload

    def receive_text(self) -> str:
        """The next one that is not a ping, which is answered."""
        while (received := self.receive()) == "2":
            self.send("3")
        assert isinstance(received, str), received
        return received

    def expect(self, *messages: str | bytes) -> None:
        """These come next, apart from pings, which are answered."""
        for message in messages:
            while (received := self.receive()) == "2" and message != "2":
                self.send("3")
            assert received == message, (received, message)

    def expect_end(self) -> Closed:
        """Nothing but pings comes before the end; they are not answered."""
        try:
            while (message := self.receive()) in ("2", "1"):
                pass
        except Closed as closed:
            return closed
        raise AssertionError(f"not the end, but {message!r}")

    def join(self, namespace: str = "", auth: str = "") -> str:
        """Connect to a namespace other than "/", or to that; the Socket.IO sid."""
        self.send(f"40{namespace and namespace + ','}{auth}")
        return sid_of(self.receive_text())

    def talks(self) -> None:
        """An event is acknowledged, and nothing else comes."""
        self.send('428["echo","still here"]')
        self.expect('438["still here"]')

    def close(self) -> None:
        self.sock.close()

    def _frame(self) -> tuple[int, bytes]:
        head = self._take(2)
        assert head[0] & 0xF0 == 0x80, "not a whole message"
        size = head[1]
        if size > 125:
            size = int.from_bytes(self._take(2 if size == 126 else 8), "big")
        return head[0] & 0x0F, self._take(size)

    def _take(self, count: int) -> bytes:
        while len(self._data) < count:
            try:
                more = self.sock.recv(65536)
            except ConnectionError:
                more = b""
            if not more:
                self.sock.close()
                raise Closed(None)
            self._data += more
        taken, self._data = self._data[:count], self._data[count:]
        return taken

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Refused(Exception):
    """A websocket's handshake was answered with another status; that is the text."""


def upgrade_headers() -> dict[str, str]:
    return {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": KEY,
    }
