"""The worker's channel to the router, driven by callbacks of the runtime's loop.

The worker connects to a socket that supervisord owns. So when the router ends, the worker
connects again, and waits in that socket's queue for the next router.

Sending does not block: messages that the router cannot take yet are queued, see :mod:`.outgoing`.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from typing import Any, Callable, Optional, Sequence

from .._version import __version__
from ..common import channel, handover, identity, run_once
from ..common.channel import ChannelError, DescriptorsLost, Message
from ..common.cors import may_be_told, origins_of
from ..common.descriptors import ceiling
from ..common.handover import Handover
from ..common.limits import LEAVE_TIMEOUT, MAX_DESCRIPTORS
from ..common.refusals import Refusals
from ..common.rundir import RunDir
from ..common.unavailable import answer
from .ancestors import Ancestors
from .arriving import Adopter, Arriving
from .claims import Claims, Said
from .forks import close_socket
from .journals import Journals
from .outgoing import Blocked, Mover, Outgoing, RouterGone
from .passing import Passing
from .reporting import Reporting
from .run_once import RunOnce
from .runtime import Event, Runtime, Watch

logger = logging.getLogger("supervisor_sio.worker")

#: Seconds between checks of figures that change without a request, for example by ping timeouts.
_LOOK = 1.0

#: Seconds between attempts to connect, and to send a message that the kernel has refused.
_RETRY = 0.2

#: Most messages to handle in one turn of the loop.
_TURN = 64

#: Descriptors reserved for the channel, for ZeroMQ, which aborts the process if it gets none, and
#: for the application.
_RESERVE = 64


#: The messages to a worker that adopts sessions.
_ARRIVING = frozenset(
    ("adopt", "sessions", "adopt-journal", "adopt-end", "adopt-place", "adopt-go", "adopt-off")
)

#: The questions and answers about returning clients.
_CLAIMS = frozenset(("claim", "claimed"))


class Refused(Exception):
    """The router has refused this worker; the text says why."""


class Link:
    """One worker's end of the channel, across all routers of its life.

    The callbacks are called in the loop and must not block, except ``on_settings`` and
    ``on_members``: the next message is not read before these return.

    :param on_settings: called with the settings of each new router.
    :param on_connection: called with each connection's descriptor and description.
    :param on_lost: called with the description of a connection for which no descriptor is free.
    :param figures: returns the worker's figures as a message of type ``load``.
    :param on_members: called with the workers of the cluster when they change: for each its tag,
        whether it is on another host, and the channels that it receives.
    :param on_query: called with each question of ``supervisorctl sio``.
    :param on_claim: called with each question of another worker about a returning client, and a
        function that takes the answer.
    :param on_stopping: called with true when supervisord stops this worker, with false when
        supervisord or the start script has ended.
    :param on_refused: called when the router refuses this worker.
    """

    def __init__(
        self,
        runtime: Runtime,
        run_dir: RunDir,
        on_settings: Callable[[Message], None],
        on_connection: Callable[[int, Handover], None],
        on_lost: Callable[[Handover], None],
        figures: Callable[[], Message],
        on_members: Callable[[list[Any]], None],
        on_query: Callable[[Message], object],
        on_claim: Callable[[Said, Callable[[Said], None]], None],
        on_stopping: Callable[[bool], None],
        on_refused: Callable[[Refused], None],
    ) -> None:
        self._runtime = runtime
        self._run_dir = run_dir
        self._on_settings = on_settings
        self._on_connection = on_connection
        self._on_lost = on_lost
        self._on_members = on_members
        self._on_query = on_query
        self._on_stopping = on_stopping
        self._on_refused = on_refused
        self._sock: Optional[Any] = None
        self._reading: Optional[Watch] = None
        self._writing: Optional[Watch] = None
        self._outgoing = Outgoing(self._fail)
        #: Set when the router takes messages again; ``None`` while it does.
        self._blocked: Optional[Event] = None
        #: Scheduled calls: to connect, for the regular checks, and to send again.
        self._connecting: Optional[Watch] = None
        self._looking: Optional[Watch] = None
        self._trying: Optional[Watch] = None
        #: Most descriptors to receive with a packet.
        self._most_descriptors = 1
        #: Whether a callback that may wait is handling a message.
        self._handling = False
        self._closed = False
        self._failures = Refusals(logger)
        self._channels: Optional[dict[str, Optional[int]]] = None
        #: The workers of the cluster by tag, as received from the router.
        self._members: dict[str, list[Any]] = {}
        self._draining = False
        self._left = runtime.event()
        #: Set when a router has reported whether supervisord stops everything.
        self._drains = runtime.event()
        self._reporting = Reporting(runtime, figures, self._free_sock, self._fail)
        self.changed = self._reporting.changed
        self._ancestors = Ancestors(self._note_orphan)
        self._passing = Passing(runtime, self)
        self._arriving = Arriving(self.post, lambda: ceiling(_RESERVE))
        self.pass_on = self._passing.run
        self.adopted = self._arriving.adopted
        self.not_adopted = self._arriving.not_adopted
        self.heard = self._arriving.heard
        self.tags = self._arriving.set_tags
        self.claims = Claims(self, on_claim)
        self.journals = Journals(self)
        self.run_once = RunOnce(runtime, self)
        #: Whether supervisord stops everything, as far as known.
        self.all_stop = False
        #: The number of the current connection, from 1: a new router knows no earlier figures.
        self.generation = 0
        #: Whether a router has accepted the connection, which waits in the socket's queue before.
        self.welcomed = False

    # --- the connection to a router ---------------------------------------------------

    def start(self) -> None:
        """Keep the channel connected until :meth:`close`, or until supervisord has ended."""
        self._looking = self._runtime.call_later(_LOOK, self._look)
        self._connect()

    def close(self) -> None:
        """Close the channel; queued connections that were to be handed back stay here."""
        self._closed = True
        for call in (self._connecting, self._looking):
            if call is not None:
                call.cancel()
        self._disconnect()
        self._outgoing.keep_all()
        self._arriving.close()
        self.journals.close()

    @property
    def up(self) -> bool:
        return self._sock is not None

    @property
    def alone(self) -> bool:
        """Whether there is no router, and supervisord, which would start one, has ended."""
        return self._sock is None and self._ancestors.without_supervisord

    def _note_orphan(self) -> None:
        text = "supervisord or the worker's start script has ended: the worker stops, too"
        self._runtime.log(logger, logging.ERROR, text)

    def _note_no_router(self, error: OSError) -> None:
        if logger.isEnabledFor(logging.DEBUG):
            text = "no router at %s: %s"
            self._runtime.log(logger, logging.DEBUG, text, self._run_dir.router, error)
        self._ancestors.note_no_router(error)

    def _connect(self) -> None:
        if self._closed:
            return
        if self._ancestors.gone:
            self._on_stopping(False)
            return
        # The C class, because a library may have replaced socket.socket.
        sock: Any = socket.SocketType(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._runtime.descriptor_opened(sock.fileno())
        try:
            sock.setblocking(False)
            sock.connect(self._run_dir.router)
            hello = {
                "type": "hello",
                "version": channel.VERSION,
                "tag": identity.tag(),
                "name": identity.process_name(),
                "release": __version__,
            }
            channel.send(sock, hello)
        except OSError as error:
            sock.close()
            self._note_no_router(error)
            self._connect_later()
            return
        self._ancestors.note_router()
        self.generation += 1
        self._sock = sock
        self._reporting.report_all()
        self._arriving.greet()
        self.journals.tell()
        self._send_ready()
        self._arriving.repeat()
        self.claims.repeat()
        self.run_once.greet()
        if self._draining:
            self.post({"type": "draining"})
        self._flush()  # connections that have waited for a router
        self._listen()

    def _connect_later(self) -> None:
        self._connecting = self._runtime.call_later(_RETRY, self._connect)

    def _lost(self, level: int, text: str, *args: object) -> None:
        """Log why the channel has ended, and connect again to the same or the next router."""
        self._runtime.log(logger, level, text, *args)
        self._disconnect()
        if not self._closed:
            self._connect_later()

    def _disconnect(self) -> None:
        self._stop_reading()
        self._stop_writing()
        sock, self._sock = self._sock, None
        self.welcomed = False
        self._outgoing.forget_messages()
        if self._draining:
            self._outgoing.keep_all()
        self._arriving.lost()
        self._passing.lost()
        if sock is not None:
            sock.close()

    def abandon(self) -> None:
        """In a forked child: leave the channel to the parent."""
        self._closed = True
        sock, self._sock = self._sock, None
        if sock is not None:
            close_socket(sock)
        self._arriving.lost()
        self.journals.close()
        self.run_once.abandon()

    # --- messages from the router -------------------------------------------------------

    def _listen(self) -> None:
        if self._sock is not None and self._reading is None and not self._handling:
            self._reading = self._runtime.add_reader(self._sock.fileno(), self._readable)

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _readable(self, _descriptor: int = -1) -> None:
        for _ in range(_TURN):
            if self._sock is None or self._handling:
                return
            try:
                packet = handover.receive(self._sock, self._most_descriptors)
            except BlockingIOError:
                return
            except DescriptorsLost as lost:
                if isinstance(lost.message, Handover):
                    self._on_lost(lost.message)
                else:
                    self._guarded("sessions", self._lose_descriptors, lost.message)
                continue
            except ChannelError as error:
                self._lost(logging.ERROR, "invalid message from the router: %s", error)
                return
            except OSError as error:
                self._lost(logging.DEBUG, "cannot read from the router: %s", error)
                return
            if packet is None:
                self._lost(logging.WARNING, "the router has ended, waiting for the next one")
                return
            message, descriptors = packet
            if isinstance(message, Handover):
                self._guarded("connection", self._take_connection, message, descriptors)
            elif message["type"] in _ARRIVING:
                self._guarded("sessions", self._take_sessions, message, descriptors)
            elif message["type"] in _CLAIMS:
                self._guarded("claim", self._take_claim, message, descriptors)
            else:
                channel.close_all(descriptors)
                self._handle(message)

    def _guarded(self, what: str, task: Callable[..., object], *args: Any) -> None:
        """Handle a message; reconnect if it is malformed, and only log any other error."""
        try:
            task(*args)
        except ChannelError as error:
            self._lost(logging.ERROR, "invalid message from the router: %s", error)
        except Exception as error:
            self._fail("router-message", f"{what}: {error!r}")

    def _fail(self, reason: str, source: str) -> None:
        self._log_failure(self._failures.counted(reason, source))

    def _log_failure(self, line: str) -> None:
        if line:
            self._runtime.log(logger, logging.WARNING, "%s", line)

    def _handle(self, message: Message) -> None:
        kind = message["type"]
        if kind == "welcome":
            self._guarded(kind, self._take_welcome, message)
        elif kind == "members":
            self._guarded(kind, self._take_members, message)
        elif kind == "query":
            self._guarded(kind, self._on_query, message)
        elif kind == "stopping":
            self._take_stopping(message)
        elif kind == "journals":
            self.journals.tell()
        elif run_once.handles(kind):
            self._guarded(kind, self.run_once.handle, message)
        elif kind == "pass":
            self._guarded(kind, self._passing.wants, message)
        elif kind == "no-pass":
            self._passing.end(str(message.get("reason")))
        elif kind == "left":
            self._left.set()
        elif kind == "drains":
            self._drains.set()
        elif kind == "refused":
            self.close()
            self._on_refused(Refused(str(message.get("reason"))))
        else:
            text = "invalid message from the router: unexpected type %r"
            self._lost(logging.ERROR, text, kind)

    def _take_connection(self, message: Handover, descriptors: list[int]) -> None:
        if len(descriptors) != 1:
            raise ChannelError("a connection without its descriptor")
        (descriptor,) = descriptors
        if descriptor >= ceiling(_RESERVE):
            sock: Any = socket.SocketType(fileno=descriptor)
            if message.placed:  # a client waits for the response to its request
                answer(sock, "503 Service Unavailable", message.prefix, self._origins())
            sock.close()
            self._on_lost(message)
            return
        self._runtime.descriptor_opened(descriptor)
        try:
            self._on_connection(descriptor, message)
        except Exception:
            os.close(descriptor)
            raise

    def _take_sessions(self, message: Message, descriptors: list[int]) -> None:
        for descriptor in descriptors:
            self._runtime.descriptor_opened(descriptor)
        kept = False
        try:
            kept = self._arriving.handle(message, descriptors)
        finally:
            if not kept:
                channel.close_all(descriptors)

    def _take_claim(self, message: Message, descriptors: list[int]) -> None:
        for descriptor in descriptors:
            self._runtime.descriptor_opened(descriptor)
        try:
            self.claims.handle(message, descriptors)
        finally:
            channel.close_all(descriptors)

    def _lose_descriptors(self, message: Message) -> None:
        self._arriving.lost_descriptors(message)
        self.claims.lost_descriptors(message)

    def _take_stopping(self, message: Message) -> None:
        if message.get("all"):
            self.all_stop = True
            self._passing.end("")
        self._on_stopping(True)

    def _take_welcome(self, message: Message) -> None:
        channel.check_version(message, "the router")
        self.welcomed = True
        same_host = self._sock is not None and channel.peer_of(self._sock).pid != 0
        self._ancestors.take_supervisord(message["supervisord"], same_host)
        self._wait_for("welcome", self._on_settings, message)
        self.run_once.welcome(bool(message.get("run_once")))

    def _take_members(self, message: Message) -> None:
        """Handle a part of the list of members, or of its changes."""
        if message["first"]:
            self._members = {}
        self._members.update((row[0], row) for row in message["members"])
        for tag in message["gone"]:
            self._members.pop(tag, None)
        if message["last"]:
            self._wait_for("members", self._on_members, list(self._members.values()))

    def _wait_for(self, what: str, task: Callable[..., None], *args: Any) -> None:
        """Handle a message with a callback that may wait, and pause reading meanwhile."""
        self._handling = True
        self._stop_reading()
        self._runtime.spawn(self._do(what, task, *args))

    async def _do(self, what: str, task: Callable[..., None], *args: Any) -> None:
        self._guarded(what, task, *args)
        self._handling = False
        self._listen()

    # --- messages to the router -----------------------------------------------------------

    def ready(self, channels: dict[str, Optional[int]]) -> None:
        """Tell the router that this worker takes connections from now on.

        :param channels: the relay's channels that this worker receives, each with the descriptor
            of its tally, which stays open.
        """
        self._channels = channels
        self._send_ready()

    def _send_ready(self) -> None:
        if self._channels is None:
            return
        for name, tally in self._channels.items():
            if tally is not None:
                self.post({"type": "tally", "channel": name}, [tally])
        told: dict[str, Any] = {"takes": self._arriving.takes, "recovers": self._arriving.recovers}
        origins = self._origins()
        if may_be_told(origins):
            told["origins"] = origins
        self.post({"type": "ready", "channels": list(self._channels), **told})

    def _origins(self) -> dict[str, bool]:
        return origins_of(engine.options for engine in self._runtime.engines)

    def draining(self) -> None:
        """Tell the router to send no new sessions, only requests of this worker's sessions."""
        self._draining = True
        self.post({"type": "draining"})
        if self._sock is None:
            self._outgoing.keep_all()

    async def drains(self) -> None:
        """Wait until the router has reported whether supervisord stops everything."""
        if self.welcomed:
            await self._drains.wait(LEAVE_TIMEOUT)

    async def leave(self) -> None:
        """Wait until the router will send no more connections."""
        if self._sock is not None:
            self._reporting.report()  # include the last counts in the router's sums
            self.post({"type": "leaving"})
            await self._left.wait(LEAVE_TIMEOUT)

    def hand_back(self, known: Handover, connection: Mover) -> None:
        """Hand a connection back to this router or the next one, then call :meth:`.Mover.moved`.

        It stays here if this worker drains and no router is connected.

        :raises ChannelError: if the message is too long.
        """
        self._outgoing.add_move(handover.encode(*known), connection)
        if self._sock is None and self._draining:
            self._outgoing.keep_all()
        self._flush()

    async def send(self, message: Message) -> bool:
        """Wait until the router takes messages, and send one; false if there is no router, or the
        queue is full.
        """
        data = channel.encode(message)
        while self._blocked is not None:
            await self._blocked.wait()
        if self._sock is None or not self._outgoing.has_room:
            return False
        self._outgoing.add(data)
        self._flush()
        return True

    def post(self, message: Message, descriptors: Sequence[int] = (), own: bool = False) -> None:
        """Queue a message about this worker; without a router, drop it.

        :param descriptors: must stay open until the message is sent or withdrawn.
        :param own: whether to close them here afterwards.
        """
        if self._sock is not None:
            self._outgoing.add(channel.encode(message), descriptors, own)
            self._flush()
        elif own:
            channel.close_all(descriptors)

    def say_now(self, message: Message) -> bool:
        """Send a message before all queued ones; true if a router will read it even if this process
        ends: data sent through a Unix socket is in the receiver's buffer when send() returns."""
        sock = self._free_sock()
        if sock is None:
            return False
        try:
            channel.send(sock, message)
        except OSError:
            return False
        return True

    @property
    def unanswered(self) -> bool:
        """Whether no router has sent anything on this connection yet."""
        if self._sock is None or self.welcomed:
            return False
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def withdraw(self, descriptors: Sequence[int]) -> None:
        """Drop a queued message with these descriptors."""
        self._outgoing.withdraw(descriptors)

    def _flush(self) -> None:
        if self._sock is None or self._blocked is not None:
            return
        try:
            self._outgoing.send_all(self._sock)
        except BlockingIOError:
            self._blocked = self._runtime.event()
            self._writing = self._runtime.add_writer(self._sock.fileno(), self._writable)
        except Blocked:
            self._blocked = self._runtime.event()
            self._writing = self._runtime.call_later(_RETRY, self._writable)
            text = "messages to the router are delayed"
            self._log_failure(self._failures.noted(channel.ON_THEIR_WAY, text))
        except RouterGone:
            pass  # _readable() notices it, after reading the router's last messages

    def _writable(self, _descriptor: int = -1) -> None:
        self._stop_writing()
        self._flush()

    def _stop_writing(self) -> None:
        writing, self._writing = self._writing, None
        blocked, self._blocked = self._blocked, None
        if writing is not None:
            writing.cancel()
        if blocked is not None:
            blocked.set()

    # --- sessions that move ---------------------------------------------------------------

    def adopt_by(self, adopter: Adopter, takes: int, recovers: int = 0) -> None:
        """Let this worker adopt sessions of others; call it before :meth:`ready`.

        :param takes: the format of sessions that it supports; 0 for none.
        :param recovers: the format of journals that it supports; 0 for none.
        """
        self._arriving.adopter = adopter
        self._arriving.takes, self._arriving.recovers = takes, recovers
        self._most_descriptors = MAX_DESCRIPTORS

    @property
    def not_passed(self) -> str:
        """Why ``pass_on`` did not pass on all sessions, see :mod:`supervisor_sio.common.reasons`;
        empty if supervisord stops everything."""
        return self._passing.failed

    # --- regular checks ---------------------------------------------------------------------

    def _free_sock(self) -> Optional[Any]:
        """The socket, if no message is queued; otherwise ``None``."""
        return self._sock if self._blocked is None else None

    def _look(self) -> None:
        self._looking = self._runtime.call_later(_LOOK, self._look)
        self.journals.drop_old(time.monotonic())
        if self._ancestors.gone:
            self._on_stopping(False)
        self._reporting.report()
