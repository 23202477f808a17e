"""A websocket of a client, on callbacks of eventlet's hub.

No greenlet waits for an idle websocket: the hub calls :meth:`WebSocket._readable`
when something has come. Whoever handles messages may start a greenlet while
there is work, and says so; nothing more is read until it is done.

What is sent in one turn of the hub leaves in one system call for each
websocket, in slices between which others have their turn. What the client does
not take waits here, in a :class:`_Backlog`: while it is long nothing more is read
from that client, and one that does not take it is cut off.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import logging
import os
import socket
import struct
import termios
import time
from functools import partial
from typing import Any, NamedTuple, Optional, Protocol, Sequence, Union

from eventlet import hubs, wsgi

from ..common.limits import (
    MESSAGES_AT_ONCE,
    OUTPUT_CEILING,
    OUTPUT_OBJECT,
    READING_STOPS,
    SLOW_OUTPUT,
    SLOW_OUTPUT_PATIENCE,
    SLOW_OUTPUT_TAKEN,
)
from ..common.reasons import FAILED, PROTOCOL, TOO_SLOW
from ..common.refusals import Refusals
from ..engine.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    GOING_AWAY,
    INTERNAL_ERROR,
    NORMAL,
    PING,
    PONG,
    FrameReader,
    Payload,
    ProtocolError,
    close_frame,
    frame,
)
from . import greenlets

logger = logging.getLogger("supervisor_sio.worker")

#: In the WSGI environment of a request to upgrade: gives up the connection, see
#: :class:`.http.Protocol`.
TAKE_CONNECTION = "supervisor_sio.take_connection"

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3

_READ_SIZE = 65536

#: Websockets written to before others have a turn, and bytes that are joined for one write.
_SLICE = 128
_JOIN = 256 * 1024

#: Pieces whose sizes are added up in less time than it takes to look at one after the other.
_FEW = 256

#: Seconds that a client has to answer our close.
_LINGER = 5.0
_SHORT_LINGER = 0.5

#: What clients did wrong; but for messages that mean nothing their session has ended.
refusals = Refusals(logger)

# How far the closing handshake is, RFC 6455, 7.1.
_OPEN, _SAID_GOODBYE, _BOTH_DID, _ENDED = range(4)


class HandshakeError(ValueError):
    """A request that is no websocket handshake; the text says why."""


class Handler:
    """Who has a websocket; called in the hub, where nothing may wait."""

    def on_message(self, data: Payload) -> bool:
        """A message; false for no more, please, until :meth:`WebSocket.resume`."""
        raise NotImplementedError

    def on_close(self, websocket: WebSocket) -> None:
        """The websocket has ended, for whatever reason."""


class Keeper(Protocol):
    """Who wants to know which websockets there are."""

    def opened(self, websocket: WebSocket) -> None: ...

    def ended(self, websocket: WebSocket) -> None: ...


class Connection(NamedTuple):
    """A connection that HTTP is done with.

    :ivar sock: plain and non-blocking.
    :ivar address: of the client, for the log.
    :ivar early: what came right behind the request.
    """

    sock: Any
    address: str
    early: bytes
    keeper: Keeper


def accept(environ: dict[str, Any], handler: Handler, max_size: int) -> WebSocket:
    """Take over the connection of a WSGI request, RFC 6455, 4.2.

    The application must return an empty iterable then.

    :param max_size: longest message of the client, in bytes.
    :raises HandshakeError: when it is no websocket handshake.
    """
    key = environ.get("HTTP_SEC_WEBSOCKET_KEY", "")
    try:
        if len(base64.b64decode(key, validate=True)) != 16:
            raise ValueError
    except (ValueError, binascii.Error):
        raise HandshakeError("no valid Sec-WebSocket-Key") from None
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13":
        raise HandshakeError("Sec-WebSocket-Version is not 13")
    if environ["REQUEST_METHOD"] != "GET":
        raise HandshakeError("the method is not GET")
    digest = base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest())
    connection: Connection = environ[TAKE_CONNECTION]()
    wsgi.WSGI_LOCAL.already_handled = True
    websocket = WebSocket(connection, handler, max_size)
    websocket.send(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + digest + b"\r\n\r\n"
    )
    websocket.open(connection.early)
    return websocket


class _Backlog:
    """What a client has yet to take: there is one only while it does not take all."""

    __slots__ = ("writing", "size", "written", "taken", "taken_at", "pong", "watch", "at_watch")

    def __init__(self, unsent: int) -> None:
        #: The hub's listener for when the client takes more.
        self.writing: Any = None
        #: The bytes that wait here, and something for each piece of them.
        self.size = 0
        #: Bytes that have left here, from those on that the kernel has yet to send.
        self.written = unsent
        #: Bytes that the client has taken of them, as far as anybody has looked, and when it
        #: was seen to take some, by :func:`time.monotonic`.
        self.taken = 0
        self.taken_at = time.monotonic()
        #: The answer to the last ping, RFC 6455, 5.5.3: those before need none any more.
        self.pong: Optional[bytes] = None
        #: The hub's timer that looks whether the client takes enough; ``taken`` when it began.
        self.watch: Any = None
        self.at_watch = 0


class WebSocket:
    """One websocket, from the handshake to its end.

    :param connection: belongs to the websocket from here on.
    """

    __slots__ = (
        "_sock",
        "_handler",
        "_keeper",
        "_address",
        "_reader",
        "_reading",
        "_held",
        "_out",
        "_collected",
        "_backlog",
        "_stage",
        "_linger",
        "_writes",
    )

    def __init__(self, connection: Connection, handler: Handler, max_size: int) -> None:
        self._sock: Optional[Any] = connection.sock
        self._keeper = connection.keeper
        self._address = connection.address
        self._handler: Optional[Handler] = handler
        self._reader = FrameReader(max_size)
        self._reading: Any = None
        #: Whether the handler wants no more until it says so.
        self._held = False
        #: What is to be sent: nothing, most of the time, or a single piece.
        self._out: Union[None, bytes, list[Union[bytes, memoryview]]] = None
        #: Whether somebody will write it at the end of this turn.
        self._collected = False
        self._backlog: Optional[_Backlog] = None
        self._stage = _OPEN
        self._linger: Any = None
        self._writes = writes_of_this_hub()

    def open(self, early: bytes) -> None:
        """Begin to read; ``early`` came right behind the handshake."""
        self._keeper.opened(self)
        if not early:
            self._listen()
            return
        self._reader.feed(early)
        hubs.get_hub().schedule_call_global(0, self._resumed)

    # --- reading --------------------------------------------------------------

    def _listen(self) -> None:
        hub = hubs.get_hub()
        assert self._sock is not None
        self._reading = hub.add(hub.READ, self._sock.fileno(), self._readable, self._obsolete, None)
        # It would keep the greenlet of the request for as long as the websocket lives.
        self._reading.greenlet = hub.greenlet

    def _obsolete(self, *error: object) -> None:
        """The hub has seen this descriptor's number opened anew."""
        self._reading = None
        if self._backlog is not None:
            self._backlog.writing = None
        if self._sock is not None:
            self._sock.detach()  # it is somebody else's now
        self._end(FAILED)

    def _readable(self, _descriptor: int) -> None:
        if self._sock is None:
            return  # ended by another callback of this turn
        try:
            data = self._sock.recv(_READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            self._end()
            return
        if not data:
            self._end()
            return
        self._reader.feed(data)
        self._take()

    def _take(self) -> None:
        """Handle what has been read; what is sent meanwhile leaves at once."""
        self._collected = True
        try:
            if not self._take_messages():
                self._pause()
        except ProtocolError as error:
            self._refuse(error)
        except Exception as error:
            _log(logging.ERROR, "a websocket's message", exc_info=error)
            self._fail(INTERNAL_ERROR, FAILED)
        self._collected = False
        if self._out is not None:
            self.flush()
            if self._backlog is not None and self._backlog.size > READING_STOPS:
                self._pause()  # _writable() goes on

    def _take_messages(self) -> bool:
        """Whether all was handled."""
        take = self._reader.next
        for _ in range(MESSAGES_AT_ONCE):
            message = take()
            if message is None:
                return True
            opcode, payload = message
            if opcode <= BINARY:
                if self._stage or self._handler is None or opcode == CONTINUATION:
                    continue
                if not self._handler.on_message(payload):
                    self._held = True
                    return False
            elif opcode == PING:
                self._answer_ping(frame(PONG, payload))  # type: ignore[arg-type]
            elif opcode == CLOSE:
                self._answer_close(payload)  # type: ignore[arg-type]
                return True
            if self._sock is None:
                return True
        if self._reader.has_more:
            hubs.get_hub().schedule_call_global(0, self._resumed)
            return False
        return True

    def _pause(self) -> None:
        if self._reading is not None:
            hubs.get_hub().remove(self._reading)
            self._reading = None

    def resume(self) -> None:
        """Go on with the messages after ``on_message`` has said no; from any greenlet."""
        self._held = False
        hubs.get_hub().schedule_call_global(0, self._resumed)

    def _resumed(self) -> None:
        if self._sock is None or self._reading is not None or self._held:
            return
        if self._backlog is not None and self._backlog.size > READING_STOPS:
            return
        self._listen()
        self._take()

    # --- writing --------------------------------------------------------------

    def send(self, data: bytes, fan_out: bool = False) -> None:
        """Send frames, see :mod:`.frames`, at the end of this turn of the hub.

        :param fan_out: with those of many others: when its turn comes.
        """
        if self._stage:
            return
        out = self._out
        if out is None:
            self._out = data
        elif isinstance(out, list):
            out.append(data)
        else:
            self._out = [out, data]
        if self._backlog is not None:
            self._backlog.size += len(data) + OUTPUT_OBJECT
            if self._backlog.size > SLOW_OUTPUT:
                self._is_behind(self._backlog)
        elif not self._collected:
            self._collected = True
            self._writes.add(self, fan_out)

    def _answer_ping(self, pong: bytes) -> None:
        if self._backlog is not None:
            self._backlog.pong = pong
        else:
            self.send(pong)

    def flush(self) -> None:
        """Write what is to be sent, as far as the client takes it."""
        self._collected = False
        sock = self._sock
        if sock is None or (self._backlog is not None and self._backlog.writing is not None):
            return
        out, self._out = self._out, None
        while out:
            data, more = _join(out) if isinstance(out, list) else (out, None)
            try:
                sent = sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._end()
                return
            if sent < len(data):
                self._write_later(sock, [memoryview(data)[sent:], *(more or ())])
                return
            out = more
        if self._stage:
            self._flushed_close()

    def _write_later(self, sock: Any, rest: list[Union[bytes, memoryview]]) -> None:
        hub = hubs.get_hub()
        self._out = rest
        if self._backlog is None:
            self._backlog = _Backlog(_unsent(sock))
        backlog = self._backlog
        backlog.size = sum(map(len, rest)) + OUTPUT_OBJECT * len(rest)
        backlog.writing = hub.add(hub.WRITE, sock.fileno(), self._writable, self._obsolete, None)
        backlog.writing.greenlet = hub.greenlet
        if backlog.size > SLOW_OUTPUT:
            self._is_behind(backlog)

    def _writable(self, _descriptor: int) -> None:
        backlog = self._backlog
        if backlog is None or backlog.writing is None:
            return
        hubs.get_hub().remove(backlog.writing)
        backlog.writing = None
        before = backlog.size
        self.flush()
        if self._sock is None:
            return
        if backlog.writing is None:
            self._caught_up(backlog)
        else:
            backlog.written += before - backlog.size
        if self._reading is None:
            self._resumed()

    def _caught_up(self, backlog: _Backlog) -> None:
        self._backlog = None
        if backlog.watch is not None:
            backlog.watch.cancel()
        if backlog.pong is not None:
            self.send(backlog.pong)

    @property
    def waiting(self) -> int:
        """Bytes of output that the client has yet to take."""
        return 0 if self._backlog is None else self._backlog.size

    def took_output_within(self, seconds: float) -> bool:
        """Whether output waits for the client, and it has taken some of it so lately."""
        backlog = self._backlog
        if backlog is None or self._sock is None:
            return False
        self._look_at(backlog)
        return time.monotonic() - backlog.taken_at < seconds

    def _look_at(self, backlog: _Backlog) -> None:
        # What has left here may lie in the kernel for long: it has room for megabytes.
        taken = backlog.written - _unsent(self._sock)
        if taken > backlog.taken:
            backlog.taken, backlog.taken_at = taken, time.monotonic()

    def _is_behind(self, backlog: _Backlog) -> None:
        """Much waits for the client: is it there at all?"""
        assert isinstance(self._out, list)
        # A message that is longer than that alone is the application's wish.
        if backlog.size - len(self._out[0]) > OUTPUT_CEILING:
            self._stage, self._out = _ENDED, None
            # Not here: the caller may be in the middle of a fan-out.
            hubs.get_hub().schedule_call_global(0, self._end, TOO_SLOW)
        elif backlog.watch is None:
            self._watch(backlog)

    def _watch(self, backlog: _Backlog) -> None:
        self._look_at(backlog)
        backlog.at_watch = backlog.taken
        hub = hubs.get_hub()
        backlog.watch = hub.schedule_call_global(SLOW_OUTPUT_PATIENCE, self._judge, backlog)

    def _judge(self, backlog: _Backlog) -> None:
        backlog.watch = None
        if self._sock is None or backlog.size <= SLOW_OUTPUT:
            return
        self._look_at(backlog)
        if backlog.taken - backlog.at_watch < SLOW_OUTPUT_TAKEN:
            self._end(TOO_SLOW)
        else:
            self._watch(backlog)

    # --- the end --------------------------------------------------------------

    def abandon(self) -> None:
        """In a forked child: it is the parent's. Nothing more is read, written or told."""
        sock, self._sock = self._sock, None
        self._reading = self._backlog = self._linger = self._out = self._handler = None
        self._stage = _ENDED
        if sock is not None:
            os.close(sock.detach())

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._stage != _OPEN

    def close(self, code: int = NORMAL) -> None:
        """Say goodbye; the client has some seconds to say it, too. RFC 6455, 7.1.2."""
        self._say_goodbye(close_frame(code), _SAID_GOODBYE)

    def end(self) -> None:
        """Close it, and wait but shortly for the client's goodbye.

        To close at once would reset the connection if anything is on its way here.
        """
        self.close(GOING_AWAY)
        if self._linger is not None:
            self._linger.cancel()
            self._linger = hubs.get_hub().schedule_call_global(_SHORT_LINGER, self._end)

    def count(self, reason: str) -> None:
        """Its client did something that is counted, see :data:`refusals`."""
        greenlets.run(refusals.count, reason, self._address)

    def _say_goodbye(self, data: bytes, stage: int) -> None:
        if self._stage:
            return
        self.send(data)
        self._stage = stage
        self._linger = hubs.get_hub().schedule_call_global(_LINGER, self._end)

    def _refuse(self, error: ProtocolError) -> None:
        _log(logging.DEBUG, "a websocket is closed: %s", error)
        self._fail(error.code, PROTOCOL)

    def _fail(self, code: int, reason: str) -> None:
        """RFC 6455, 7.1.7: whatever still comes is not looked at."""
        self.count(reason)
        self._handler, handler = None, self._handler
        self._reader = _Deaf()
        self.close(code)
        if handler is not None:
            handler.on_close(self)

    def _answer_close(self, payload: bytes) -> None:
        if self._stage:
            self._end()
            return
        self._reader = _Deaf()
        self._say_goodbye(frame(CLOSE, payload[:2]), _BOTH_DID)

    def _flushed_close(self) -> None:
        if self._stage == _BOTH_DID:
            self._end()
            return
        try:
            # To close now could reset the connection before the client has read all.
            self._sock.shutdown(socket.SHUT_WR)  # type: ignore[union-attr]
        except OSError:
            self._end()

    def _end(self, reason: str = "") -> None:
        sock, self._sock = self._sock, None
        if sock is None:
            return
        if reason:
            self.count(reason)
        self._stage = _ENDED
        hub = hubs.get_hub()
        if self._reading is not None:
            hub.remove(self._reading)
            self._reading = None
        backlog, self._backlog = self._backlog, None
        if backlog is not None:
            if backlog.writing is not None:
                hub.remove(backlog.writing)
            if backlog.watch is not None:
                backlog.watch.cancel()
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        self._out = None
        sock.close()
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.on_close(self)
        self._keeper.ended(self)


class _Deaf(FrameReader):
    """Reads nothing more out of what comes."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(0)

    def feed(self, data: bytes) -> None:
        pass


def _join(
    pieces: list[Union[bytes, memoryview]],
) -> tuple[Union[bytes, memoryview], Optional[list[Union[bytes, memoryview]]]]:
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


def _unsent(sock: Any) -> int:
    """Bytes that the kernel has for the other side, which has not got them; ``SIOCOUTQ``."""
    try:
        answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:  # a kind of socket that does not know
        return 0
    return int(struct.unpack("i", answer)[0])


def _log(level: int, message: str, *args: Any, **more: Any) -> None:
    """Log from the hub: a handler of the application's may have to wait for its lock."""
    greenlets.run(partial(logger.log, **more), level, message, *args)


def send_to_all(websockets: Sequence[WebSocket], data: bytes) -> None:
    """Send frames to websockets: slice by slice, where there are many."""
    fan_out = len(websockets) > 1
    for websocket in websockets:
        websocket.send(data, fan_out)


class Writes:
    """Websockets of one hub that are to be written to.

    At the end of this turn of the hub; those of a fan-out slice by slice, so that
    nobody else has to wait for thousands of others.
    """

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self._soon: list[WebSocket] = []
        self._fan_out: list[WebSocket] = []

    def add(self, websocket: WebSocket, fan_out: bool) -> None:
        if not self._soon and not self._fan_out:
            self._hub.schedule_call_global(0, self.flush)
        (self._fan_out if fan_out else self._soon).append(websocket)

    def flush(self) -> None:
        batch = self._soon + self._fan_out[:_SLICE]
        self._soon.clear()
        del self._fan_out[:_SLICE]
        if self._fan_out:
            self._hub.schedule_call_global(0, self.flush)
        for websocket in batch:
            try:
                websocket.flush()
            except Exception as error:  # the others' frames must go out
                _log(logging.ERROR, "writing to a websocket", exc_info=error)


def writes_of_this_hub() -> Writes:
    """Kept with the hub: another thread has another one, which may never run."""
    hub = hubs.get_hub()
    writes: Optional[Writes] = getattr(hub, "supervisor_sio_writes", None)
    if writes is None:
        writes = hub.supervisor_sio_writes = Writes(hub)
    return writes
