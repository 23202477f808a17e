"""A bare websocket at ``/echo``, on what the worker's sessions are built on."""

from __future__ import annotations

from typing import Any

from supervisor_sio.engine.frames import Payload, message_frame
from supervisor_sio.worker.websocket import Handler, HandshakeError, WebSocket, accept

#: The default ``max_http_buffer_size`` of Engine.IO, in bytes.
LIMIT = 1_000_000


class Echo(Handler):
    websocket: WebSocket

    def on_message(self, data: Payload) -> bool:
        self.websocket.send(message_frame(data))
        return True

    def on_close(self, websocket: WebSocket) -> None:
        pass


def app(environ: dict[str, Any], start_response: Any) -> Any:
    if environ["PATH_INFO"] != "/echo":
        start_response("404 Not Found", [])
        return []
    handler = Echo()
    try:
        handler.websocket = accept(environ, handler, LIMIT)
    except (HandshakeError, KeyError) as error:
        start_response("400 Bad Request", [])
        return [str(error).encode()]
    return ()
