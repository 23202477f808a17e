"""The writing half of a connection, :class:`Output`, and its pending output.

Data sent in one turn of the loop is written with one system call per connection; a broadcast is
written in slices, between which the loop runs. Data that the client does not read waits in a
:class:`Backlog`.
"""

from __future__ import annotations

import fcntl
import struct
import termios
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol, Union

from ..common.limits import (
    OUTPUT_CEILING,
    OUTPUT_OBJECT,
    SLOW_OUTPUT,
    SLOW_OUTPUT_PATIENCE,
    SLOW_OUTPUT_TAKEN,
)
from ..common.reasons import TOO_SLOW
from ..engine.deadlines import NEVER, NOWHERE
from ..engine.saved import Saved, as_text

if TYPE_CHECKING:
    from .runtime import Watch
    from .server import Server

Piece = Union[bytes, memoryview]

#: Connections that are written before the loop runs, and most bytes that are joined for one write.
_SLICE = 128
_JOIN = 256 * 1024

#: Up to this many pieces, adding up all sizes is faster than a loop over the pieces.
_FEW = 256


class Backlog:
    """The pending output of a connection, which has one only while the client is slow."""

    __slots__ = ("writing", "size", "written", "taken", "taken_at", "pong", "watched", "at_watch")

    def __init__(self, sock: Any) -> None:
        #: Watches for the socket to become writable.
        self.writing: Optional[Watch] = None
        #: Pending bytes, plus an allowance for each piece.
        self.size = 0
        #: Bytes written to the kernel, including those in its buffer at the beginning.
        self.written = _unsent(sock)
        #: How many of them the client had received at the last :meth:`look`, and when the number
        #: last grew, by :func:`time.monotonic`.
        self.taken = 0
        self.taken_at = time.monotonic()
        #: The pong for the last ping; earlier ones need no answer (RFC 6455, 5.5.3).
        self.pong: Optional[bytes] = None
        #: Whether a deadline checks that the client reads enough; ``taken`` when it was set.
        self.watched = False
        self.at_watch = 0

    def measure(self, pieces: list[Piece]) -> None:
        """Set the size to the total of these pieces."""
        self.size = sum(map(len, pieces)) + OUTPUT_OBJECT * len(pieces)

    def look(self, sock: Any) -> None:
        """Update how much the client has received."""
        # Written bytes may stay in the kernel's buffer, of megabytes, for long.
        taken = self.written - _unsent(sock)
        if taken > self.taken:
            self.taken, self.taken_at = taken, time.monotonic()


def _unsent(sock: Any) -> int:
    """Bytes in the kernel's buffer that the peer has not received (``SIOCOUTQ``)."""
    try:
        answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:  # not supported by this kind of socket
        return 0
    return int(struct.unpack("i", answer)[0])


def join(pieces: list[Piece]) -> tuple[Piece, Optional[list[Piece]]]:
    """The data for one write, and the remaining pieces; long pieces are not copied each time."""
    if len(pieces) <= _FEW and sum(map(len, pieces)) <= _JOIN:
        return b"".join(pieces), None
    size = count = 0
    for piece in pieces:
        size += len(piece)
        if count and size > _JOIN:
            break
        count += 1
    return pieces[0] if count == 1 else b"".join(pieces[:count]), pieces[count:]


class _NotStarted:
    """Stands in for a watch, so that nothing is written before :meth:`Output.go_on_writing`."""

    def cancel(self) -> None:
        """Do nothing."""


class Writer(Protocol):
    """A connection with something to write."""

    def flush(self) -> None: ...

    def failed(self, error: Exception) -> None:
        """An error has occurred while writing."""


