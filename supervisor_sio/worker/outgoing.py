"""The queues of what a worker sends to its router, in order and without blocking.

Messages are for one router: they are dropped when it ends, because the next router receives the
complete state of the worker. Connections to hand back are kept for the next router; the number of
connections bounds that queue.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import Any, Callable, Deque, Protocol, Sequence

from ..common import channel
from ..common.limits import LINK_MESSAGES

#: Errors that mean that the router has closed the channel.
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ECONNREFUSED)


class RouterGone(Exception):
    """The channel has ended."""


class Blocked(Exception):
    """The kernel refuses the message now, and does not report when to try again."""


class Mover(Protocol):
    """A connection that is handed back to the router."""

    @property
    def ended(self) -> bool: ...

    def fileno(self) -> int: ...

    def moved(self, gone: bool) -> None:
        """:param gone: whether the router has the connection; if false, it stays here."""


class Outgoing:
    """:param failed: called with a reason and a text for each message that cannot be sent."""

    def __init__(self, failed: Callable[[str, str], None]) -> None:
        self._failed = failed
        #: Messages, their descriptors, and whether to close these after sending.
        self._messages: Deque[tuple[bytes, Sequence[int], bool]] = deque()
        self._moves: Deque[tuple[bytes, Mover]] = deque()

    @property
    def has_room(self) -> bool:
        """Whether one more message may be added."""
        return len(self._messages) < LINK_MESSAGES

    def add(self, data: bytes, descriptors: Sequence[int] = (), own: bool = False) -> None:
        """:param descriptors: must stay open until the message is sent.
        :param own: whether to close them here after the message is sent or dropped.
        """
        self._messages.append((data, descriptors, own))

    def add_move(self, data: bytes, connection: Mover) -> None:
        self._moves.append((data, connection))

    def withdraw(self, descriptors: Sequence[int]) -> None:
        """Drop the message that was added with this same ``descriptors`` object."""
        self._messages = deque(item for item in self._messages if item[1] is not descriptors)

    def forget_messages(self) -> None:
        """Drop all messages, because the router has ended."""
        while self._messages:
            self._drop_first()

    def _drop_first(self) -> None:
        _, descriptors, own = self._messages.popleft()
        if own:
            channel.close_all(descriptors)

    def keep_all(self) -> None:
        """Keep the queued connections here, because no router will take them."""
        moves, self._moves = self._moves, deque()
        for _, connection in moves:
            connection.moved(False)

    def send_all(self, sock: Any) -> None:
        """Send everything that is queued.

        :raises BlockingIOError: if the router has to read first.
        :raises Blocked: if the kernel refuses the message for now.
        :raises RouterGone: if the channel has ended.
        """
        while self._messages:
            data, descriptors, _ = self._messages[0]
            self._send(sock, data, descriptors)
            self._drop_first()
        while self._moves:
            data, connection = self._moves[0]
            gone = not connection.ended and self._send(sock, data, (connection.fileno(),))
            self._moves.popleft()
            connection.moved(gone)

    def _send(self, sock: Any, data: bytes, descriptors: Sequence[int]) -> bool:
        """Send one message; false if the message itself cannot be sent."""
        try:
            channel.send_encoded(sock, data, descriptors)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno in _GONE:
                raise RouterGone from None
            if error.errno in channel.CROWDED:
                raise Blocked from None
            self._failed("message", str(error))
            return False
        return True
