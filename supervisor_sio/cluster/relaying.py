"""The manager's connection to the relay: it joins, sends, receives, and leaves."""

from __future__ import annotations

import atexit
import os
import signal
import time
import uuid
from collections import OrderedDict
from copy import copy
from functools import cached_property, partial
from multiprocessing.util import Finalize
from typing import Any, Awaitable, Callable, Iterable, Mapping, Optional, Sequence

from greenlet import GreenletExit

from ..common import identity
from ..common.refusals import Refusals
from ..common.rundir import ClusterInfo, RunDir, RunDirError
from ..relay import native
from ..relay.journal import Journal
from ..relay.journal_format import Stream
from ..relay.looped import LoopSubscriber
from ..relay.message import EncodedPacket, RelayMessage
from ..relay.methods import ASKER, BRIDGE, MalformedFields, check_fields
from ..relay.publisher import CallSoon, Publisher
from ..relay.subscriber import Deaf, Subscriber
from ..relay.threaded import ThreadSubscriber
from . import sessions
from .lost import Moved
from .scope import Selection, Sent
from .takeover import Takeover

#: Seconds in which a process that serves no clients must reach the relay.
_JOIN_TIMEOUT = 5.0

#: Seconds that such a process, at its end, goes on to wait for workers that lack something and
#: fetch nothing.
_LEAVE_TIMEOUT = 5.0

#: The same for a worker whose loop has ended, for what was emitted until then.
_LAST_TIMEOUT = 2.0

#: Channels whose messages a manager of this process receives.
channels_in_use: set[str] = set()


class RelayUnreachable(RuntimeError):
    """No relay carries the messages of this process; the text says what to look at."""


