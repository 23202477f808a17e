"""What a connection writes, and what its client has yet to take.

What is sent in one turn of the loop leaves in one system call for each connection, in slices
between which others have their turn. What the client does not take waits here, in a
:class:`Backlog`. Who sends is an :class:`Output`, the half of a connection that writes.
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
        self.writing: Optional[Watch] = None
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


class _NotStarted:
    """In place of a watch: nothing is written before :meth:`Output.go_on_writing`."""

    def cancel(self) -> None:
        """There is nothing to cancel."""


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


class Output(ABC):
    """A connection with its socket, as far as it writes; an :class:`..engine.deadlines.Item`."""

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
        #: Of the wheel.
        self.deadline = NEVER
        self.slot = NOWHERE
        #: What is to be sent: nothing, most of the time, or a single piece.
        self._out: Union[None, bytes, list[Piece]] = None
        #: Whether somebody will write it at the end of this turn.
        self._collected = False
        self._backlog: Optional[Backlog] = None
        #: Whether nothing more is sent; and whether a request has its answer, which is to be
        #: written.
        self._closing = self._answered = False

    @abstractmethod
    def end(self, reason: str = "") -> None:
        """The client is gone, or takes too little: close."""

    @abstractmethod
    def failed(self, error: Exception) -> None:
        """Something of ours went wrong with it."""

    @abstractmethod
    def on_deadline(self, now: float) -> None:
        """:meth:`.Item.on_deadline`"""

    @abstractmethod
    def descriptor_lost(self) -> None:
        """:meth:`.DescriptorOwner.descriptor_lost`"""

    @abstractmethod
    def _stalled(self, backlog: Backlog) -> None:
        """The client does not take all: a backlog begins, or goes on."""

    @abstractmethod
    def _took_some(self) -> None:
        """Some of the backlog has been written."""

    @abstractmethod
    def _flushed(self) -> None:
        """All has been written, of a connection that closes or an answer."""

    def due_in(self, seconds: float) -> None:
        """Set its deadline."""
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
        """To what :meth:`flush` writes."""
        if self._out is None:
            self._out = data
        elif isinstance(self._out, list):
            self._out.append(data)
        else:
            self._out = [self._out, data]

    def flush(self) -> None:
        """Write what is to be sent, as far as the client takes it."""
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
        """Much waits for the client: is it there at all?"""
        assert isinstance(self._out, list)
        # A message that is longer than that alone is the application's wish.
        if backlog.size - len(self._out[0]) > OUTPUT_CEILING:
            self._closing, self._out = True, None
            # Not here: the caller may be in the middle of a fan-out.
            self.server.runtime.call_soon(self.end, TOO_SLOW)
        elif not backlog.watched:
            self._watch(backlog)

    def _watch(self, backlog: Backlog) -> None:
        assert self.sock is not None
        backlog.look(self.sock)
        backlog.watched, backlog.at_watch = True, backlog.taken
        self.due_in(SLOW_OUTPUT_PATIENCE)

    def _judge(self, backlog: Backlog) -> None:
        """It has had its time to take some of what waits."""
        backlog.watched = False
        if backlog.size <= SLOW_OUTPUT:
            return
        backlog.look(self.sock)
        if backlog.taken - backlog.at_watch < SLOW_OUTPUT_TAKEN:
            self.end(TOO_SLOW)
        else:
            self._watch(backlog)

    def _stop_writing(self) -> None:
        """Before the socket is closed, or given away."""
        if self._backlog is not None and self._backlog.writing is not None:
            self._backlog.writing.cancel()

    # --- to another process, and from one ------------------------------------------

    def saved_output(self) -> dict[str, Any]:
        """What has yet to be written, as JSON takes it."""
        out, backlog = self._out, self._backlog
        pieces = out if isinstance(out, list) else [] if out is None else [out]
        pong = None if backlog is None else backlog.pong
        return {
            "out": [as_text(bytes(piece)) for piece in pieces],
            "pong": None if pong is None else as_text(pong),
        }

    def restore_output(self, state: Saved) -> None:
        """What :meth:`saved_output` has said. It waits, with all that is sent meanwhile.

        :raises ValueError: see :class:`.Saved`.
        """
        pieces = state.list("out")
        self._out = [pieces.data(index) for index in range(len(pieces))]
        backlog = self._backlog = Backlog(self.sock)
        backlog.measure(self._out)
        backlog.pong = None if state.is_none("pong") else state.data("pong")
        # As if the client took nothing, which nobody is to look at yet.
        backlog.writing, backlog.watched = _NotStarted(), True

    def go_on_writing(self) -> None:
        """From here on it is written."""
        backlog = self._backlog
        if backlog is not None:
            backlog.writing, backlog.watched = None, False
            self.flush()
