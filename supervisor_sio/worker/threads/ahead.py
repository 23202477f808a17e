"""A short body is read in the loop, before a thread is taken for its request.

So a client that sends it slowly, or not at all, keeps no thread. Of a long body the thread reads
what comes behind the part that was read ahead.
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
    """Waits for the body of one request; in the loop.

    :param ready: called when there is enough to begin.
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
        "_reading",
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
        runtime = connection.server.runtime
        self._reading = runtime.add_reader(connection.fileno(), self._readable)
        self._wait()

    def _is_enough(self, data: bytes) -> bool:
        if len(self._data) >= self._wanted:
            return True
        if self._chunks is None:
            return False
        try:
            self._chunks.feed(data)
        except HttpError:
            return True  # who reads it finds the same
        return self._chunks.ended

    def _wait(self) -> None:
        now = time.monotonic()
        deadlines = self._connection.server.runtime.deadlines
        deadlines.set(self, now + patience(len(self._data), now - self._began))

    def _readable(self, _descriptor: int = -1) -> None:
        connection = self._connection
        try:
            data = connection.sock.recv(self._wanted - len(self._data))  # type: ignore[union-attr]
        except BlockingIOError:
            return
        except OSError:
            self._stop()
            connection.end()
            return
        self._data += data
        # At the end of a client that still listens, who reads the body finds that, and answers.
        if not data or self._is_enough(data):
            self._stop()
            connection.data = bytes(self._data)
            self._ready()
        else:
            self._wait()

    def _stop(self) -> None:
        self._reading.cancel()
        self._connection.server.runtime.deadlines.remove(self)

    def on_deadline(self, now: float) -> None:
        """The client has sent too little."""
        self._stop()
        self._connection.count(TOO_SLOW, "sends nothing")
        self._connection.end()
