"""The channel to one worker: connections, sessions and messages in both directions."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import time
from collections import deque
from typing import Callable, Optional, Protocol, Sequence, Union

from ..common import channel, event_figures, handover, reasons
from ..common.channel import ChannelError, DescriptorsLost, Message
from ..common.figures import read_report
from ..common.handover import Handover
from ..common.limits import MAX_DESCRIPTORS
from ..common.request import HANDSHAKE
from ..relay.tally import Sent
from .claims import Claims
from .connection import Connection
from .held import Held
from .membership import Membership
from .placement import Placement
from .pool import Member
from .queries import Queries
from .run_once import RunOnce
from .tallies import Tallies

#: Packets read from one worker before other descriptors get a turn.
_BATCH = 64

#: Seconds to wait while too many descriptors are in transit, see :data:`.channel.CROWDED`.
_CROWDED = 0.05


class Meter(Protocol):
    """Measures hand-overs and reports, for the metrics."""

    def handed_over(self, seconds: float) -> None: ...

    def reported(self, member: Member) -> None: ...


class Owner(Protocol):
    """What a channel needs of :class:`.workers.Workers`, which owns all channels."""

    loop: asyncio.AbstractEventLoop
    placement: Placement
    held: Held
    membership: Membership
    queries: Queries
    claims: Claims
    run_once: RunOnce
    meter: Optional[Meter]
    #: The first message to each worker.
    welcome: Message
    all_stop: bool
    handed_over: int
    handed_back: int
    place_again: Callable[[Connection], None]
    ceiling: Callable[[], int]
    hear_supervisord: Callable[[], None]
    ended: Callable[[str, str, Sent], None]

    def join(self, newcomer: WorkerChannel, hello: Message) -> Member: ...

    def ready(self, member: Member, message: Message) -> None: ...

    def heard(self, member: Member) -> None: ...

    def members_changed(self) -> None: ...

    def count_refusal(self, reason: str, source: str) -> None: ...

    def note_crowded(self, pid: int) -> None: ...

    def leave(self, gone: WorkerChannel, reason: str) -> None: ...

    def over(self, gone: WorkerChannel) -> None: ...

    def died(self, gone: WorkerChannel) -> None: ...


class WorkerChannel:
    """The channel to one worker. While it is full, its member is ``busy``."""

    def __init__(self, workers: Owner, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._workers = workers
        self._sock = sock
        #: Messages that are not sent yet; connections are not queued.
        self._outbox: deque[bytes] = deque()
        self._closed = False
        self._blocked = False  # until the worker has read some of what was sent
        #: The version of the membership that was sent, or queued.
        self._known = 0
        #: Whether the worker has left, or its process has ended.
        self._has_ended = False
        #: Whether its process has ended.
        self.has_died = False
        self._tallies = Tallies()
        self.pid = channel.peer_of(sock).pid
        self.member: Optional[Member] = None
        workers.loop.add_reader(sock, self.read)
        self._process = self._watch_process()

    def _watch_process(self) -> int:
        """A descriptor of the worker's process, or -1.

        The channel alone does not show the process's end: a process that the worker has forked
        keeps it open, but cannot serve its sessions.
        """
        try:
            process = os.pidfd_open(self.pid)
        except ProcessLookupError:
            self._workers.loop.call_soon(self._process_ended)
            return -1
        except (OSError, AttributeError):
            return -1  # before Linux 5.3, or in another pid namespace: rely on the channel
        self._workers.loop.add_reader(process, self._process_ended)
        return process

    def _process_ended(self) -> None:
        has_left, self._has_ended, self.has_died = self._has_ended, True, True
        if not self._closed:
            self.read_all()
            self.lose("")
        elif has_left:
            self._workers.died(self)
        else:
            self._workers.over(self)

    @property
    def is_over(self) -> bool:
        """Whether the worker will not connect again."""
        return self._has_ended or self._process < 0

    def unwatch(self) -> None:
        """Stop watching its process."""
        process, self._process = self._process, -1
        if process >= 0:
            self._workers.loop.remove_reader(process)
            os.close(process)

    def read_all(self) -> None:
        """Handle everything that the worker has sent."""
        while not self._closed and self.read():
            pass

    def read(self) -> bool:
        """Handle packets that the worker has sent; false when there are no more now."""
        try:
            for _ in range(_BATCH):
                try:
                    packet = handover.receive(self._sock, MAX_DESCRIPTORS)
                except DescriptorsLost as lost:
                    self._lost_one()
                    if not isinstance(lost.message, Handover):
                        self._lost_descriptors(lost.message)
                    continue
                if packet is None:
                    self.lose("")
                    return False
                self._handle(*packet)
            return True
        except BlockingIOError:
            pass
        except ChannelError as error:
            with contextlib.suppress(OSError):
                channel.refuse(self._sock, str(error))
            self.lose(str(error))
        except OSError as error:
            self.lose(str(error))
        return False

    def _handle(self, message: Union[Handover, Message], descriptors: list[int]) -> None:
        member = self.member
        if isinstance(message, Handover):
            self._take_back(message, descriptors)
            return
        kind = message["type"]
        if member is not None and kind == "tally":
            self._tallies.take(message, descriptors)
            return
        if member is not None and self._workers.held.handles(kind):
            self._workers.held.handle(self, message, descriptors)
            return
        if member is not None and self._workers.claims.handles(kind):
            self._workers.claims.handle(self, message, descriptors)
            return
        channel.close_all(descriptors)
        if member is not None and RunOnce.handles(kind):
            self._workers.run_once.handle(self, message)
            return
        if member is None:
            self.member = self._workers.join(self, message)
            self.tell(self._workers.welcome)
        elif kind == "load":
            self._update(member, message)
        elif kind == event_figures.KIND:
            self._update_events(member, message)
        elif kind == "answer":
            self._workers.queries.answer(member.tag, message)
        elif kind == "ready":
            self._workers.ready(member, message)
        elif kind == "draining":
            self._drain(member)
        elif kind == "leaving":
            self._leave()
        else:
            raise ChannelError(f"unknown type {kind!r}")

    def _lost_descriptors(self, message: Message) -> None:
        """:raises ChannelError: when the message is malformed."""
        owner = self._workers.claims if Claims.handles(message["type"]) else self._workers.held
        owner.lost_descriptors(self, message)

    def _leave(self) -> None:
        """The worker is about to end; it receives everything that was sent to it before "left"."""
        assert self.member is not None
        self._has_ended = True
        self._workers.held.leaves(self)
        self._workers.placement.leave(self.member, self)
        self.member.channels = []
        self._workers.members_changed()
        # The worker waits for "left", and must know by then whether all processes stop.
        self._tell_if_all_stop()
        self.tell({"type": "left"})

    def _drain(self, member: Member) -> None:
        """The worker gets no new sessions; before "drains" it learns whether all processes stop."""
        member.draining = True
        self._tell_if_all_stop()
        self.tell({"type": "drains"})

    def _tell_if_all_stop(self) -> None:
        self._workers.hear_supervisord()
        if self._workers.all_stop:
            self.tell_stopping()

    def _update(self, member: Member, message: Message) -> None:
        try:
            member.figures = read_report(message)
        except ValueError as error:
            raise ChannelError(f"a load whose {error}") from None
        self._workers.heard(member)
        if self._workers.meter is not None:
            self._workers.meter.reported(member)

    def _update_events(self, member: Member, message: Message) -> None:
        try:
            member.events = event_figures.read(message)
        except ValueError as error:
            raise ChannelError(f"events of which a {error}") from None

    def _lost_one(self) -> None:
        self._workers.count_refusal(reasons.NO_DESCRIPTOR, f"a worker (pid {self.pid})")

    def _take_back(self, message: Handover, descriptors: list[int]) -> None:
        if len(descriptors) != 1 or self.member is None:
            channel.close_all(descriptors)
            raise ChannelError("a connection without its descriptor, or before a hello")
        if descriptors[0] >= self._workers.ceiling():
            channel.close_all(descriptors)
            self._lost_one()
            return
        try:
            sock = socket.socket(fileno=descriptors[0])
        except OSError:
            channel.close_all(descriptors)
            raise ChannelError("a descriptor that is not a socket") from None
        self._workers.handed_back += 1
        connection = Connection(sock, message.peer, message.local, message.scheme, message.prefix)
        if message.prefix:
            connection.refused_by = self.member.tag
        self._workers.place_again(connection)

    def hand_over(self, connection: Connection) -> bool:
        """Hand a connection over; false when this worker must read first, or is lost."""
        if self._closed or self._blocked or self.member is None:
            return False
        handshake = connection.kind is HANDSHAKE
        try:
            data = handover.encode(
                connection.peer,
                connection.local,
                connection.scheme,
                connection.kind is not None,
                handshake,
                connection.prefix,
            )
            if not self._send(data, [connection.sock.fileno()]):
                return False
        except Exception as error:
            # One bad connection must not keep others from this worker.
            self._drop(connection, error)
        else:
            if handshake:
                self.member.handshakes += 1
            self._workers.handed_over += 1
            if self._workers.meter is not None:
                self._workers.meter.handed_over(time.monotonic() - connection.since)
        connection.sock.close()
        return True

    def pass_on(self, data: bytes, descriptors: Sequence[int]) -> bool:
        """See :meth:`.Carrier.pass_on`; false when this worker must read first, or is lost."""
        return not (self._closed or self._blocked) and self._send(data, descriptors)

    def _send(self, data: bytes, descriptors: Sequence[int]) -> bool:
        """:raises OSError: when a descriptor is bad; other errors block or end the channel."""
        try:
            channel.send_encoded(self._sock, data, descriptors)
        except BlockingIOError:
            self._block()
        except OSError as error:
            if error.errno == errno.EBADF:
                raise
            if error.errno in channel.CROWDED:
                self._block(_CROWDED)
            else:
                self._has_closed(error)
        else:
            return True
        return False

    def _has_closed(self, error: OSError) -> None:
        """Sending failed. Read on: the worker may have sent connections and sessions before it
        closed the channel."""
        if error.errno not in (errno.EPIPE, errno.ECONNRESET):
            self.lose(str(error))
            return
        self._blocked = True
        self._outbox.clear()
        if self.member is not None:
            self.member.busy = True
        # Later, because this may be called from within placing.
        self._workers.loop.call_soon(self.read_all)

    def _drop(self, connection: Connection, error: Exception) -> None:
        self._workers.count_refusal(reasons.BAD_CONNECTION, f"{connection.address}: {error}")

    def _block(self, seconds: Optional[float] = None) -> None:
        """Send nothing more until the worker reads, or for some seconds."""
        self._blocked = True
        if self.member is not None:
            self.member.busy = True
        if seconds is None:
            self._workers.loop.add_writer(self._sock, self._unblock)
        else:
            self._workers.loop.call_later(seconds, self._unblock)
            self._workers.note_crowded(self.pid)

    def _unblock(self) -> None:
        if self._closed or not self._blocked:
            return
        self._workers.loop.remove_writer(self._sock)
        self._blocked = False
        self.flush()
        if self.member is not None and not self._blocked and not self._closed:
            self.member.busy = False
            self._workers.placement.resume(self.member)
            self._workers.held.resume(self)
            self._workers.claims.resume(self)

    def tell(self, message: Message) -> None:
        """Send a message after those that are queued."""
        self._outbox.append(channel.encode(message))
        self.flush()

    def flush(self) -> None:
        """Send the queued messages, and changes of the membership."""
        membership = self._workers.membership
        while not (self._closed or self._blocked):
            if not self._outbox and self.member is not None and self._known != membership.version:
                # Queue one version completely; a slow worker skips the versions in between.
                self._outbox.extend(membership.since(self._known))
                self._known = membership.version
            if not self._outbox:
                return
            try:
                channel.send_encoded(self._sock, self._outbox[0])
            except BlockingIOError:
                self._block()
            except OSError as error:
                self._has_closed(error)
            else:
                self._outbox.popleft()

    def ask(self, question: Message) -> bool:
        """Send a question; false if the worker cannot receive it now."""
        try:
            channel.send(self._sock, question)
            return True
        except (OSError, ChannelError):
            return False

    def tell_stopping(self) -> None:
        assert self.member is not None
        self.member.draining = True
        self.tell({"type": "stopping", "all": self._workers.all_stop})

    def lose(self, reason: str) -> None:
        """End the channel; connections that wait for this worker are placed elsewhere."""
        if self._closed:
            return
        self._closed = True
        self._workers.loop.remove_reader(self._sock)
        self._workers.loop.remove_writer(self._sock)
        self._sock.close()
        if self.member is not None:  # only a registered worker has tallies
            for name, sent in self._tallies.end():
                self._workers.ended(self.member.tag, name, sent)
        self._workers.leave(self, reason)
