"""The channel to the router, inside supervisord's own event loop.

supervisord polls the objects in its socket map and calls the readable ones. Nothing here may block
supervisord, and no exception may escape to it.
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

#: The object that Supervisor passes to its plugins; Supervisor has no types.
Supervisord = Any

#: Errors of ``accept`` after which the connection stays pending.
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

#: Seconds until the next attempt after such an error, and between two log lines about refusals.
_PAUSE = 1.0


class Dispatcher:
    """An entry in supervisord's socket map.

    An exception in a subclass's :meth:`_read` is counted and logged; then the descriptor is not
    polled for ``GUARD_PAUSE`` seconds.
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
        #: The descriptor is not polled before this time of the host's monotonic clock.
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
        raise AssertionError("a subclass implements it")

    def handle_write_event(self) -> None:
        pass

    def handle_error(self) -> None:
        """Called when supervisord's loop has caught an exception of this object."""
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
    """Accepts the connection of a router at ``supervisord.sock``.

    :param refuse: returns why a process with this pid may not be a router, or ``None``.
    :param accept: receives the connections that are not refused.
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
                # The socket stays readable; without a pause, supervisord's loop would spin.
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
    """The router's answer to a command, as received so far."""

    def __init__(self, convert: Callable[[Any], Any]) -> None:
        self.convert = convert
        self.rows: list[Any] = []
        self.result: Optional[Message] = None
        self.deadline = time.monotonic() + ANSWER_TIMEOUT


class RouterChannel(Dispatcher):
    """The channel to one router: sends it the listening sockets, receives its figures.

    :param welcome: the message, with descriptors, that is sent after the router's ``hello``.
    :param admit: returns why this router is refused, or ``None``.
    :param heard: receives its figures, which come in parts.
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
            self._lost(f"broke the protocol: {error}")
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
            # The limit of supervisord may be low, while many descriptors of its user are in
            # transit: clients that wait for this router.
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
        """Collect figures, which come in parts; the first part has everything but workers' rows.

        When this process does not read fast enough, the router skips the last parts.
        """
        if message["first"]:
            self._parts = message
        elif self._parts:
            self._parts["workers"].extend(message["workers"])
        if message["last"]:
            self.figures, self._parts = self._parts or self.figures, {}

    def _forget_answers(self) -> None:
        """Drop expired answers: supervisord does not fetch those of calls whose client has gone."""
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
        """Send a command to the router; returns a deferred for an XML-RPC method to return.

        :param finish: makes the method's answer from the router's rows and result.
        :param convert: called with each row as it arrives; ``finish`` receives its results.
        :raises RPCError: when the router is too busy to receive it. The deferred raises it with the
            router's reason, or when the answer times out.
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
            raise RPCError(Faults.FAILED, f"the router reads no command: {error}") from None
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
        """Tell the router that supervisord will stop this process; pid 0 means all processes."""
        self._tell({"type": "stopping", "pid": pid})

    def tell_starting(self, name: str) -> None:
        """Tell the router that supervisord will start this worker."""
        self._tell({"type": "starting", "name": name})

    def tell_ended(self, name: str) -> None:
        """Tell the router that this worker's process has ended."""
        self._tell({"type": "ended", "name": name})

    def tell_recycled(self, counted: Message) -> None:
        """Tell the router how many workers were recycled, by reason."""
        self._tell({"type": "recycled", "recycled": counted})

    def _tell(self, message: Message) -> None:
        with contextlib.suppress(OSError):  # lost for a router that does not read
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
