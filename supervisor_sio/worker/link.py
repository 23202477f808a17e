"""The worker's channel to the router.

The socket it connects to belongs to supervisord, so a worker that lost its
router simply connects again and waits there for the next one.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any, Callable, Optional, Sequence, Union

import eventlet
from eventlet import hubs, patcher
from eventlet.event import Event
from eventlet.semaphore import Semaphore

from ..common import channel, handover, identity
from ..common.channel import ChannelError, DescriptorsLost, Message
from ..common.descriptors import ceiling
from ..common.handover import Handover
from ..common.limits import LEAVE_TIMEOUT
from ..common.processes import lineage, parent_of
from ..common.refusals import Refusals
from ..common.rundir import RunDir
from ..common.unavailable import answer

logger = logging.getLogger("supervisor_sio.worker")

# Green sockets have no sendmsg and recvmsg, and need none of eventlet's own waiting.
_socket: Any = patcher.original("socket")

#: Seconds over which changes of the figures are gathered into one message.
_GATHER = 0.02

#: Seconds between looks at what changes without a request, such as a ping timeout.
_LOOK = 1.0

#: Seconds between reports at most: a worker that is silent for longer hangs.
_HEARTBEAT = 2.0

_RETRY = 0.2

#: Descriptors that are not for clients: for the channel, for ZeroMQ, which ends the
#: process when it gets none, and for the application.
_RESERVE = 64


class Refused(Exception):
    """The router does not want this worker; the text says why."""


class Link:
    """One worker's end of the channel, through however many routers.

    :param on_settings: gets the router's settings with each new router.
    :param on_connection: gets each connection: its descriptor, and what is known of it.
    :param on_lost: gets what is known of each connection for which no descriptor is free.
    :param figures: the worker's figures as a message of type ``load``.
    :param on_members: gets the workers of the cluster, whenever they change: tag,
        whether on another host, and the channels each of them hears.
    :param on_query: gets each question of ``supervisorctl sio``.
    :param on_stopping: called when supervisord stops this worker, and with false when
        what supervisord has started is gone without that.
    """

    def __init__(
        self,
        run_dir: RunDir,
        on_settings: Callable[[Message], None],
        on_connection: Callable[[int, Handover], None],
        on_lost: Callable[[Handover], None],
        figures: Callable[[], Message],
        on_members: Callable[[list[Any]], None],
        on_query: Callable[[Message], None],
        on_stopping: Callable[[bool], None],
    ) -> None:
        self._run_dir = run_dir
        self._on_settings = on_settings
        self._on_connection = on_connection
        self._on_lost = on_lost
        self._figures = figures
        self._on_members = on_members
        self._on_query = on_query
        self._on_stopping = on_stopping
        self._sock: Optional[Any] = None
        self._sending = Semaphore(1)
        self._failures = Refusals(logger)
        self._channels: Optional[dict[str, Optional[int]]] = None
        #: The workers of the cluster by their tags, as the router says them.
        self._members: dict[str, list[Any]] = {}
        self._draining = False
        self._left = Event()
        self._last_figures: Message = {}
        self._last_told = 0.0
        self._gathering = False
        #: This process, and each wrapper between it and supervisord, with its parent.
        self._lineage = [(os.getpid(), os.getppid())]
        self._orphan = False
        #: Which router, counted from 1: figures of one mean nothing to the next.
        self.generation = 0
        #: Whether a router is there: until one is, the other end waits in supervisord's socket.
        self.welcomed = False

    def run(self) -> None:
        """Stay in touch until :meth:`close`, or until supervisord is gone.

        :raises Refused: when the router says no.
        """
        eventlet.spawn_n(self._look)
        while not self._orphaned:
            try:
                self._connect()
                self._read()
            except OSError as error:
                logger.debug("no router at %s: %s", self._run_dir.router, error)
            except ChannelError as error:
                logger.error("the router is not understood: %s", error)
            finally:
                self._disconnect()
            eventlet.sleep(_RETRY)

    @property
    def _orphaned(self) -> bool:
        """Whether supervisord is gone, or a wrapper that it started.

        A signal for a start script without ``exec`` ends only that script.
        """
        if not self._orphan and any(parent_of(pid) != parent for pid, parent in self._lineage):
            self._orphan = True
            logger.error("supervisord or its start script is gone, the worker leaves too")
        return self._orphan

    def _connect(self) -> None:
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        hubs.notify_opened(sock.fileno())
        try:
            sock.setblocking(False)
            sock.connect(self._run_dir.router)
            hello = {
                "type": "hello",
                "version": channel.VERSION,
                "tag": identity.tag(),
                "name": identity.process_name(),
            }
            channel.send(sock, hello)
        except OSError:
            sock.close()
            raise
        self.generation += 1
        self._sock = sock
        self._last_figures = {}
        self._send_figures()
        self._send_ready()
        if self._draining:
            self.send({"type": "draining"})

    def _read(self) -> None:
        while self._sock is not None:
            try:
                packet = handover.receive(self._sock)
            except BlockingIOError:
                hubs.trampoline(self._sock, read=True)
                continue
            except DescriptorsLost as lost:
                if isinstance(lost.message, Handover):
                    self._on_lost(lost.message)
                continue
            if packet is None:
                logger.warning("the router is gone, waiting for the next one")
                return
            try:
                self._handle(*packet)
            except (ChannelError, Refused):
                raise
            except Exception as error:
                # One message that cannot be used must not end this worker's channel.
                message = packet[0]
                what = "connection" if isinstance(message, Handover) else message["type"]
                self._failures.count("router-message", f"{what}: {error!r}")

    def _handle(self, message: Union[Handover, Message], descriptors: list[int]) -> None:
        if isinstance(message, Handover):
            self._take_connection(message, descriptors)
            return
        kind = message["type"]
        channel.close_all(descriptors)
        if kind == "welcome":
            channel.check_version(message, "the router")
            self.welcomed = True
            self._take_lineage(message["supervisord"])
            self._on_settings(message)
        elif kind == "members":
            self._take_members(message)
        elif kind == "query":
            self._on_query(message)
        elif kind == "stopping":
            self._on_stopping(True)
        elif kind == "left":
            if not self._left.ready():
                self._left.send()
        elif kind == "refused":
            raise Refused(str(message.get("reason")))
        else:
            raise ChannelError(f"unexpected type {kind!r}")

    def _take_connection(self, message: Handover, descriptors: list[int]) -> None:
        if len(descriptors) != 1:
            raise ChannelError("a connection without its descriptor")
        if descriptors[0] >= ceiling(_RESERVE):
            with _socket.socket(fileno=descriptors[0]) as sock:
                if message.placed:  # with a request
                    answer(sock, "503 Service Unavailable")
            self._on_lost(message)
            return
        hubs.notify_opened(descriptors[0])
        try:
            self._on_connection(descriptors[0], message)
        except Exception:
            channel.close_all(descriptors)
            raise

    def _take_lineage(self, supervisord: int) -> None:
        """Find the wrappers between supervisord, whose pid this is, and this process."""
        pairs = lineage(os.getpid(), supervisord)
        if pairs:
            self._lineage = pairs
        elif identity.of_supervisord() and self._sock and channel.peer_of(self._sock).pid:
            # Not another pid namespace, where the kernel says 0: the wrapper is gone already.
            self._lineage = [(os.getpid(), supervisord)]

    def _take_members(self, message: Message) -> None:
        """All of them, or what has changed; in parts."""
        if message["first"]:
            self._members = {}
        self._members.update((row[0], row) for row in message["members"])
        for tag in message["gone"]:
            self._members.pop(tag, None)
        if message["last"]:
            self._on_members(list(self._members.values()))

    def _disconnect(self) -> None:
        sock, self._sock = self._sock, None
        self.welcomed = False
        if sock is not None:
            hubs.notify_close(sock.fileno())
            sock.close()

    def ready(self, channels: dict[str, Optional[int]]) -> None:
        """Connections are welcome from now on.

        :param channels: of the relay, on which this worker hears the others, each with
            the descriptor of its tally there.
        """
        self._channels = channels
        self._send_ready()

    def _send_ready(self) -> None:
        if self._channels is None:
            return
        for name, tally in self._channels.items():
            if tally is not None:
                self.send({"type": "tally", "channel": name}, [tally])
        self.send({"type": "ready", "channels": list(self._channels)})

    def draining(self) -> None:
        """Ask the router for no new sessions; requests of those that are here still come."""
        self._draining = True
        with eventlet.Timeout(LEAVE_TIMEOUT, False):  # a router that is stopped reads nothing
            self.send({"type": "draining"})

    def leave(self) -> None:
        """Return when no connection can be on its way to this worker any more."""
        with eventlet.Timeout(LEAVE_TIMEOUT, False):
            if self.send({"type": "leaving"}):
                self._left.wait()

    def abandon(self) -> None:
        """In a forked child: the channel is the parent's."""
        sock, self._sock = self._sock, None
        if sock is not None:
            os.close(sock.detach())

    @property
    def up(self) -> bool:
        return self._sock is not None

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> bool:
        """Send to the router, waiting while it is busy; false when there is none."""
        return self._send(channel.encode(message), descriptors)

    def hand_back(self, connection: Handover, descriptor: int) -> bool:
        """As :meth:`send`; the caller keeps the descriptor."""
        return self._send(handover.encode(*connection), [descriptor])

    def _send(self, data: bytes, descriptors: Sequence[int]) -> bool:
        with self._sending:
            while self._sock is not None:
                try:
                    channel.send_encoded(self._sock, data, descriptors)
                    return True
                except BlockingIOError:
                    try:
                        hubs.trampoline(self._sock, write=True)
                    except OSError:
                        return False
                except OSError:
                    return False
        return False

    def changed(self) -> None:
        """The figures may have changed: tell the router soon."""
        if not self._gathering and self._sock is not None:
            self._gathering = True
            hubs.get_hub().schedule_call_global(_GATHER, self._gathered)

    def _gathered(self) -> None:
        self._gathering = False
        self._send_figures()

    def _look(self) -> None:
        while True:
            eventlet.sleep(_LOOK)
            if self._orphaned:
                self._on_stopping(False)
            self._send_figures()

    def _send_figures(self) -> None:
        # Called by hub timers, which must not wait: a busy router gets them later.
        if self._sock is None:
            return
        try:
            figures = self._figures()
        except Exception as error:  # of the application's manager; the next look may do
            self._failures.count("figures", repr(error))
            return
        now = time.monotonic()
        if figures == self._last_figures and now < self._last_told + _HEARTBEAT:
            return
        try:
            channel.send(self._sock, figures)
            self._last_figures, self._last_told = figures, now
        except OSError:
            pass