class Writes:
    """The connections of a loop with data to write at the end of this turn.

    The connections of a broadcast are written in slices, so that other clients do not wait for
    thousands of them.

    :param call_soon: :meth:`.Runtime.call_soon`
    """

    def __init__(self, call_soon: Callable[[Callable[[], None]], None]) -> None:
        self._call_soon = call_soon
        self._soon: list[Writer] = []
        self._fan_out: list[Writer] = []

    def add(self, writer: Writer, fan_out: bool) -> None:
        """Call :meth:`Writer.flush` soon.

        :param fan_out: whether the output is part of a broadcast.
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
            except Exception as error:  # do not stop the output of others
                writer.failed(error)


class Output(ABC):
    """The writing half of a connection; an :class:`..engine.deadlines.Item`."""

    __slots__ = (
        "server",
        "sock",
        "deadline",
        "slot",
        "_out",
        "_collected",
        "_backlog",
        "_closing",
        "_answered",
    )

    def __init__(self, server: Server, sock: Any) -> None:
        self.server = server
        self.sock: Optional[Any] = sock
        #: Used by the timing wheel.
        self.deadline = NEVER
        self.slot = NOWHERE
        #: Data to write; mostly nothing, or a single piece.
        self._out: Union[None, bytes, list[Piece]] = None
        #: Whether :meth:`flush` is scheduled for the end of this turn.
        self._collected = False
        self._backlog: Optional[Backlog] = None
        #: Whether further data is dropped; and whether the request's response was added.
        self._closing = self._answered = False

    @abstractmethod
    def end(self, reason: str = "") -> None:
        """Close: the connection has ended, or the client is too slow."""

    @abstractmethod
    def failed(self, error: Exception) -> None:
        """Log an internal error, and close."""

    @abstractmethod
    def on_deadline(self, now: float) -> None:
        """:meth:`.Item.on_deadline`"""

    @abstractmethod
    def descriptor_lost(self) -> None:
        """:meth:`.DescriptorOwner.descriptor_lost`"""

    @abstractmethod
    def _stalled(self, backlog: Backlog) -> None:
        """The client has not read everything: a backlog has begun or changed."""

    @abstractmethod
    def _took_some(self) -> None:
        """Some of the backlog has been written."""

    @abstractmethod
    def _flushed(self) -> None:
        """All data of a response, or before closing, has been written."""

    def due_in(self, seconds: float) -> None:
        """Set the connection's deadline, in seconds from now."""
        self.server.runtime.deadlines.after(self, seconds)

    def send(self, data: bytes, fan_out: bool = False) -> None:
        """:meth:`.Link.send`"""
        if self._closing:
            return
        out = self._out
        if out is None:
            self._out = data
        elif out.__class__ is list:
            out.append(data)
        else:
            self._out = [out, data]  # type: ignore[list-item]
        backlog = self._backlog
        if backlog is not None:
            backlog.size += len(data) + OUTPUT_OBJECT
            if backlog.size > SLOW_OUTPUT:
                self._is_behind(backlog)
        elif not self._collected:
            self._collected = True
            self.server.runtime.writes.add(self, fan_out)

    def send_pong(self, data: bytes) -> None:
        """:meth:`.Link.send_pong`"""
        if self._backlog is not None:
            self._backlog.pong = data
        else:
            self.send(data)

    @property
    def waiting(self) -> int:
        """:meth:`.Link.waiting`"""
        return 0 if self._backlog is None else self._backlog.size

    def took_output_within(self, seconds: float) -> bool:
        """:meth:`.Link.took_output_within`"""
        backlog = self._backlog
        if backlog is None or self.sock is None:
            return False
        backlog.look(self.sock)
        return time.monotonic() - backlog.taken_at < seconds

    def _add(self, data: bytes) -> None:
        """Add data for :meth:`flush`, without scheduling it."""
        if self._out is None:
            self._out = data
        elif isinstance(self._out, list):
            self._out.append(data)
        else:
            self._out = [self._out, data]

    def flush(self) -> None:
        """Write as much as the kernel takes."""
        self._collected = False
        sock, backlog = self.sock, self._backlog
        if sock is None or (backlog is not None and backlog.writing is not None):
            return
        out, self._out = self._out, None
        while out:
            data, more = (out, None) if out.__class__ is bytes else join(out)  # type: ignore[arg-type]
            try:
                sent = sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.end()
                return
            if sent < len(data):
                self._write_later(sock, [memoryview(data)[sent:], *(more or ())])
                return
            out = more
        if backlog is not None:
            self._caught_up(backlog)
        if self._closing or self._answered:
            self._flushed()

    def _write_later(self, sock: Any, rest: list[Piece]) -> None:
        self._out = rest
        if self._backlog is None:
            self._backlog = Backlog(sock)
        backlog = self._backlog
        backlog.measure(rest)
        backlog.writing = self.server.runtime.add_writer(sock.fileno(), self._writable, self)
        self._stalled(backlog)

    def _writable(self, _descriptor: int = -1) -> None:
        backlog = self._backlog
        if backlog is None or backlog.writing is None:
            return
        backlog.writing.cancel()
        backlog.writing = None
        before = backlog.size
        try:
            self.flush()
            if self._backlog is backlog:
                backlog.written += before - backlog.size
            self._took_some()
        except Exception as error:
            self.failed(error)

    def _caught_up(self, backlog: Backlog) -> None:
        self._backlog = None
        if backlog.watched:
            self.deadline = NEVER
        if backlog.pong is not None:
            self.send(backlog.pong)

    def _is_behind(self, backlog: Backlog) -> None:
        """Much output is pending: close if it is too much, otherwise watch if the client reads."""
        assert isinstance(self._out, list)
        # Without the first piece: the application may send a single longer message.
        if backlog.size - len(self._out[0]) > OUTPUT_CEILING:
            self._closing, self._out = True, None
            # Later, because the caller may be sending a broadcast.
            self.server.runtime.call_soon(self.end, TOO_SLOW)
        elif not backlog.watched:
            self._watch(backlog)

    def _watch(self, backlog: Backlog) -> None:
        assert self.sock is not None
        backlog.look(self.sock)
        backlog.watched, backlog.at_watch = True, backlog.taken
        self.due_in(SLOW_OUTPUT_PATIENCE)

    def _judge(self, backlog: Backlog) -> None:
        """The time to read some of the pending output is over: close if it was not enough."""
        backlog.watched = False
        if backlog.size <= SLOW_OUTPUT:
            return
        backlog.look(self.sock)
        if backlog.taken - backlog.at_watch < SLOW_OUTPUT_TAKEN:
            self.end(TOO_SLOW)
        else:
            self._watch(backlog)

    def _stop_writing(self) -> None:
        """Stop watching the socket, before it is closed or passed on."""
        if self._backlog is not None and self._backlog.writing is not None:
            self._backlog.writing.cancel()

    # --- to another process, and from one ------------------------------------------

    def saved_output(self) -> dict[str, Any]:
        """The unwritten data as JSON-compatible values."""
        out, backlog = self._out, self._backlog
        pieces = out if isinstance(out, list) else [] if out is None else [out]
        pong = None if backlog is None else backlog.pong
        return {
            "out": [as_text(bytes(piece)) for piece in pieces],
            "pong": None if pong is None else as_text(pong),
        }

    def restore_output(self, state: Saved) -> None:
        """Restore what :meth:`saved_output` returned; :meth:`go_on_writing` writes it.

        :raises ValueError: see :class:`.Saved`.
        """
        pieces = state.list("out")
        self._out = [pieces.data(index) for index in range(len(pieces))]
        backlog = self._backlog = Backlog(self.sock)
        backlog.measure(self._out)
        backlog.pong = None if state.is_none("pong") else state.data("pong")
        # As if the socket were not writable, without a deadline for the client.
        backlog.writing, backlog.watched = _NotStarted(), True

    def go_on_writing(self) -> None:
        """Start writing restored output."""
        backlog = self._backlog
        if backlog is not None:
            backlog.writing, backlog.watched = None, False
            self.flush()
