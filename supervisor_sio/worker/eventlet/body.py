"""The body of a request, for eventlet's protocol class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

import eventlet
from eventlet import wsgi

from ...common.limits import READS_PER_TURN
from ..body import RequestBody
from .green import ClientSocket, Writer, receive

if TYPE_CHECKING:
    from ..connection import Connection


class Body(RequestBody, wsgi.Input):  # type: ignore[misc]
    """The body of a request, with eventlet's attributes but not its slow constructor."""

    rfile = None
    wfile_line = b"HTTP/1.1 100 Continue\r\n"
    hundred_continue_headers = None
    headers_sent = None
    chunk_length = -1

    def __init__(
        self, connection: Connection, length: Optional[int], wfile: Optional[Writer]
    ) -> None:
        super().__init__(connection, length)
        self._connection: Optional[Connection] = connection
        self.chunked_input = length is None
        self.wfile = wfile
        self.is_hundred_continue_response_sent = False
        self._socket: Optional[ClientSocket] = None
        self._reads = 0

    @property
    def socket(self) -> Optional[ClientSocket]:
        """The socket that the application got, if it asked for one."""
        return self._socket

    def get_socket(self) -> Optional[ClientSocket]:
        """The connection as a socket; eventlet's own websocket calls it."""
        if self._socket is None and self._connection is not None:
            self._socket = ClientSocket(self._connection)
        return self._socket

    def proceed(self) -> None:
        if self.should_send_hundred_continue:
            self.send_hundred_continue_response()
            self.is_hundred_continue_response_sent = True

    def wait_for_client(self, source: Connection, size: int, timeout: float) -> bytes:
        self._reads += 1
        if not self._reads % READS_PER_TURN:
            eventlet.sleep(0)
        return receive(source, size, timeout)

    def release(self) -> None:
        super().release()
        self._connection = self._socket = self.wfile = None
