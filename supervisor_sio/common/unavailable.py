"""The answer to a client whose request nobody serves."""

from __future__ import annotations

import socket
from typing import Optional

from . import cors

#: Seconds after which a client that was sent away for lack of a worker may come back.
_RETRY_AFTER = 1


def answer(
    sock: socket.socket, status: str, read: bytes = b"", origins: Optional[cors.Origins] = None
) -> None:
    """Refuse with an HTTP status. A client that does not read gets none.

    :param read: what has been read of the request.
    :param origins: whose pages may read the answer.
    """
    try:
        # To close over unread bytes would reset the connection, and lose the
        # answer with it (RFC 9112, section 9.6).
        read += sock.recv(65536, socket.MSG_DONTWAIT)
    except OSError:
        pass
    retry = f"Retry-After: {_RETRY_AFTER}\r\n" if status.startswith("503") else ""
    body = f"{status}\n"
    text = (
        f"HTTP/1.1 {status}\r\n{retry}{cors.fields(origins or {}, read)}Connection: close\r\n"
        f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )
    try:
        sock.send(text.encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass
