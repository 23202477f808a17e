"""Refuse a client over plain HTTP."""

from __future__ import annotations

import socket
from typing import Optional

from . import cors

#: ``Retry-After`` of a 503, in seconds.
_RETRY_AFTER = 1


def refusal(status: str, head: bytes, origins: cors.Origins) -> bytes:
    """The answer with an HTTP status, after which the connection closes.

    A browser's preflight is accepted instead, so that the page can read the refusal of the request
    that follows.

    :param head: the request's head, as far as it was received.
    :param origins: origins whose pages may read the answer.
    """
    fields = cors.preflight_fields(origins, head)
    if fields:
        status = "200 OK"
    else:
        fields = cors.fields(origins, head)
    retry = f"Retry-After: {_RETRY_AFTER}\r\n" if status.startswith("503") else ""
    body = f"{status}\n"
    return (
        f"HTTP/1.1 {status}\r\n{retry}{fields}Connection: close\r\n"
        f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def answer(
    sock: socket.socket, status: str, read: bytes = b"", origins: Optional[cors.Origins] = None
) -> None:
    """Send a refusal, without waiting for a client that does not read.

    :param read: the bytes of the request already read.
    :param origins: origins whose pages may read the answer.
    """
    try:
        # Closing with unread bytes would reset the connection, and the client would lose the
        # answer (RFC 9112, section 9.6).
        read += sock.recv(65536, socket.MSG_DONTWAIT)
    except OSError:
        pass
    try:
        sock.send(refusal(status, read, origins or {}), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass
