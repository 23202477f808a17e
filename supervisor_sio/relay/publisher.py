"""A process's socket for publishing on the relay, and what it has published."""

from __future__ import annotations

import math
import os
import time
from typing import Any, Callable, Iterable, List, Mapping, Optional, Sequence, Tuple

import zmq

from ..common.clusters import section
from ..common.limits import RELAY_BUNDLE_MESSAGES, RELAY_HIGH_WATER, RELAY_LONGEST_PUSHED
from ..common.rundir import ClusterInfo, RunDir
from . import native
from .inbox import Inbox, Numbers
from .message import (
    TOPIC_FOR_ROUTER,
    EncodedPacket,
    RelayMessage,
    pack,
    pack_bundle,
    topic_for_all,
    topic_for_one,
    topic_for_publishers,
)
from .outbox import Outbox
from .tally import Tally

#: Milliseconds that a process waits at its end for messages still to be sent.
_LINGER = 5000

RECONNECT = 50  # milliseconds

NOBLOCK = int(zmq.NOBLOCK)  # the enum is slow to convert for each message

#: Seconds after its last message until a process announces its streams' last numbers, for receivers
#: that missed the end; then twice as long each time, up to the longest.
_FIRST_BEAT = 0.2
_LONGEST_BEAT = 10.0


#: Runs a call in the next turn of the loop of this thread.
CallSoon = Callable[[Callable[[], None]], None]


def _no_loop() -> Optional[CallSoon]:
    return None


def _nothing() -> None:
    """Nothing is to be done."""


#: Seconds between two turns of a lasting burst: after a longer pause the first message is sent at
#: once.
_STEADY = 0.1


class MessageTooLong(ValueError):
    """An emit over ``message_maxbytes``; nothing was sent."""


class _Burst:
    """Messages published in one turn of the loop.

    The first message is sent at once, so a single one never waits; later ones leave together at the
    end of the turn. After a turn with several messages, the first one of the next turn waits, too,
    if it comes soon.
    """

    def __init__(self) -> None:
        #: Whether the end of this turn is scheduled, and the number of its messages so far.
        self.turn = False
        self.count = 0
        #: Whether the turn before had several messages.
        self.lasts = False
        #: When the last message came.
        self.last = 0.0
        #: The collected messages by topic; their number and size in bytes; whether they are to all,
        #: and whether they are volatile.
        self.topics: dict[bytes, List[bytes]] = {}
        self.messages = self.size = 0
        self.kind = (False, False)

    def takes(self, kind: Tuple[bool, bool], size: int) -> bool:
        """Whether one more message can wait with the others.

        Messages to all and messages to one worker leave in the order of publishing: otherwise a
        worker that gets both would ask for one that has not left yet. In a bundle all messages have
        numbers, or none.
        """
        if not self.messages:
            return True
        if kind != self.kind or self.messages >= RELAY_BUNDLE_MESSAGES:
            return False
        return self.size + size <= RELAY_LONGEST_PUSHED

    def add(self, kind: Tuple[bool, bool], topic: bytes, data: bytes) -> None:
        self.kind = kind
        self.topics.setdefault(topic, []).append(data)
        self.messages += 1
        self.size += len(data)

    def take(self) -> dict[bytes, List[bytes]]:
        """Take the collected messages, by topic."""
        topics, self.topics = self.topics, {}
        self.messages = self.size = 0
        return topics


