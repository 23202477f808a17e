"""The channel to the router, inside supervisord's own event loop.

supervisord polls the objects in its socket map and calls what is readable;
nothing here may block, and nothing may raise out of it: supervisord must
neither wait for us nor die of us.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
import sys
import time
from typing import Any, Callable, Optional, Sequence

from supervisor.http import NOT_DONE_YET
from supervisor.xmlrpc import Faults, RPCError

from ..common import channel
from ..common.channel import ChannelError, Message
from ..common.descriptors import raised_limit
from ..common.limits import (
    ANSWER_TIMEOUT,
    GUARD_PAUSE,
    MAX_COMMAND,
    ROUTER_PACKETS_PER_TURN,
    ROUTER_TURN,
)
from .deferred import fault
from .guard import Guard

#: ``supervisord`` as Supervisor's own plugins get it; Supervisor has no types.
Supervisord = Any

#: What ``accept`` says when it can do no more, while the connection waits on.
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

#: Seconds until the next attempt then, and between two lines of one kind in the log.
_PAUSE = 1.0


class Dispatcher:
    """What supervisord's loop expects of an entry in its socket map.

    What a subclass raises in :meth:`_read` is counted and logged; the descriptor
    stays, and rests for a moment.
    """

    def __init__(self, supervisord: Supervisord, sock: socket.socket, guard: Guard) -> None:
        self._logger = supervisord.options.logger
        self._guard = guard
        self._map = supervisord.options.get_socket_map()
        self._sock = sock
        self._descriptor = sock.fileno()
        self.closed = False
        #: When it was closed, in seconds of the host's monotonic clock.
        self.ended: Optional[float] = None
        #: Until then it is not looked at, in seconds of the host's monotonic clock.
        self._resume = 0.0
        self._map[self._descriptor] = self

    def readable(self) -> bool:
        return not self.closed and time.monotonic() >= self._resume

    def writable(self) -> bool:
        return False

    def handle_read_event(self) -> None:
        try:
            self._read()
        except Exception as error:
            self._resume = time.monotonic() + GUARD_PAUSE
            self._guard.note(f"{type(self).__name__}", error)

    def _read(self) -> None:
        raise AssertionError("for a subclass")

    def handle_write_event(self) -> None:
        pass

    def handle_error(self) -> None:
        """supervisord's own loop caught an exception where it called us."""
        self._logger.error(f"sio: {type(self).__name__} closed after {sys.exc_info()[1]!r}")
        self.close()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.ended = time.monotonic()
            if self._map.get(self._descriptor) is self:
                del self._map[self._descriptor]
            self._sock.close()


class RouterListener(Dispatcher):
    """Waits for a router at ``supervisord.sock``.

    :param refuse: says why a process with this pid may not be a router, or ``None``.
    :param accept: gets the connections of the others.
    """

    def __init__(
        self,
        supervisord: Supervisord,
        sock: socket.socket,
        guard: Guard,
        refuse: Callable[[int], Optional[str]],
        accept: Callable[[socket.socket], None],
    ) -> None:
        super().__init__(supervisord, sock, guard)
        self._refuse = refuse
        self._accept = accept
        self._refused = 0
        self._told = 0.0

    def _read(self) -> None:
        try:
            connection, _ = self._sock.accept()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                # It stays readable, and supervisord would turn round and round.
                self._resume = time.monotonic() + _PAUSE
                self._logger.warn(f"sio: cannot accept a router: {error.strerror}")
            return
        try:
            pid = channel.peer_of(connection).pid
            reason = self._refuse(pid)
            if reason is None:
                self._accept(connection)
            else:
                self._turn_away(connection, pid, reason)
        except Exception:
            connection.close()
            raise

    def _turn_away(self, connection: socket.socket, pid: int, reason: str) -> None:
        with connection, contextlib.suppress(OSError, ChannelError):
            channel.refuse(connection, reason)
        self._refused += 1
        if time.monotonic() - self._told >= _PAUSE:
            self._told = time.monotonic()
            self._logger.warn(f"sio: refused {self._refused}, last pid {pid}: {reason}")
            self._refused = 0


class _Answer:
    """What the router has said to a command so far."""

    def __init__(self, convert: Callable[[Any], Any]) -> None:
        self.convert = convert
        self.rows: list[Any] = []
        self.result: Optional[Message] = None
        self.deadline = time.monotonic() + ANSWER_TIMEOUT