class Relaying(Takeover):
    """The part of a manager that is connected to the relay, from the first emit on."""

    # From the manager.
    channel: Optional[str]
    write_only: bool
    takeover: bool
    hashes: dict[int, int]
    _outlet: Optional[sessions.Outlet]
    _start_receiving: Callable[[Publisher, RunDir], Subscriber]
    _journal: Optional[Journal]
    _moved: OrderedDict[str, Moved]
    _begin_journal: Callable[[], None]
    send_collected: Callable[[], None]
    _run_tasks_here: Callable[[], None]
    _away_tags: Callable[[Any], set[str]]
    _note_heard: Callable[[RelayMessage, Stream], None]
    _names_of: Callable[[str, Iterable[str]], list[str]]
    _tags_of: Callable[[Any], set[Optional[str]]]
    #: Used where no clients are served.
    _take_members: Callable[[int, Any], None]
    _take_answer: Callable[[Subscriber, RelayMessage], None]
    _end_calls: Callable[[], None]

    def __init__(self, run_dir: Optional[RunDir]) -> None:
        Takeover.__init__(self)
        self._run_dir = run_dir
        #: Whether this process serves clients, or will as soon as its application is
        #: imported: a worker. Any other emits as a write-only manager does.
        self._serves = False
        self._cluster = ClusterInfo()
        self._publisher: Optional[Publisher] = None
        self._joining = native.lock()
        self._subscriber: Optional[Subscriber] = None
        #: How many messages all workers had at the end of :meth:`leave`.
        self._all_have: Optional[int] = None
        #: The fields that were checked last.
        self._checked: Mapping[str, Any] = {}

    def initialize(self) -> None:
        """Start to receive from the other workers; called where clients are served.

        :raises RuntimeError: for a second manager on the same channel in one process.
        """
        if self._run_dir is None:
            self._run_tasks_here()
            return
        if not self.write_only:
            if not self._serves:
                # Its earlier messages have another sender id, under which workers fetch them.
                native.start_thread(partial(finish, *self._take_apart()), "relay-finish")
                self._serves = True
            publisher = self._join_relay()
            if publisher.channel in channels_in_use:
                raise RuntimeError(
                    f"two ZmqManagers on channel {publisher.channel!r} in one process: "
                    "give each Socket.IO server its own channel"
                )
            channels_in_use.add(publisher.channel)
            self._subscriber = self._start_receiving(publisher, self._run_dir)
            self._subscriber.rooms, self._subscriber.packet = self.hashes, self._packet_format()
            self._begin_journal()
        self._get_logger().info("zmq backend initialized.")

    async def wait_joined(
        self, given_up: Callable[[], bool], sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        """Wait until the relay carries messages both ways, or until ``given_up()``.

        :param sleep: waits for so many seconds, as the worker does.
        """
        subscriber = self._subscriber
        if subscriber is None:
            return
        patience = time.monotonic() + _JOIN_TIMEOUT
        while not subscriber.joined and not given_up():
            self._join_relay().probe()
            await sleep(0.02)
            if time.monotonic() > patience:
                patience = time.monotonic() + 60
                self._get_logger().error("no relay yet, waiting: is [eventlistener:sio] running?")

    async def leave(
        self,
        timeout: float,
        sleep: Callable[[float], Awaitable[None]],
        alone: Callable[[], bool],
    ) -> None:
        """Wait until all workers have what this one has sent; called when it is about to end.

        :param timeout: seconds to wait at most.
        :param sleep: waits for so many seconds, as the worker does.
        :param alone: whether the relay has ended for good: nobody can receive or confirm any more.
        """
        publisher, subscriber = self._publisher, self._subscriber
        if publisher is None or subscriber is None:
            return
        deadline = time.monotonic() + timeout

        def until() -> float:
            return 0.0 if alone() else deadline

        missing: list[str] = []
        sent = publisher.sent
        if not publisher.silent and not alone():
            await self._wait_for_members(sleep)  # a new router has not sent the list yet
            await subscriber.wait_confirmed(self._receivers, until, sleep)
            # Mark the end: nothing needs to be fetched later. Wait once more, for what came
            # meanwhile.
            publisher.ends = True
            sent = publisher.sent
            missing = await subscriber.wait_confirmed(self._receivers, until, sleep)
        if alone():
            publisher.expect_no_relay()
        else:
            # If the time was too short, wait_for_last_emits() waits on, and logs what is lost.
            self._all_have = 0 if missing else sent

    def wait_for_last_emits(self) -> None:
        """Wait until all workers have what :meth:`leave` did not wait for, and what was emitted
        after it; called when the loop has ended, and blocks.

        A worker that adopts clients meanwhile may not have received it: only this process can send
        it again.
        """
        publisher, all_have = self._publisher, self._all_have
        if publisher is None or all_have is None or publisher.sent == all_have:
            return
        assert self._run_dir is not None
        subscriber = ThreadSubscriber(publisher, self._run_dir, hears_all=False)
        subscriber.detach()  # the clients have left
        subscriber.start()
        # In a thread, as other greenlets must not run: they would emit more.
        native.run_in_thread(partial(subscriber.finish, _LAST_TIMEOUT), "relay-finish")

    def _receivers(self) -> list[str]:
        """The processes on this host that receive what this process sends to all."""
        subscriber = self._subscriber
        assert subscriber is not None
        # After its sessions were passed on, another process receives under its tags.
        here = {*subscriber.tags, *self._unheard}
        tags = [tag for tag in self._members.receivers if tag not in here]
        return [*tags, BRIDGE] if subscriber.bridged else tags

    @property
    def tally(self) -> Optional[int]:
        """Descriptor of the shared memory in which this worker counts what it sends."""
        tally = None if self._publisher is None else self._publisher.tally
        return None if tally is None else tally.descriptor

    def figures(self) -> dict[str, int]:
        """Counts of messages that this process has received from the relay and sent to it."""
        return {
            "received": getattr(self._subscriber, "received", 0),
            "dropped": getattr(self._subscriber, "dropped", 0),
            "malformed": getattr(self._subscriber, "malformed", 0),
            "sent_again": getattr(self._publisher, "sent_again", 0),
        }

    def _member_left(self, tag: str) -> None:
        if self._subscriber is not None:
            self._subscriber.ended(tag)

    @property
    def hears(self) -> Optional[str]:
        """The channel on which this manager receives, or ``None``."""
        if not self._serves or self._publisher is None or self._subscriber is None:
            return None
        return self._publisher.channel

    def _join_relay(self) -> Publisher:
        publisher = self._publisher
        if publisher is None:
            with native.holding(self._joining):  # several threads may emit for the first time
                publisher = self._publisher or self._join_relay_once()
        return publisher

    def _join_relay_once(self) -> Publisher:
        assert self._run_dir is not None
        try:
            cluster = self._run_dir.read_cluster()
        except RunDirError as error:
            raise RelayUnreachable(str(error)) from None
        if self.channel and self.channel != cluster.channel:
            # The bridge carries only the cluster's own channel.
            cluster = cluster._replace(channel=self.channel, bridged=False)
        self._cluster = cluster
        if self._serves:
            self.host_id = identity.tag()
        else:
            self.host_id = ("" if self.write_only else ASKER) + uuid.uuid4().hex
        publisher = Publisher(self._run_dir, cluster, self.host_id, counted=self._serves)
        publisher.turn, publisher.ending_turn = self._turn, self.send_collected
        if not self._serves:
            self._listen_for_questions(publisher)
        self._publisher = publisher
        atexit.register(self.finish)
        # multiprocessing ends its children without running atexit.
        Finalize(None, self.finish, exitpriority=10)
        return publisher

    def _turn(self) -> Optional[CallSoon]:
        """A function that runs a call at the end of this turn; ``None`` outside the loop's
        thread."""
        outlet = self._outlet
        if outlet is None or outlet.threads is None or not outlet.threads.here:
            return None
        return outlet.call_soon

    def _listen_for_questions(self, publisher: Publisher) -> None:
        """:raises RelayUnreachable: when no relay carries this process's messages in time."""
        assert self._run_dir is not None
        subscriber = ThreadSubscriber(publisher, self._run_dir, hears_all=False)
        if not self.write_only:
            subscriber.on_members = self._take_members
        subscriber.start(partial(self._take_answer, subscriber))
        deadline = time.monotonic() + _JOIN_TIMEOUT
        while not subscriber.joined:
            if time.monotonic() > deadline:
                subscriber.stop()
                publisher.close()
                raise RelayUnreachable(
                    f"no relay answers in {self._run_dir.path}: "
                    "is supervisord running, with [eventlistener:sio]?"
                )
            publisher.probe()
            time.sleep(0.01)
        self._subscriber = subscriber

    def finish(self) -> None:
        """The same as ``close()`` of the managers, where no loop runs; it may block."""
        finish(*self._take_apart())

    def _take_apart(self) -> tuple[Optional[Publisher], Optional[Subscriber]]:
        """Detach publisher and subscriber; the next emit connects anew."""
        atexit.unregister(self.finish)
        publisher, subscriber = self._publisher, self._subscriber
        if isinstance(subscriber, (LoopSubscriber, ThreadSubscriber)):
            self._subscriber = None
        if isinstance(subscriber, LoopSubscriber):
            self._serves = False
        # Other threads that connect anew must not do so as this worker: its numbers are in use.
        self._publisher = None
        if isinstance(subscriber, ThreadSubscriber):
            self._end_calls()
        if isinstance(subscriber, LoopSubscriber):
            subscriber.stop()
            channels_in_use.discard(publisher.channel if publisher is not None else "")
        return publisher, subscriber

    # --- messages from and to other workers ----------------------------------

    def _receive_in_loop(self, publisher: Publisher, run_dir: RunDir) -> Subscriber:
        """Receive in the loop of this thread."""
        subscriber = LoopSubscriber(
            publisher,
            run_dir,
            lives=self.lives,
            living=self._living_senders,
            behind=self._clients_are_behind,
        )
        subscriber.start(self._receive, self._deaf)
        return subscriber

    def _send_to(
        self,
        tags: Iterable[Optional[str]],
        fields: Mapping[str, Any],
        packets: Sequence[EncodedPacket] = (),
        what: str = "a message",
        volatile: bool = False,
    ) -> Optional[Selection]:
        """Send to the workers with these tags, except this one; ``None`` stands for all of them.

        :return: which clients of this process it is for as well.
        """
        number = self._publish_to(tags, fields, packets, what, volatile)
        if self.takeover or self._journal is not None or self._moves:  # clients may arrive
            return Sent(self._scope_of, number)
        return None

    def _publish_to(
        self,
        tags: Iterable[Optional[str]],
        fields: Mapping[str, Any],
        packets: Sequence[EncodedPacket],
        what: str,
        volatile: bool,
        event: Optional[RelayMessage] = None,
    ) -> Optional[int]:
        """Publish to the workers with these tags.

        :param event: the message, if it will be written to the journal: it gets the number under
            which it was published to all.
        :return: the number for :meth:`_scope_of`; ``None`` if it was not published.
        """
        publisher = self._join_relay()
        publisher.check(packets, what)
        publish: Callable[..., Any] = publisher.publish
        if volatile:
            publish = publisher.publish_volatile
        elif event is not None:
            publish = partial(self._publish_event, publisher, event)
        elif self._journal is not None:
            publish = partial(self._publish_kept, publisher)
        wanted = set(tags)
        others = set() if None in wanted else self._others(wanted, fields)
        if None in wanted or (any(map(self._is_unknown, others)) and not _is_answer(fields)):
            published = publish(None, fields, packets)
            return None if published is None else published[0]
        number: Optional[int] = None
        for tag in others:
            for_it = fields
            if len(wanted) > 1:  # one process may receive it under several of them
                for_it = {**fields, "room": self._names_of(tag, fields["room"])}
            if tag == BRIDGE or not self.is_remote(tag):
                published = publish(tag, for_it, packets)
                if len(wanted) == 1 or self._hears_for(tag):
                    number = None if published is None else published[0]
            if tag != BRIDGE and not self.is_local(tag) and self._cluster.bridged:
                publish(BRIDGE, {**for_it, "to": tag}, packets)
        return number

    def _others(self, wanted: Iterable[Optional[str]], fields: Mapping[str, Any]) -> set[str]:
        """Those of these tags that other processes receive, and the tags of clients that have
        moved."""
        is_ours = self._is_ours if self._moves else self.host_id.__eq__
        others = {tag for tag in wanted if tag is not None and not is_ours(tag)}
        if self._journal is not None:
            others |= self._away_tags(fields.get("sid", fields.get("room")))
        return others

    def _publish_event(
        self,
        publisher: Publisher,
        event: RelayMessage,
        tag: Optional[str],
        fields: Mapping[str, Any],
        packets: Sequence[EncodedPacket],
    ) -> tuple[int, Optional[str], int, bytes]:
        """Publish, with ``_tables`` held. The journal notes that its clients have the message, so
        that they need not get it from another worker's stream."""
        published = _, stream, number, data = publisher.publish(tag, fields, packets)
        if stream is None or self._hears_for(stream):
            if tag == stream and fields is event.fields:
                # The journal notes it with the event.
                event.stream, event.sequence, event.packed = stream, number, data
            else:
                self._note_published(stream, number)
        return published

    def _publish_kept(
        self,
        publisher: Publisher,
        tag: Optional[str],
        fields: Mapping[str, Any],
        packets: Sequence[EncodedPacket],
    ) -> tuple[int, Optional[str], int, bytes]:
        """Publish what is not an event, and note it in the journal."""
        with self._tables:  # publishes and notes in the same order
            published = _, stream, number, _ = publisher.publish(tag, fields, packets)
            if stream is None or self._hears_for(stream):
                self._note_published(stream, number)
        return published

    def _note_published(self, stream: Optional[str], number: int) -> None:
        assert self._journal is not None
        self._journal.heard(self.host_id, stream, number)

    def _hears_for(self, tag: str) -> bool:
        """Whether clients of this process are among those that get what is sent to this tag."""
        if tag == self.host_id or tag in self._adopted:
            return True
        subscriber = None if self._journal is None else self._subscriber
        return subscriber is not None and tag in subscriber.guest_tags

    def _is_unknown(self, tag: str) -> bool:
        known = tag == BRIDGE or self._members.receives(tag)
        return self._members.known and not known

    def _publish(self, fields: dict[str, Any]) -> Optional[Selection]:
        """Publish a disconnect or a change of rooms, to the worker of a client or to all.

        :return: see :meth:`_send_to`.
        """
        if self._run_dir is None:
            return None
        return self._send_to(self._tags_of(fields.get("sid")), fields)

    @cached_property
    def _failed_to_handle(self) -> Refusals:
        return Refusals(self._get_logger())

    def _deaf(self, error: Deaf) -> None:
        self._get_logger().critical("this worker ends: %s", error)
        os.kill(os.getpid(), signal.SIGTERM)

    def _check(self, fields: Mapping[str, Any]) -> None:
        """:raises MalformedFields: see :func:`check_fields`."""
        if fields is not self._checked:  # repeated fields come as the same object
            check_fields(fields)
            self._checked = fields

    def _receive(self, message: RelayMessage) -> None:
        """Handle a message of another process."""
        assert self._subscriber is not None
        if self._journal is not None:
            self._receive_kept(message)
            return
        try:
            if self._apart and message.scope is None:
                message = copy(message)  # adopted clients may get the same object later
                message.scope = self._scope_of_main(message)
            self._check(message.fields)
            self.HANDLERS[message.fields["method"]](self, message)
        except MalformedFields as error:
            self._subscriber.refuse(error)
        except GreenletExit:
            raise
        except BaseException as error:  # an application's Timeout is not an Exception
            self._count_failure(message, error)

    def _receive_kept(self, message: RelayMessage) -> None:
        """The same with recovery: the journal notes what this process has received."""
        assert self._subscriber is not None
        heard = True
        try:
            if self._apart and message.scope is None:
                message = copy(message)
                message.scope = self._scope_of_main(message)
            self._check(message.fields)
            self.HANDLERS[message.fields["method"]](self, message)
            heard = not is_event(message.fields)  # an event is noted when it is written
        except MalformedFields as error:
            self._subscriber.refuse(error)
        except GreenletExit:
            raise
        except BaseException as error:
            self._count_failure(message, error)
        if heard and message.sequence:
            with self._tables:
                self._note_heard(message, message.stream)

    def _count_failure(self, message: RelayMessage, error: BaseException) -> None:
        what = f"handling {message.fields.get('method')} ({type(error).__name__})"
        self._failed_to_handle.count_failure(what, message.sender)

    def _living_senders(self) -> list[str]:
        return self._members.senders

    def _clients_are_behind(self) -> bool:
        return self._outlet is not None and self._outlet.is_behind()


def finish(publisher: Optional[Publisher], subscriber: Optional[Subscriber]) -> None:
    """Disconnect from the relay, once all workers have what was sent."""
    if isinstance(subscriber, ThreadSubscriber):
        subscriber.finish(_LEAVE_TIMEOUT)
    if publisher is not None:
        publisher.close()


def is_event(fields: Mapping[str, Any]) -> bool:
    """Whether it is emitted to clients without gathering their answers."""
    return fields["method"] == "emit" and "request" not in fields


def _is_answer(fields: Mapping[str, Any]) -> bool:
    """Whether it is an answer, for the asking process only."""
    return fields["method"] in ("callback", "expect", "answer")