class Publisher:
    """Numbers messages, sends them, and keeps them; safe to use from several threads.

    :param sender: the tag of the worker, or another unique id.
    :param counted: whether to count what it sends in memory that outlives the process.
    """

    def __init__(
        self, run_dir: RunDir, cluster: ClusterInfo, sender: str, counted: bool = False
    ) -> None:
        self.channel = cluster.channel
        self.sender = sender
        self._limit = cluster.message_maxbytes
        #: Whether this process cannot answer questions later: then long messages are sent, too.
        self.ends = False
        #: At this process's end, by tag: the last numbers to all and to that tag that are
        #: confirmed.
        self._confirmed: dict[str, Numbers] = {}
        self.tally = Tally() if counted else None
        self._for_all = topic_for_all(self.channel)
        self._outbox = Outbox(sender, cluster.buffer_messages, cluster.buffer_maxbytes)
        #: Called at each message: returns how to run a call at the end of this turn; ``None`` in a
        #: thread without a loop, where every message is sent at once.
        self.turn: Callable[[], Optional[CallSoon]] = _no_loop
        #: Called at the end of each turn in which messages were published, before those that have
        #: waited are sent.
        self.ending_turn: Callable[[], None] = _nothing
        #: Whether the last published message waits for the end of this turn.
        self.is_waiting = False
        self._burst = _Burst()
        self._last_sent = 0.0
        self._beat = _FIRST_BEAT
        self._lock = native.lock()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.SNDHWM, RELAY_HIGH_WATER)
        self._socket.setsockopt(zmq.LINGER, _LINGER)
        self._socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT)
        self._socket.connect(f"ipc://{run_dir.xsub}")
        self._pid = os.getpid()
        #: Messages published, to whatever receivers.
        self.sent = 0
        #: Messages sent again to receivers that missed them.
        self.sent_again = 0

    def check(self, packets: Sequence[EncodedPacket], what: str) -> None:
        """:raises MessageTooLong: when these packets are over the limit."""
        if sum(map(len, packets)) * 4 <= self._limit:
            return  # UTF-8 has at most four bytes for a character
        size = sum(len(p.encode() if isinstance(p, str) else p) for p in packets)
        if size > self._limit:
            raise MessageTooLong(
                f"{what} has {size} bytes, over the limit of {self._limit} "
                f"(message_maxbytes in {section()})"
            )

    def publish(
        self,
        tag: Optional[str],
        fields: Mapping[str, Any],
        packets: Sequence[EncodedPacket] = (),
    ) -> tuple[int, Optional[str], int, bytes]:
        """Send to the worker with this tag, or to all for ``None``.

        :return: how many messages this process has published, this one included; the stream of the
            message, which may be the one to all (``None``) although it is for one worker; its
            number there; and the message as packed.
        :raises TypeError: when a field is not JSON; nothing is sent then.
        """
        with self._lock:
            now = time.monotonic()
            if tag is not None and self._outbox.addressee(tag) is None:
                fields, tag = {**fields, "only": tag}, None
            topic = self._for_all if tag is None else topic_for_one(self.channel, tag)
            number, data = self._outbox.add(tag, fields, packets, now)
            if self.tally is not None:
                self.tally.note(tag, number, now)
            if len(data) <= RELAY_LONGEST_PUSHED or self.ends:
                self.is_waiting = self._push(topic, data, now, volatile=False)
            else:
                self._send_position(topic, now)
                self.is_waiting = False
            self._last_sent = now
            self._beat = _FIRST_BEAT
            self.sent += 1
            return self.sent, tag, number, data

    @property
    def waiting(self) -> int:
        """How many messages wait for the end of this turn."""
        return self._burst.messages

    def _push(self, topic: bytes, data: bytes, now: float, volatile: bool) -> bool:
        """Send a message now, or with later ones of this turn of the loop.

        :return: whether it waits.
        """
        burst = self._burst
        if not self._schedule_turn_end():
            self._flush()
            self._send_frame(topic, data)
            return False
        burst.count += 1
        before, burst.last = burst.last, now
        if burst.count == 1 and not (burst.lasts and now - before <= _STEADY):
            self._send_frame(topic, data)
            return False
        kind = topic == self._for_all, volatile
        if not burst.takes(kind, len(data)):
            self._flush()
        burst.add(kind, topic, data)
        return True

    def _schedule_turn_end(self) -> bool:
        """Schedule the end of this turn. Return whether a loop runs in this thread."""
        call_soon = self.turn()
        if call_soon is None:
            return False
        if not self._burst.turn:
            try:
                call_soon(self._end_turn)
            except RuntimeError:  # the loop has ended
                return False
            self._burst.turn = True
        return True

    def _end_turn(self) -> None:
        if self._pid != os.getpid():
            return  # the loop is the parent's
        self.ending_turn()
        with self._lock:
            burst = self._burst
            burst.lasts, burst.turn, burst.count = burst.count > 1, False, 0
            if not self._socket.closed:
                self._flush()

    def _flush(self) -> None:
        """Send the collected messages."""
        burst = self._burst
        if not burst.messages:
            return
        for topic, messages in burst.take().items():
            self._send_frame(topic, messages[0] if len(messages) == 1 else pack_bundle(messages))

    def _send_frame(self, topic: bytes, data: bytes) -> None:
        # libzmq's own thread waits if need be: this call never blocks.
        self._socket.send(topic + data, NOBLOCK)

    def publish_volatile(
        self,
        tag: Optional[str],
        fields: Mapping[str, Any],
        packets: Sequence[EncodedPacket] = (),
    ) -> None:
        """Send without a number, and without keeping it: only present receivers get it.

        It may overtake published messages, and may be lost.
        """
        with self._lock:
            topic = self._for_all if tag is None else topic_for_one(self.channel, tag)
            data = pack(self.sender, 0, fields, packets)
            self._push(topic, data, time.monotonic(), volatile=True)

    # --- messages between participants: not numbered, not kept ---------------------

    def tell(
        self, receiver: str, fields: Mapping[str, Any], packets: Sequence[EncodedPacket] = ()
    ) -> None:
        with self._lock:
            self._send(topic_for_one(self.channel, receiver), fields, packets)

    def probe(self, at: float = 0.0) -> None:
        """Send a message to this process itself: when it comes back, the relay works.

        :param at: identifies the probe.
        """
        self.tell(self.sender, {"method": "probe", "at": at})

    def ask_all(self, fields: Mapping[str, Any]) -> None:
        with self._lock:
            self._send(topic_for_publishers(self.channel), fields)

    def ask_router(self, fields: Mapping[str, Any]) -> None:
        """A question to the router process; see :mod:`.registrar`."""
        with self._lock:
            self._send(TOPIC_FOR_ROUTER, {"channel": self.channel, **fields})

    def say_goodbye(self, confirmed: bool) -> None:
        """Say how much this process has sent in all: it sends nothing more.

        :param confirmed: whether all receivers have it. If not, the router is told, which repeats
            it to receivers that do not get it now.
        """
        with self._lock:
            now = time.monotonic()
            began = min(self._outbox.began, now)
            if confirmed:
                fields = {"began": began, **self._outbox.position(now)}
                self._send(self._for_all, {"method": "bye", **fields})
            else:
                fields = {"began": began, **self._outbox.position(now, math.inf)}
                self._send(TOPIC_FOR_ROUTER, {"channel": self.channel, "method": "bye", **fields})

    @property
    def silent(self) -> bool:
        """Whether nothing was ever published."""
        return self._outbox.empty

    # --- confirmations by other processes -------------------------------------------

    def marks(self, tags: Iterable[str]) -> dict[str, Numbers]:
        """The last numbers to all, and to each of these workers alone."""
        with self._lock:
            return {tag: self._outbox.last(tag) for tag in tags}

    def ask_to_confirm(self, marks: Mapping[str, Numbers]) -> None:
        """Ask the receivers under these tags to fetch what they lack, and to confirm then.

        It is one question to all, as a worker receives under one more tag after each restart from
        which it has adopted sessions.

        :param marks: by tag, see :meth:`marks`.
        """
        for tag in marks:
            self._confirmed.setdefault(tag, {})
        with self._lock:
            # A receiver may have guests of other workers: their tags' numbers are in it, too. For
            # the asked tags it has the mark, not the present number: a process that stores messages
            # elsewhere before each answer could never keep up.
            own = dict(self._outbox.position(time.monotonic())["own"])
            own.update((tag, mark.get(tag, 0)) for tag, mark in marks.items())
            to_all = max(mark[None] for mark in marks.values())
            fields = {"method": "position", "all": to_all, "own": own, "confirm": [*marks]}
            self._send(topic_for_all(self.channel), fields)

    def note_confirmed(self, tag: str, to_all: int, to_it: int) -> None:
        """A worker has everything up to these numbers."""
        if tag in self._confirmed:  # it was asked
            self._confirmed[tag] = {None: to_all, tag: to_it}

    def has_confirmed(self, tag: str, mark: Numbers) -> bool:
        confirmed = self._confirmed.get(tag, {})
        return all(confirmed.get(stream, 0) >= number for stream, number in mark.items())

    # --- what receivers in this process get of its own messages -----------------------

    def last(self, tags: Iterable[str]) -> tuple[Numbers, int]:
        """The last numbers to all and to each of these tags, and :attr:`sent`."""
        with self._lock:
            return self._outbox.last(*tags), self.sent

    def give(
        self, inbox: Inbox, since: float, batches: float = math.inf
    ) -> tuple[list[RelayMessage], int]:
        """Give an inbox of this process what it lacks of this process's own messages.

        The relay does not bring a process its own messages.

        :param since: messages sent from then on are for the inbox.
        :param batches: how many answers to the inbox's questions it gets at most; by default all.
        :return: the messages in their order, and :attr:`sent`: if it got all, the inbox has so many
            now.
        """
        with self._lock:
            position = self._outbox.position_for(inbox.tags, since)
            delivered = [
                *inbox.position(
                    self.sender,
                    {None: position["all"], **position["own"]},
                    {None: position["before"], **position["own_before"]},
                    since,
                )
            ]
            while batches > 0 and (lacks := inbox.lacks(self.sender)):
                batches -= 1
                for _, tag, first, last in lacks:
                    again = self._outbox.again(tag, first, last)
                    if again is None:  # this process never sent so many
                        delivered += inbox.give_up(self.sender)
                        break
                    messages = [RelayMessage.unpack(data) for data in again.messages]
                    for message in messages:
                        message.stream = tag
                    delivered += inbox.again(
                        self.sender, tag, first, again.first, messages, again.start
                    )
            return delivered, self.sent

    def beat(self, now: float) -> None:
        """Announce the streams' last numbers, if it is time."""
        with self._lock:
            if now - self._last_sent >= self._beat and not self._outbox.empty:
                self._last_sent = now
                self._beat = min(self._beat * 2, _LONGEST_BEAT)
                self._send_position(self._for_all, now)

    def announce(self) -> None:
        """Announce the streams' last numbers."""
        with self._lock:
            if not self._outbox.empty:
                self._send_position(self._for_all, time.monotonic())

    def beat_soon(self) -> None:
        """Messages may have been lost: announce the numbers soon."""
        self._beat = _FIRST_BEAT

    def answer(
        self,
        asker: str,
        tags: Sequence[str],
        tag: Optional[str],
        first: int,
        last: int,
        since: float,
    ) -> None:
        """Send again what a receiver missed, or tell it the streams' last numbers if ``first`` is
        0.

        :param tags: under which the asking process receives.
        :param tag: of the stream in question; ``None`` for the one to all.
        """
        with self._lock:
            topic = topic_for_one(self.channel, asker)
            if not first:
                position = self._outbox.position_for(tags, since)
                if len(tags) == 1:
                    position["own_before"] = position["own_before"][tags[0]]
                self._send(topic, {"method": "position", **position})
                return
            again = self._outbox.again(tag, first, last)
            if again is not None:
                fields = {
                    "method": "again",
                    "to_all": tag is None,
                    "tag": tag,
                    "asked": first,
                    "first": again.first,
                    "start": again.start,
                }
                self._send(topic, fields, again.messages)
                self.sent_again += len(again.messages)

    def _send_position(self, topic: bytes, now: float) -> None:
        self._send(topic, {"method": "position", **self._outbox.position(now)})

    def _send(
        self, topic: bytes, fields: Mapping[str, Any], packets: Sequence[EncodedPacket] = ()
    ) -> None:
        self._flush()
        self._send_frame(topic, pack(self.sender, 0, fields, packets))

    def expect_no_relay(self) -> None:
        """The relay has ended for good: :meth:`close` does not wait until it takes messages."""
        with self._lock:
            self._socket.setsockopt(zmq.LINGER, 0)

    def close(self, linger: Optional[int] = None) -> None:
        """Close the sockets. The publisher must not be used any more, in any thread.

        :param linger: milliseconds for messages that are still to be sent; by default five seconds.
        """
        if self._pid == os.getpid() and not self._socket.closed:
            with self._lock:
                self._flush()
            self._socket.close(linger)
            self._context.term()
            if self.tally is not None:
                self.tally.close()
