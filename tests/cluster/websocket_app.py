"""A bare websocket at ``/echo``, on what the worker's sessions are built on."""

from __future__ import annotations

from typing import Any

from supervisor_sio.engine.frames import Payload, message_frame
from supervisor_sio.engine.websocket import HandshakeError, WebSocket, accept, check
from supervisor_sio.worker.eio import EXCHANGE
from supervisor_sio.worker.eventlet.runtime import HubRuntime
from supervisor_sio.worker.refused import refusals

#: The default ``max_http_buffer_size`` of Engine.IO, in bytes.
LIMIT = 1_000_000


class Echo:
    websocket: WebSocket

    def on_message(self, payload: Payload) -> bool:
        self.websocket.link.send(message_frame(payload))
        return True

    def on_close(self, websocket: WebSocket) -> None:
        pass

    def count(self, reason: str, detail: str) -> None:
        refusals.count(reason, detail)


def app(environ: dict[str, Any], start_response: Any) -> Any:
    if environ["PATH_INFO"] != "/echo":
        start_response("404 Not Found", [])
        return []
    request, exchange = environ[EXCHANGE].take()
    try:
        check(request)
    except HandshakeError as error:
        body = str(error).encode()
        head = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n" % len(body)
        exchange.answer(head + body)
        return ()
    handler = Echo()
    deadlines = HubRuntime.of_this_process().deadlines
    handler.websocket = WebSocket(handler, deadlines, LIMIT)
    handler.websocket.link = exchange.upgrade(accept(request), handler.websocket)
    return ()
