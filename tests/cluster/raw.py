"""Engine.IO over plain sockets and http.client, to see every answer and connection."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

PATH = "/socket.io/?EIO=4&transport="


class Poller:
    """A polling session; each request goes over the connection it is told to use."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.sid = ""

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def request(
        self,
        method: str,
        body: str | None = None,
        connection: http.client.HTTPConnection | None = None,
    ) -> tuple[int, str]:
        """One request, on a connection of its own unless one is given."""
        target = f"{PATH}polling" + (f"&sid={self.sid}" if self.sid else "")
        using = connection or self.connection()
        try:
            using.request(method, target, body and body.encode())
            response = using.getresponse()
            return response.status, response.read().decode()
        finally:
            if connection is None:
                using.close()

    def must(
        self,
        method: str,
        body: str | None = None,
        connection: http.client.HTTPConnection | None = None,
    ) -> str:
        status, text = self.request(method, body, connection)
        assert status == 200, f"{method} of session {self.sid or '(new)'}: {status} {text}"
        return text

    def open(self, connection: http.client.HTTPConnection | None = None) -> None:
        """The handshake."""
        text = self.must("GET", connection=connection)
        assert text[0] == "0", text
        self.sid = json.loads(text[1:])["sid"]

    def join(self, connection: http.client.HTTPConnection | None = None) -> None:
        """Connect to the namespace "/"."""
        self.must("POST", "40", connection)
        self.poll_for("40", connection)

    def poll_for(self, start: str, connection: http.client.HTTPConnection | None = None) -> str:
        """Poll until a packet starts like this; pings are answered."""
        while True:
            for packet in self.must("GET", connection=connection).split("\x1e"):
                if packet.startswith(start):
                    return packet
                if packet == "2":
                    self.must("POST", "3", connection)

    def call(
        self, event: str, *args: Any, connection: http.client.HTTPConnection | None = None
    ) -> Any:
        """Emit with an ack id and poll for the answer."""
        self.must("POST", "421" + json.dumps([event, *args]), connection)
        return json.loads(self.poll_for("431", connection)[3:])[0]


def open_websocket(port: int) -> socket.socket:
    """A websocket with an open Engine.IO session; only its first frame has been read."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as every client of websockets
    sock.sendall(
        f"GET {PATH}websocket HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    data = b""
    while b'"sid"' not in data:
        more = sock.recv(65536)
        assert more, f"the handshake ended after {data!r}"
        data += more
    assert data.startswith(b"HTTP/1.1 101"), data
    return sock


def exchange(port: int, data: bytes) -> bytes:
    """Send bytes and read until the other side closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        answer = b""
        try:
            sock.sendall(data)
            while True:
                more = sock.recv(65536)
                if not more:
                    return answer
                answer += more
        except ConnectionError:
            return answer
