"""The connected workers: accept them, notice when they hang or leave, and tell the others."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from typing import Any, Callable, Iterator, Optional

from ..common import channel, reasons
from ..common.channel import ChannelError, Message
from ..common.cors import Origins
from ..common.limits import MAX_CHANNELS
from ..common.processes import is_descendant
from ..common.refusals import Refusals
from ..relay.tally import Sent
from .carrier import Carrier
from .claims import Claims
from .connection import Connection
from .held import Held
from .membership import Membership
from .placement import Placement
from .pool import Member
from .queries import Queries
from .run_once import RunOnce
from .silence import LOOK, Silence
from .sums import add_gone
from .throttle import Throttle
from .worker_channel import Meter, WorkerChannel
from .worker_messages import read_hello, read_ready

logger = logging.getLogger("supervisor_sio.router")

#: Seconds within which the workers of the router before this one connect. Until then, no
#: membership is sent, so that no worker counts as gone.
_SETTLE_TIME = 1.0

#: Seconds without accepting workers after an error.
_PAUSE = 0.1

#: Minimum seconds between two versions of the membership: when hundreds of workers start, each
#: version has many changes.
_GATHER = 0.05


class Workers:
    """Listens for workers at ``router.sock``.

    :param welcome: the settings that every worker receives.
    :param drained: whether the operator has drained the process of this name and pid.
    :param ceiling: the number below which descriptors of connections handed back must be.
    :param changed: called when a worker has joined or left.
    :param members_here: called with the rows of the workers of this host.
    :param hear_supervisord: reads what supervisord has sent so far.
    :param ended: called with tag and name of each ended worker, and each of its tallies.
    :param held: the sessions that workers pass on.
    :param sure_at: until then, workers may hold tasks of the router before this one, in seconds of
        the host's monotonic clock.
    :param meter: measures hand-overs and reports, for the metrics.
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
        held: Held,
        sure_at: float = 0.0,
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
        self.held = held
        self.meter = meter
        self.handed_over = 0
        self.handed_back = 0
        #: The sums over workers that have left, see :mod:`.sums`.
        self.gone: Counter[str] = Counter()
        self._refusals = refusals
        self._listener = listener
        self._channels: set[WorkerChannel] = set()
        self._by_tag: dict[str, WorkerChannel] = {}
        #: Workers whose channel has ended, but not their process, by their tags.
        self._absent: dict[str, WorkerChannel] = {}
        self._silence = Silence(self.loop.time())
        self.queries = Queries(self.loop, self._ask)
        self.claims = Claims(self._carrier_of, self._expects, ceiling)
        self.run_once = RunOnce(
            self._by_tag.get,
            self._catch_up,
            lambda: self.all_stop,
            self.loop.call_later,
            sure_at,
        )
        self._settled = False
        #: Whether supervisord is stopping all its processes.
        self.all_stop = False
        self.membership = Membership()
        self.members_changed = Throttle(self.loop, _GATHER, self._publish)
        #: The origins that the application allows, from the worker that became ready last.
        self.origins: Origins = {}
        #: The rows of the workers of other hosts.
        self.elsewhere: list[Any] = []

    def __len__(self) -> int:
        return len(self._channels)

    def __iter__(self) -> Iterator[WorkerChannel]:
        return iter(self._channels)

    def held_sessions(self) -> int:
        """The number of sessions that wait to be adopted."""
        return self.held.sessions

    def listen(self) -> None:
        """Accept workers; those of the router before this one have connected already."""
        self._listener.setblocking(False)
        self.loop.add_reader(self._listener, self._accept)
        self._accept()
        self.loop.call_later(_SETTLE_TIME, self._settle)
        self.loop.call_later(LOOK, self._look)

    def _look(self) -> None:
        """Notice workers that hang, at which nothing more is placed."""
        self.loop.call_later(LOOK, self._look)
        members = [worker.member for worker in self._channels if worker.member is not None]
        for member in self._silence.look(self.loop.time(), members):
            logger.warning(
                "worker %s hangs (pid %d): no new sessions until it reports again",
                member.name,
                member.pid,
            )
        if any(member.hung for member in members):
            self.changed()  # supervisord may have to kill one at hung_timeout

    def heard(self, member: Member) -> None:
        """A worker has reported."""
        member.reported_at = self.loop.time()
        if member.hung:
            member.is_back()
            logger.info("worker %s is back (pid %d)", member.name, member.pid)
            self.placement.ready(member)
            self.held.look()
            self.run_once.look()
            self.changed()

    def _catch_up(self) -> bool:
        """Accept waiting workers, and handle everything that workers have sent; false when a worker
        cannot be accepted now."""
        if not self._accept():
            return False
        for worker in list(self._channels):
            worker.read_all()
        return True

    def _accept(self) -> bool:
        """Accept all waiting workers; false when one cannot be accepted now."""
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return True
            except ConnectionError:
                continue
            except OSError as error:
                # Most likely out of descriptors: wait until some are closed.
                self._refusals.count(reasons.WORKER_ACCEPT_FAILED, str(error))
                self.loop.remove_reader(self._listener)
                self.loop.call_later(_PAUSE, self.loop.add_reader, self._listener, self._accept)
                return False
            newcomer = WorkerChannel(self, sock)
            self._channels.add(newcomer)
            # Read what it has sent while it waited: its sessions must be known before the first
            # client's request.
            newcomer.read()

    def join(self, newcomer: WorkerChannel, hello: Message) -> Member:
        """:raises ChannelError: when the hello is malformed, or the tag is in use."""
        tag, name, release = read_hello(hello)
        for other in [c for c in self._channels if c.member is not None and c.member.tag == tag]:
            if other.pid != newcomer.pid:
                raise ChannelError(f"tag {tag} belongs to pid {other.pid}")
            other.lose("it has connected again")
        member = Member(tag, name, newcomer.pid, release)
        member.drained = self.drained(name, newcomer.pid)
        member.reported_at = self.loop.time()
        absent = self._absent.pop(tag, None)
        if absent is not None:
            absent.unwatch()
        self.held.back(tag)
        self.placement.join(member, newcomer)
        self._by_tag[tag] = newcomer
        return member

    def ready(self, member: Member, message: Message) -> None:
        """:raises ChannelError: when the message is malformed."""
        member.channels, member.takes, member.recovers, self.origins = read_ready(message)
        self.hear_supervisord()  # it may say, unread so far, that this worker and others start
        member.ready = True
        logger.info("worker %s joins (pid %d, tag %s)", member.name, member.pid, member.tag)
        self.placement.ready(member)
        self.held.look()
        self.run_once.look()
        self.members_changed()
        self.changed()

    def _publish(self) -> None:
        """Send the membership of the relay to every worker."""
        self.claims.look()
        if not self._settled:
            return
        members = [worker.member for worker in self._channels if worker.member is not None]
        rows = [
            *self.held.rows(),
            *([tag, False, m.channels, True] for m in members for tag in m.adopted if m.channels),
            *([m.tag, False, m.channels, False] for m in members if m.channels),
        ]
        # A worker that passes on its sessions still sends, so its own row comes last, and counts.
        here = list({row[0]: row for row in rows}.values())
        self.members_here(here)
        self.membership.set([*self.elsewhere, *here])
        for worker in list(self._channels):
            worker.flush()

    def set_elsewhere(self, members: list[Any]) -> None:
        """The workers of other hosts have changed."""
        self.elsewhere = [row for row in members if channel.row_size(row) <= MAX_CHANNELS]
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
        missing, tag = 0, question["tag"]
        if self.held.has(tag):
            return asked, 1  # the worker that adopts them is not known yet
        for worker in self._channels:
            member = worker.member
            if member is None or not member.ready or (tag and tag not in member.tags):
                continue
            if worker.ask(question):
                asked[member.tag] = member.name
            else:
                missing += 1
        return asked, missing

    def _carrier_of(self, tag: str) -> Optional[Carrier]:
        owner = self.placement.owner(tag)
        return self._by_tag.get(owner.tag) if owner is not None else None

    def _expects(self, tag: str) -> bool:
        """Whether a worker will own the clients with this tag soon."""
        return self.held.keeps(tag) or self.placement.expects(tag)

    def count_refusal(self, reason: str, source: str) -> None:
        self._refusals.count(reason, source)

    def note_crowded(self, pid: int) -> None:
        """Log that connections for this worker wait until other descriptors were received."""
        text = f"a worker (pid {pid}) gets its next connection later"
        line = self._refusals.noted(channel.ON_THEIR_WAY, text)
        if line:
            logger.warning("%s", line)

    def over(self, gone: WorkerChannel) -> None:
        """A worker's channel has ended, and the worker will not connect again."""
        if gone.member is not None:
            self._absent.pop(gone.member.tag, None)
            self.held.over(gone.member)
            if not gone.has_died and self.run_once.has(gone.member.tag):
                return  # its task ends with its process
        self.died(gone)

    def died(self, gone: WorkerChannel) -> None:
        """A worker's process has ended, or need not be watched any more."""
        if gone.has_died and gone.member is not None:
            self.run_once.died(gone.member.tag)
        gone.unwatch()

    def leave(self, gone: WorkerChannel, reason: str) -> None:
        self._channels.discard(gone)
        member = gone.member
        if member is None:
            if reason:
                self._refusals.count(reasons.BAD_WORKER, f"pid {gone.pid}: {reason}")
            gone.unwatch()
            return
        if self._by_tag.get(member.tag) is gone:
            del self._by_tag[member.tag]
        self.queries.lost(member.tag)
        add_gone(self.gone, member)
        self.held.leaves(gone)
        self.placement.leave(member, gone)
        self.held.lost(gone)
        self.run_once.lost(gone)
        stays = self.held.has_journals(gone) or self.run_once.has(member.tag)
        if gone.is_over or not stays:
            self.over(gone)
        else:
            self._absent[member.tag] = gone
        self.claims.lost(gone)
        if member.channels:
            self.members_changed()
        if member.draining:
            logger.info("worker %s leaves (pid %d)", member.name, member.pid)
        else:
            detail = f": {reason}" if reason else ""
            logger.warning("worker %s is lost (pid %d)%s", member.name, member.pid, detail)
        self.changed()
