"""Clients of a Socket.IO server in the same process: WSGI or ASGI calls instead of a network."""

from __future__ import annotations

import io
import json
from typing import Any
from urllib.parse import urlencode

import socketio

from unit.in_loop import InLoop, ask

SEPARATOR = "\x1e"


def make_server(**options: Any) -> socketio.Server:
    """A server whose long polls and background tasks do not outlive a test by much."""
    return socketio.Server(
        async_mode="threading", monitor_clients=False, ping_interval=2, ping_timeout=2, **options
    )


ADDRESS = "192.0.2.1"


class PollingClient:
    """A client of one namespace, with the polling transport."""

    def __init__(self, server: Any, namespace: str = "/") -> None:
        self._server = server
        self._namespace = "" if namespace == "/" else namespace + ","
        self.eio_sid = ""
        self.eio_sid = json.loads(self.request("GET")[1:])["sid"]
        self.send("0" + self._namespace)
        #: What came together with the answer.
        packet, *self.early = self.receive()
        self.sid: str = json.loads(packet.partition(f"40{self._namespace}")[2])["sid"]

    def request(self, method: str, body: str = "") -> str:
        query = {"EIO": "4", "transport": "polling"}
        if self.eio_sid:
            query["sid"] = self.eio_sid
        if isinstance(self._server, InLoop):
            return self._request_asgi(method, urlencode(query), body.encode())
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": "/socket.io/",
            "REMOTE_ADDR": ADDRESS,
            "QUERY_STRING": urlencode(query),
            "CONTENT_LENGTH": str(len(body.encode())),
            "wsgi.input": io.BytesIO(body.encode()),
        }
        statuses: list[str] = []
        app = socketio.WSGIApp(self._server)
        answer = app(environ, lambda status, headers: statuses.append(status))
        text = b"".join(answer).decode()
        assert statuses == ["200 OK"], text
        return text

    def _request_asgi(self, method: str, query: str, body: bytes) -> str:
        scope = {
            "type": "http",
            "method": method,
            "path": "/socket.io/",
            "query_string": query.encode(),
            "headers": [(b"content-length", b"%d" % len(body))],
            "client": (ADDRESS, 1),
        }
        app = socketio.ASGIApp(self._server.target)
        status, answer = self._server.run(ask(app, scope, body))
        assert status == 200, answer
        return bytes(answer).decode()

    def send(self, packet: str) -> None:
        """A Socket.IO packet to the server."""
        self.request("POST", "4" + packet)

    def receive(self) -> list[str]:
        """The Engine.IO packets that wait for this client; at least one."""
        return self.request("GET").split(SEPARATOR)

    def event(self) -> list[Any]:
        """The one event, without attachments or ack id, that waits for this client."""
        (packet,) = self.receive()
        start = "42" + self._namespace
        assert packet.startswith(start), packet
        return list(json.loads(packet[len(start) :]))

    def question(self) -> tuple[int, list[Any]]:
        """The one event that waits for this client's acknowledgement: its id, and it."""
        (packet,) = self.receive()
        start = "42" + self._namespace
        assert packet.startswith(start), packet
        ack_id, bracket, rest = packet[len(start) :].partition("[")
        return int(ack_id), list(json.loads(bracket + rest))

    def answer(self, ack_id: int, *args: Any) -> None:
        self.send(f"3{self._namespace}{ack_id}{json.dumps(args)}")

    def close(self) -> None:
        self.request("POST", "1")
