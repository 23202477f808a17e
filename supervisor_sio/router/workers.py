"""The channels to the workers: who joins, what they report, what goes over."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import socket
import time
from collections import Counter, deque
from typing import Any, Callable, Optional, Protocol, Union

from ..common import channel, handover, reasons
from ..common.channel import ChannelError, DescriptorsLost, Message
from ..common.figures import read_report
from ..common.handover import Handover
from ..common.limits import MAX_CHANNELS, TALLIES
from ..common.processes import is_descendant
from ..common.refusals import Refusals
from ..common.request import Kind
from ..relay import tally
from ..relay.tally import Sent
from .connection import Connection
from .membership import Membership
from .placement import Placement
from .pool import Member
from .queries import Queries
from .sums import add_gone
from .throttle import Throttle

logger = logging.getLogger("supervisor_sio.router")

#: Packets read from one worker before other descriptors get a turn.
_BATCH = 64

_TAG = re.compile(r"[0-9A-Za-z_-]{1,64}")
_LONGEST_NAME = 256

#: Seconds in which workers that lived through another router are back. Until
#: then nobody is told that one is missing.
_SETTLE_TIME = 1.0

#: Seconds without a report after which a worker hangs, and between looks. A worker that
#: is well reports every two.
_SILENCE = 6.0
_LOOK = 1.0

#: Seconds without new workers after one could not be accepted.
_PAUSE = 0.1

#: Seconds to wait while too many descriptors are on their way (unix(7), ETOOMANYREFS).
_CROWDED = 0.05

#: Seconds over which changes of the membership are gathered: when hundreds of workers
#: start, each of them is told of many at a time.
_GATHER = 0.05


class Meter(Protocol):
    """Who measures what happens here."""

    def handed_over(self, seconds: float) -> None: ...

    def reported(self, member: Member) -> None: ...


class Workers:
    """Listens for workers at ``router.sock``.

    :param welcome: the settings that every worker gets.
    :param drained: whether the operator drains the process of this name and pid.
    :param ceiling: below it are the numbers of descriptors that may be taken back.
    :param changed: called when a worker has joined or left.
    :param members_here: gets the workers here that hear the relay.
    :param hear_supervisord: reads what supervisord has sent so far.
    :param ended: gets the tag of each worker that has ended, and its tally on each channel.
    :param meter: is told how long each hand-over took, and of figures that came.
    """

    def __init__(
        self,
        listener: socket.socket,
        placement: Placement,
        welcome: Message,
        place_again: Callable[[Connection], None],
        drained: Callable[[str, int], bool],
        refusals: Refusals,
        ceiling: Callable[[], int],
        changed: Callable[[], None],
        members_here: Callable[[list[Any]], None],
        hear_supervisord: Callable[[], None],
        ended: Callable[[str, str, Sent], None],
        meter: Optional[Meter] = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.placement = placement
        self.welcome = {"type": "welcome", "version": channel.VERSION, **welcome}
        self.place_again = place_again
        self.drained = drained
        self.ceiling = ceiling
        self.changed = changed
        self.members_here = members_here
        self.hear_supervisord = hear_supervisord
        self.ended = ended
        self.meter = meter
        self.handed_over = 0
        self.handed_back = 0
        #: What workers that have left had counted, as :mod:`.sums` adds it up.
        self.gone: Counter[str] = Counter()
        self._refusals = refusals
        self._listener = listener
        self._channels: set[WorkerChannel] = set()
        self.queries = Queries(self.loop, self._ask)
        self._settled = False
        #: Whether supervisord stops all that it has started, one after the other.
        self.all_stop = False
        self.membership = Membership()
        self.members_changed = Throttle(self.loop, _GATHER, self._publish)
        #: The workers of other hosts, as the message has them.
        self._elsewhere: list[Any] = []

    def __len__(self) -> int:
        return len(self._channels)

    def listen(self) -> None:
        """Let workers in; those that lived through another router have connected already."""
        self._listener.setblocking(False)
        self.loop.add_reader(self._listener, self._accept)
        self._accept()
        self.loop.call_later(_SETTLE_TIME, self._settle)
        self.loop.call_later(_LOOK, self._look, self.loop.time() + _LOOK)

    def _look(self, due: float) -> None:
        """Place nothing more at workers that hang."""
        now = self.loop.time()
        self.loop.call_later(_LOOK, self._look, now + _LOOK)
        if now > due + _LOOK:
            return  # it was this process that could not run: their reports may wait in here
        for worker in self._channels:
            member = worker.member
            if member is None or not member.ready or member.hung:
                continue
            if now - worker.heard_at > _SILENCE:
                member.hung = True
                logger.warning(
                    "worker %s hangs (pid %d): no new sessions until it reports again",
                    member.name,
                    member.pid,
                )
                self.changed()

    def heard(self, member: Member) -> None:
        """It has reported."""
        if member.hung:
            member.hung = False
            logger.info("worker %s is back (pid %d)", member.name, member.pid)
            self.placement.ready(member)
            self.changed()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue
            except OSError as error:
                # Out of descriptors, most likely: let some go before the next try.
                self._refusals.count(reasons.WORKER_ACCEPT_FAILED, str(error))
                self.loop.remove_reader(self._listener)
                self.loop.call_later(_PAUSE, self.loop.add_reader, self._listener, self._accept)
                return
            newcomer = WorkerChannel(self, sock)
            self._channels.add(newcomer)
            # What it sent while it waited for us is there already: its sessions
            # must be known before the first client's request.
            newcomer.read()

    def join(self, newcomer: WorkerChannel, hello: Message) -> Member:
        """:raises ChannelError: when the hello is not acceptable."""
        if hello["type"] != "hello":
            raise ChannelError(f"expected hello, not {hello['type']!r}")
        channel.check_version(hello, "the worker")
        tag, name = hello.get("tag"), hello.get("name")
        if not (isinstance(tag, str) and _TAG.fullmatch(tag)):
            raise ChannelError("a hello without tag and name")
        if not (isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME and name.isprintable()):
            raise ChannelError("a hello without tag and name")
        for other in [c for c in self._channels if c.member is not None and c.member.tag == tag]:
            if other.pid != newcomer.pid:
                raise ChannelError(f"tag {tag} belongs to pid {other.pid}")
            other.lose("it has connected again")
        member = Member(tag, name, newcomer.pid)
        member.drained = self.drained(name, newcomer.pid)
        self.placement.join(member, newcomer)
        return member

    def ready(self, member: Member, channels: Any) -> None:
        """:raises ChannelError: when the channels are none."""
        if not isinstance(channels, list) or not all(isinstance(c, str) for c in channels):
            raise ChannelError("a ready without its channels")
        if channel.row_size(channels) > MAX_CHANNELS // 2:
            raise ChannelError("a ready with too many channels")
        member.ready = True
        member.channels = channels
        logger.info("worker %s joins (pid %d, tag %s)", member.name, member.pid, member.tag)
        self.placement.ready(member)
        self.members_changed()
        self.changed()

    def _publish(self) -> None:
        """Tell every worker who hears the relay."""
        if not self._settled:
            return
        here = [
            [worker.member.tag, False, worker.member.channels]
            for worker in self._channels
            if worker.member is not None and worker.member.channels
        ]
        self.members_here(here)
        self.membership.set([*self._elsewhere, *here])
        for worker in list(self._channels):
            worker.flush()

    def set_elsewhere(self, members: list[Any]) -> None:
        """The workers of other hosts have changed."""
        self._elsewhere = [row for row in members if channel.row_size(row) <= MAX_CHANNELS]
        self.members_changed()

    def stopping(self, pid: int) -> None:
        """supervisord stops the process with this pid: a worker, or a wrapper around one."""
        known = [worker for worker in self._channels if worker.member is not None]
        concerned = [worker for worker in known if worker.pid == pid] or [
            worker for worker in known if is_descendant(worker.pid, pid)
        ]
        for worker in concerned:
            worker.tell_stopping()

    def _settle(self) -> None:
        self._settled = True
        self.members_changed()

    def _ask(self, question: Message) -> tuple[dict[str, str], int]:
        asked: dict[str, str] = {}
        missing = 0
        for worker in self._channels:
            member = worker.member
            if member is None or not member.ready or question["tag"] not in ("", member.tag):
                continue
            if worker.ask(question):
                asked[member.tag] = member.name
            else:
                missing += 1
        return asked, missing

    def count_refusal(self, reason: str, source: str) -> None:
        self._refusals.count(reason, source)

    def leave(self, gone: WorkerChannel, reason: str) -> None:
        self._channels.discard(gone)
        member = gone.member
        if member is None:
            if reason:
                self._refusals.count(reasons.BAD_WORKER, f"pid {gone.pid}: {reason}")
            return
        self.queries.lost(member.tag)
        add_gone(self.gone, member)
        self.placement.leave(member, gone)
        if member.channels:
            self.members_changed()
        if member.draining:
            logger.info("worker %s leaves (pid %d)", member.name, member.pid)
        else:
            detail = f": {reason}" if reason else ""
            logger.warning("worker %s is lost (pid %d)%s", member.name, member.pid, detail)
        self.changed()


class WorkerChannel:
    """The channel to one worker. A full one shows as ``busy`` at its member."""

    def __init__(self, workers: Workers, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._workers = workers
        self._sock = sock
        #: Messages other than connections that the worker has yet to take.
        self._outbox: deque[bytes] = deque()
        self._closed = False
        self._blocked = False  # until the worker reads what was sent
        #: The version of the membership that it was told, or is about to be.
        self._known = 0
        #: The descriptors of the worker's tallies, by channel of the relay.
        self._tallies: dict[str, int] = {}
        self.pid = channel.peer_of(sock).pid
        self.member: Optional[Member] = None
        #: When it has last reported, by the loop's clock.
        self.heard_at = workers.loop.time()
        workers.loop.add_reader(sock, self.read)
        self._process = self._watch_process()

    def _watch_process(self) -> int:
        """A descriptor of the worker's process, or -1.

        What the worker has forked keeps the channel open, but cannot serve its sessions.
        """
        try:
            process = os.pidfd_open(self.pid)
        except ProcessLookupError:
            self._workers.loop.call_soon(self._process_ended)
            return -1
        except (OSError, AttributeError):
            return -1  # before Linux 5.3, or not of this pid namespace: the channel must do
        self._workers.loop.add_reader(process, self._process_ended)
        return process

    def _process_ended(self) -> None:
        while self.read():
            pass
        self.lose("")

    def read(self) -> bool:
        """Handle what the worker has sent; false when there is no more of it now."""
        try:
            for _ in range(_BATCH):
                try:
                    packet = handover.receive(self._sock)
                except DescriptorsLost:
                    self._lost_one()
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
            self._take_tally(message, descriptors)
            return
        channel.close_all(descriptors)
        if member is None:
            self.member = self._workers.join(self, message)
            self._post(self._workers.welcome)
        elif kind == "load":
            self._update(member, message)
        elif kind == "answer":
            self._workers.queries.answer(member.tag, message)
        elif kind == "ready":
            self._workers.ready(member, message.get("channels"))
        elif kind == "draining":
            member.draining = True
        elif kind == "leaving":
            self._leave()
        else:
            raise ChannelError(f"unknown type {kind!r}")

    def _take_tally(self, message: Message, descriptors: list[int]) -> None:
        """Memory in which the worker counts what it sends: it is read when it has ended."""
        name = message.get("channel")
        old = self._tallies.pop(name, None) if isinstance(name, str) else None
        if old is not None:
            os.close(old)
        if not isinstance(name, str) or len(descriptors) != 1 or len(self._tallies) >= TALLIES:
            channel.close_all(descriptors)
            raise ChannelError("a tally that is none, or one too many")
        self._tallies[name] = descriptors[0]

    def _read_tallies(self) -> None:
        for name, descriptor in self._tallies.items():
            sent = tally.read(descriptor)
            os.close(descriptor)
            if sent is not None and self.member is not None:
                self._workers.ended(self.member.tag, name, sent)
        self._tallies.clear()

    def _leave(self) -> None:
        """The worker is about to end: whatever was sent to it is on its way before "left"."""
        assert self.member is not None
        self._workers.placement.leave(self.member, self)
        self.member.channels = []
        self._workers.members_changed()
        # It waits for "left", and has to know by then whether supervisord stops it.
        self._workers.hear_supervisord()
        if self._workers.all_stop:
            self.tell_stopping()
        self._post({"type": "left"})

    def _update(self, member: Member, message: Message) -> None:
        try:
            member.figures = read_report(message)
        except ValueError as error:
            raise ChannelError(f"a load whose {error}") from None
        self.heard_at = self._workers.loop.time()
        self._workers.heard(member)
        if self._workers.meter is not None:
            self._workers.meter.reported(member)

    def _lost_one(self) -> None:
        self._workers.count_refusal(reasons.NO_DESCRIPTOR, f"a worker (pid {self.pid})")

    def _take_back(self, message: Handover, descriptors: list[int]) -> None:
        if len(descriptors) != 1 or self.member is None:
            channel.close_all(descriptors)
            raise ChannelError("a connection without its descriptor, or of a stranger")
        if descriptors[0] >= self._workers.ceiling():
            channel.close_all(descriptors)
            self._lost_one()
            return
        try:
            sock = socket.socket(fileno=descriptors[0])
        except OSError:
            channel.close_all(descriptors)
            raise ChannelError("a descriptor that is no socket") from None
        self._workers.handed_back += 1
        self._workers.place_again(
            Connection(sock, message.peer, message.local, message.scheme, message.prefix)
        )

    def hand_over(self, connection: Connection) -> bool:
        """Pass a connection on; false when this worker can have none now, or is lost."""
        if self._closed or self._blocked or self.member is None:
            return False
        handshake = connection.kind is Kind.HANDSHAKE
        try:
            data = handover.encode(
                Handover(
                    connection.peer,
                    connection.local,
                    connection.scheme,
                    connection.kind is not None,
                    handshake,
                    connection.prefix,
                )
            )
            channel.send_encoded(self._sock, data, [connection.sock.fileno()])
        except BlockingIOError:
            self._block()
            return False
        except OSError as error:
            if error.errno in (errno.ETOOMANYREFS, errno.ENOBUFS):
                self._block(_CROWDED)
                return False
            if error.errno != errno.EBADF:
                self.lose(str(error))
                return False
            self._drop(connection, error)
        except Exception as error:
            # Nothing that one connection is may keep the others from this worker.
            self._drop(connection, error)
        else:
            if handshake:
                self.member.handshakes += 1
            self._workers.handed_over += 1
            if self._workers.meter is not None:
                self._workers.meter.handed_over(time.monotonic() - connection.since)
        connection.sock.close()
        return True

    def _drop(self, connection: Connection, error: Exception) -> None:
        self._workers.count_refusal(reasons.BAD_CONNECTION, f"{connection.address}: {error}")

    def _block(self, seconds: Optional[float] = None) -> None:
        """Send no more until the worker reads, or for some seconds."""
        self._blocked = True
        if self.member is not None:
            self.member.busy = True
        if seconds is None:
            self._workers.loop.add_writer(self._sock, self._unblock)
        else:
            self._workers.loop.call_later(seconds, self._unblock)

    def _unblock(self) -> None:
        if self._closed or not self._blocked:
            return
        self._workers.loop.remove_writer(self._sock)
        self._blocked = False
        self.flush()
        if self.member is not None and not self._blocked and not self._closed:
            self.member.busy = False
            self._workers.placement.resume(self.member)

    def _post(self, message: Message) -> None:
        self._outbox.append(channel.encode(message))
        self.flush()

    def flush(self) -> None:
        """Send what waits, and what is new about the other workers."""
        membership = self._workers.membership
        while not (self._closed or self._blocked):
            if not self._outbox and self.member is not None and self._known != membership.version:
                # All of it at a time: a worker that is slow to read misses what came between.
                self._outbox.extend(membership.since(self._known))
                self._known = membership.version
            if not self._outbox:
                return
            try:
                channel.send_encoded(self._sock, self._outbox[0])
            except BlockingIOError:
                self._block()
            except OSError as error:
                self.lose(str(error))
            else:
                self._outbox.popleft()

    def ask(self, question: Message) -> bool:
        """Whether the worker takes a question now."""
        try:
            channel.send(self._sock, question)
            return True
        except (OSError, ChannelError):
            return False

    def tell_stopping(self) -> None:
        assert self.member is not None
        self.member.draining = True
        self._post({"type": "stopping"})

    def lose(self, reason: str) -> None:
        """The channel is over; what waits for this worker finds another."""
        if self._closed:
            return
        self._closed = True
        self._workers.loop.remove_reader(self._sock)
        self._workers.loop.remove_writer(self._sock)
        self._sock.close()
        if self._process >= 0:
            self._workers.loop.remove_reader(self._process)
            os.close(self._process)
        self._read_tallies()
        self._workers.leave(self, reason)
