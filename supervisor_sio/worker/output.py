"""What a connection writes, and what its client has yet to take.

What is sent in one turn of the loop leaves in one system call for each connection, in slices
between which others have their turn. What the client does not take waits here, in a
:class:`Backlog`.
"""

from __future__ import annotations

import fcntl
import struct
import termios
import time
from typing import Any, Callable, Optional, Protocol, Union

from ..common.limits import OUTPUT_OBJECT

Piece = Union[bytes, memoryview]

#: Connections written to before others have a turn, and bytes that are joined for one write.
_SLICE = 128
_JOIN = 256 * 1024

#: Pieces whose sizes are added up in less time than it takes to look at one after the other.
_FEW = 256


class Backlog:
    """What waits for a client. A connection has one only while its client does not take all."""

    __slots__ = ("writing", "size", "written", "taken", "taken_at", "pong", "watched", "at_watch")

    def __init__(self, sock: Any) -> None:
        #: Calls when the client takes more.
        self.writing: Any = None
        #: The bytes that wait here, and something for each piece of them.
        self.size = 0
        #: Bytes that have left here, from those on that the kernel has yet to send.
        self.written = _unsent(sock)
        #: Bytes that the client has taken of them, as far as anybody has looked, and when it
        #: was seen to take some, by :func:`time.monotonic`.
        self.taken = 0
        self.taken_at = time.monotonic()
        #: The answer to the last ping, RFC 6455, 5.5.3: those before need none any more.
        self.pong: Optional[bytes] = None
        #: Whether somebody will look whether the client takes enough; ``taken`` when that began.
        self.watched = False
        self.at_watch = 0

    def measure(self, pieces: list[Piece]) -> None:
        """Set the size to that of these pieces."""
        self.size = sum(map(len, pieces)) + OUTPUT_OBJECT * len(pieces)

    def look(self, sock: Any) -> None:
        """See how much the client has taken."""
        # What has left here may lie in the kernel for long: it has room for megabytes.
        taken = self.written - _unsent(sock)
        if taken > self.taken:
            self.taken, self.taken_at = taken, time.monotonic()


def _unsent(sock: Any) -> int:
    """Bytes that the kernel has for the other side, which has not got them; ``SIOCOUTQ``."""
    try:
        answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:  # a kind of socket that does not know
        return 0
    return int(struct.unpack("i", answer)[0])


def join(pieces: list[Piece]) -> tuple[Piece, Optional[list[Piece]]]:
    """What to write at once, and the rest: long pieces are not copied for every write."""
    if len(pieces) <= _FEW and sum(map(len, pieces)) <= _JOIN:
        return b"".join(pieces), None
    size = count = 0
    for piece in pieces:
        size += len(piece)
        if count and size > _JOIN:
            break
        count += 1
    return pieces[0] if count == 1 else b"".join(pieces[:count]), pieces[count:]


class Writer(Protocol):
    """A connection with something to write."""

    def flush(self) -> None: ...

    def failed(self, error: Exception) -> None:
        """It could not be written."""


class Writes:
    """The connections of a loop that are to be written to.

    At the end of this turn of the loop; those of a fan-out slice by slice, so that
    nobody else has to wait for thousands of others.

    :param call_soon: :meth:`.Runtime.call_soon`
    """

    def __init__(self, call_soon: Callable[[Callable[[], None]], None]) -> None:
        self._call_soon = call_soon
        self._soon: list[Writer] = []
        self._fan_out: list[Writer] = []

    def add(self, writer: Writer, fan_out: bool) -> None:
        """Call :meth:`Writer.flush` soon.

        :param fan_out: the output is part of one to many clients.
        """
        if not self._soon and not self._fan_out:
            self._call_soon(self.flush)
        (self._fan_out if fan_out else self._soon).append(writer)

    def flush(self) -> None:
        batch = self._soon + self._fan_out[:_SLICE]
        self._soon.clear()
        del self._fan_out[:_SLICE]
        if self._fan_out:
            self._call_soon(self.flush)
        for writer in batch:
            try:
                writer.flush()
            except Exception as error:  # the others' output must go out
                writer.failed(error)
