"""Reads a request's body, or the beginning of a long one, in the loop, before a thread is used.

So a client that sends a short body slowly, or not at all, does not occupy a thread. The thread
reads the rest of a long body.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Callable

from ...common.limits import BODY_AHEAD
from ...common.reasons import TOO_SLOW
from ...engine.deadlines import NEVER, NOWHERE
from ...engine.http import ChunkedBody, Head, HttpError
from ..patience import patience

if TYPE_CHECKING:
    from ..connection import Connection


class Ahead:
    """Reads the body of one request in the loop, as a :class:`..connection.Tenant`.

    :param ready: called when enough of the body has arrived.
    """

    __slots__ = (
        "deadline",
        "slot",
        "_connection",
        "_ready",
        "_chunks",
        "_wanted",
        "_data",
        "_began",
    )

    def __init__(self, connection: Connection, head: Head, ready: Callable[[], None]) -> None:
        self.deadline = NEVER
        self.slot = NOWHERE
        self._connection = connection
        self._ready = ready
        self._chunks = ChunkedBody() if head.length is None else None
        self._wanted = BODY_AHEAD if head.length is None else min(head.length, BODY_AHEAD)
        self._data = bytearray(connection.data)
        self._began = time.monotonic()
        if self._is_enough(connection.data):
            ready()
            return
        connection.tenant = self
        connection.listen()
        self._wait()

    def _is_enough(self, data: bytes) -> bool:
        if len(self._data) >= self._wanted:
            return True
        if self._chunks is None:
            return False
        try:
            self._chunks.feed(data)
        except HttpError:
            return True  # the thread will find the same error
        return self._chunks.ended

    def _wait(self) -> None:
        now = time.monotonic()
        deadlines = self._connection.server.runtime.deadlines
        deadlines.set(self, now + patience(len(self._data), now - self._began))

    def readable(self) -> None:
        """:meth:`..connection.Tenant.readable`"""
        connection = self._connection
        try:
            data = connection.sock.recv(self._wanted - len(self._data))  # type: ignore[union-attr]
        except BlockingIOError:
            return
        except OSError:
            connection.end()
            return
        self._data += data
        # If the client has closed its sending side, the thread notices that, and answers.
        if not data or self._is_enough(data):
            connection.stop_reading()
            self.lost()
            connection.data = bytes(self._data)
            self._ready()
        else:
            self._wait()

    def stop(self) -> None:
        """:meth:`..connection.Tenant.stop`: let the request finish."""

    def lost(self) -> None:
        """:meth:`..connection.Tenant.lost`"""
        self._connection.tenant = None
        self._connection.server.runtime.deadlines.remove(self)

    def on_deadline(self, now: float) -> None:
        """The client is too slow."""
        self._connection.count(TOO_SLOW, "does not send the body")
        self._connection.end()
