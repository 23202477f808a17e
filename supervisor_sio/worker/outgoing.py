"""What a worker has to send to its router, in order, without waiting.

Two queues. A message is for one router: it is dropped when that is gone, since the next one is
told the state of the worker anew. A connection that goes back waits for the next router; there
are no more of them than connections.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import Any, Callable, Deque, Protocol, Sequence

from ..common import channel
from ..common.limits import LINK_MESSAGES

#: The other side has closed.
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ECONNREFUSED)


class RouterGone(Exception):
    """The channel has ended."""


class Blocked(Exception):
    """The kernel does not take it now, and will not say when it does."""


class Mover(Protocol):
    """A connection that goes back to the router."""

    @property
    def ended(self) -> bool: ...

    def fileno(self) -> int: ...

    def moved(self, gone: bool) -> None:
        """The router has it; or it could not be given back, and stays here."""


class Outgoing:
    """:param failed: gets a reason and a text for each message that cannot be sent."""

    def __init__(self, failed: Callable[[str, str], None]) -> None:
        self._failed = failed
        #: With their descriptors, and whether these are closed when it is sent.
        self._messages: Deque[tuple[bytes, Sequence[int], bool]] = deque()
        self._moves: Deque[tuple[bytes, Mover]] = deque()

    @property
    def has_room(self) -> bool:
        """For one more message."""
        return len(self._messages) < LINK_MESSAGES

    def add(self, data: bytes, descriptors: Sequence[int] = (), own: bool = False) -> None:
        """:param descriptors: stay open until it is sent.
        :param own: whether they are closed here then, or when it is not to be sent any more.
        """
        self._messages.append((data, descriptors, own))

    def add_move(self, data: bytes, connection: Mover) -> None:
        self._moves.append((data, connection))

    def withdraw(self, descriptors: Sequence[int]) -> None:
        """The message with these very descriptors is not to be sent any more."""
        self._messages = deque(one for one in self._messages if one[1] is not descriptors)

    def forget_messages(self) -> None:
        """The router is gone that they were for."""
        while self._messages:
            self._drop_first()

    def _drop_first(self) -> None:
        _, descriptors, own = self._messages.popleft()
        if own:
            channel.close_all(descriptors)

    def keep_all(self) -> None:
        """No router will come for the connections."""
        moves, self._moves = self._moves, deque()
        for _, connection in moves:
            connection.moved(False)

    def send_all(self, sock: Any) -> None:
        """:raises BlockingIOError: when the router must read first.
        :raises Blocked: see there.
        :raises RouterGone: see there.
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
        """False when it is its own fault that it cannot be sent."""
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