class RouterChannel(Dispatcher):
    """One router: gives it the listening sockets, takes its figures.

    :param welcome: the message, and the descriptors with it, that a router
        gets once it has said who it is.
    :param admit: says why this router is not welcome, or ``None``.
    :param heard: gets its figures, as they come: in parts.
    """

    def __init__(
        self,
        supervisord: Supervisord,
        sock: socket.socket,
        guard: Guard,
        welcome: tuple[Message, Sequence[int]],
        admit: Callable[[RouterChannel], Optional[str]],
        heard: Callable[[Message], None] = lambda figures: None,
    ) -> None:
        super().__init__(supervisord, sock, guard)
        sock.setblocking(False)
        self._welcome = welcome
        self._admit = admit
        self._heard = heard
        self.pid = channel.peer_of(sock).pid
        self.since = time.monotonic()
        self.admitted = False
        self.figures: Message = {}
        self._parts: Message = {}
        self._commands = itertools.count(1)
        self._answers: dict[int, _Answer] = {}

    def _read(self) -> None:
        ends = time.monotonic() + ROUTER_TURN
        try:
            for _ in range(ROUTER_PACKETS_PER_TURN):
                packet = channel.receive(self._sock, most_descriptors=0)
                if packet is None:
                    self._lost("has closed its channel")
                    return
                self._handle(packet.message)
                if self.closed or time.monotonic() >= ends:
                    return
        except BlockingIOError:
            return
        except ChannelError as error:
            self._lost(f"is not understood: {error}")
        except OSError as error:
            self._lost(f"is lost: {error.strerror}")

    def _handle(self, message: Message) -> None:
        if not self.admitted:
            refusal = self._refusal(message)
            if refusal is not None:
                channel.refuse(self._sock, refusal)
                self._lost(f"is refused: {refusal}")
                return
            self._send_welcome()
        elif message["type"] == "figures":
            self._forget_answers()
            self._take_figures(message)
            self._heard(message)
        elif message["type"] == "rows" and message.get("id") in self._answers:
            answer = self._answers[message["id"]]
            answer.rows.extend(map(answer.convert, message["rows"]))
        elif message["type"] == "result" and message.get("id") in self._answers:
            self._answers[message["id"]].result = message

    def _send_welcome(self) -> None:
        try:
            # supervisord may have few open, its user may have many on their way: clients that
            # wait for this router.
            with raised_limit():
                channel.send(self._sock, *self._welcome)
        except OSError as error:
            if error.errno not in channel.CROWDED:
                raise
            channel.refuse(self._sock, channel.ON_THEIR_WAY)
            self._lost(f"is refused: {channel.ON_THEIR_WAY}")
            return
        self.admitted = True
        self._logger.info(f"sio: router (pid {self.pid}) has the listening sockets")

    def _take_figures(self, message: Message) -> None:
        """They come in parts, of which the first has all but the workers' rows.

        The router leaves out the last parts when this process is busy.
        """
        if message["first"]:
            self._parts = message
        elif self._parts:
            self._parts["workers"].extend(message["workers"])
        if message["last"]:
            self.figures, self._parts = self._parts or self.figures, {}

    def _forget_answers(self) -> None:
        """supervisord does not ask for the answer of a call whose client has gone."""
        now = time.monotonic()
        for number, answer in list(self._answers.items()):
            if now >= answer.deadline:
                del self._answers[number]

    def command(
        self,
        message: Message,
        finish: Callable[[list[Any], Message], Any] = lambda rows, answer: True,
        convert: Callable[[Any], Any] = lambda row: row,
    ) -> Callable[[], Any]:
        """Send a command; the result is what an XML-RPC method returns to answer later.

        :param finish: makes its answer of the rows and the result that the router sends.
        :param convert: gets each row as it comes; its result is the row that ``finish`` gets.
        :raises RPCError: when the router is too busy to take it. The deferred
            raises it with the router's reason, or when no answer comes.
        """
        number = next(self._commands)
        try:
            data = channel.encode({**message, "id": number})
            if len(data) > MAX_COMMAND:
                raise ChannelError(f"{len(data)} bytes are over the limit of {MAX_COMMAND}")
            channel.send_encoded(self._sock, data)
        except ChannelError as error:
            raise RPCError(Faults.INCORRECT_PARAMETERS, str(error)) from None
        except OSError as error:
            raise RPCError(Faults.FAILED, f"the router takes no command: {error}") from None
        answer = self._answers[number] = _Answer(convert)

        def result() -> Any:
            if answer.result is None and not self.closed and time.monotonic() < answer.deadline:
                return NOT_DONE_YET
            self._answers.pop(number, None)
            if answer.result is None:
                error = "the router is gone" if self.closed else "the router does not answer"
                raise RPCError(Faults.FAILED, error)
            if answer.result.get("error"):
                raise fault(Faults.FAILED, str(answer.result["error"]))
            return finish(answer.rows, answer.result)

        return self._guard.deferred("an answer of the router", result)

    def tell_stopping(self, pid: int) -> None:
        """supervisord is about to stop this process, or all that it has started for pid 0."""
        self._tell({"type": "stopping", "pid": pid})

    def tell_starting(self, name: str) -> None:
        """supervisord is about to start this worker."""
        self._tell({"type": "starting", "name": name})

    def tell_ended(self, name: str) -> None:
        """The process of this worker has ended."""
        self._tell({"type": "ended", "name": name})

    def tell_recycled(self, counted: Message) -> None:
        """So many workers have been recycled, by reason."""
        self._tell({"type": "recycled", "recycled": counted})

    def _tell(self, message: Message) -> None:
        with contextlib.suppress(OSError):  # a router that does not read learns it too late
            channel.send(self._sock, message)

    def _refusal(self, message: Message) -> Optional[str]:
        if message["type"] != "hello":
            return f"expected hello, not {message['type']!r}"
        try:
            channel.check_version(message, "the router")
        except ChannelError as error:
            return str(error)
        return self._admit(self)

    def _lost(self, what: str) -> None:
        self._logger.info(f"sio: router (pid {self.pid}) {what}")
        self.close()
