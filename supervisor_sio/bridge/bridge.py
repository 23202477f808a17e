"""Connects the relay of this host with those of other hosts.

It receives what every worker sends to all, and messages for workers of other hosts; and it sends
messages of other hosts to the workers here. Every second each bridge tells the others which workers
its host has. The bridges number what they send.

Messages that Redis loses are asked for, as within a host: a bridge keeps what it has sent, and
sends it again to a bridge that finds a gap in the numbers; later messages wait there. The router
may be killed at any time. What a host has sent, and up to which of its workers' messages, is in its
:mod:`.stream`, which outlives the router. Which messages of other hosts have arrived is known to
the workers, each of which notes the numbers: the bridge of the next router asks them, and goes on
from there.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
import threading
import time
from collections import OrderedDict
from typing import Any, Callable, Optional, Sequence

from ..common.limits import (
    BRIDGE_BEAT,
    BRIDGE_MOST_ASKERS,
    BRIDGE_MOST_HELD,
    BRIDGE_MOST_ORIGINS,
    BRIDGE_MOST_OTHERS,
    BRIDGE_PATIENCE,
    BRIDGE_SILENCE,
)
from ..common.refusals import Refusals, Untold
from ..common.rundir import ClusterInfo, RunDir
from ..relay.inbox import Inbox
from ..relay.message import RelayMessage
from ..relay.methods import ASKER, BRIDGE, check_fields
from ..relay.passed import NOTE
from ..relay.publisher import Publisher
from ..relay.subscriber import STALLED
from ..relay.threaded import ThreadSubscriber
from .format import (
    FormatError,
    QueueMessage,
    Translator,
    encode,
    head_of,
    number_after,
    origin_of,
    parse,
    seen,
)
from .queue import RedisQueue
from .reading import ReadingTurn
from .stream import HostStream
from .stream_file import Origin

logger = logging.getLogger("supervisor_sio.bridge")

#: Seconds between two looks for missing messages.
_TICK = 0.25

#: Seconds until a question is repeated: an answer comes after everything that is on its way, and is
#: lost with the connection only.
_ASK_AGAIN = 2.0

#: Seconds for the workers to say which messages of other hosts they had before this bridge.
_WORKERS_ANSWER = 2.0

#: A worker, as the router lists it: tag, whether on another host, its channels, and whether the tag
#: is an alias only, under which no process sends.
Member = list[Any]


class Bridge:
    """The bridge of a host, in threads of its own, from :meth:`start` to :meth:`close`.

    :param files: the descriptors of a :class:`.HostStream`.
    :param changed: called, in a thread of the bridge, when the workers of
        other hosts have changed.
    :raises QueueError: when ``url`` cannot be used.
    """

    def __init__(
        self,
        url: str,
        run_dir: RunDir,
        cluster: ClusterInfo,
        files: Sequence[int],
        changed: Callable[[list[Member]], None],
    ) -> None:
        self._refusals = Refusals(logger)
        #: Counts malformed messages, by where they come from.
        self._untold = Untold()
        self._stream = HostStream(files, time.monotonic())
        self._save()  # from now on the stream's id is the host's
        self._id = self._stream.id
        self._translator = Translator(self._id)
        self._channel = cluster.channel
        self._changed = changed
        self._head = head_of(self._id)
        self._turn = ReadingTurn()
        self._queue = RedisQueue(
            url, cluster.channel, self._stream, self._from_queue, rests=self._turn.end
        )
        # On the relay it has a new name, and numbers from 1.
        self._publisher = Publisher(run_dir, cluster, f"{BRIDGE}-{secrets.token_hex(6)}")
        self._publisher.turn = self._turn.call_soon
        self._subscriber = ThreadSubscriber(
            self._publisher, run_dir, tag=BRIDGE, lives=self._lives, part=self._stream.part()
        )
        #: Guards what the bridge's threads know of other hosts.
        self._lock = threading.RLock()
        #: Messages of the other bridges.
        self._inbox = Inbox(self._id, most_held=BRIDGE_MOST_HELD, ask_again=_ASK_AGAIN)
        #: Bridges of which it is known here up to which number the workers have their messages.
        self._placed: set[str] = set()
        #: By bridge: when a message of it arrived last, and the last number told to the workers.
        self._heard: dict[str, float] = {}
        self._noted: dict[str, int] = {}
        #: The workers that were told these numbers.
        self._told: frozenset[str] = frozenset()
        #: By worker: the last numbers of other bridges' messages that it has received.
        self._passed: dict[str, dict[str, int]] = {}
        self._resumed = not self._stream.continued
        self._missed_shown = 0
        #: Messages of this host that were lost before they arrived here, and are counted as unsent.
        self._unread = 0
        #: By bridge that stopped sending without a goodbye: when that was noticed.
        self._lost: dict[str, float] = {}
        #: When missing messages were looked for last.
        self._looked_at = math.inf
        #: The number of the Redis connection when they were asked for last.
        self._connection = 0
        self._origins: OrderedDict[tuple[Any, ...], int] = OrderedDict()
        self._elsewhere: dict[str, list[Member]] = {}
        self._tags_elsewhere: frozenset[str] = frozenset()
        self._here: list[Member] = []
        self._tags_here: frozenset[str] = frozenset()
        #: The tags here that are not aliases.
        self._living_here: frozenset[str] = frozenset()
        self._members_known = False
        #: Processes here without clients that have asked the workers of all hosts; only the
        #: subscriber's thread adds and removes any.
        self._askers: OrderedDict[str, None] = OrderedDict()
        self._wake = threading.Event()
        self._closed = False
        #: Whether the host leaves at the end, and not only its router.
        self._leaves = False
        self.received = 0
        self.malformed = 0

    @property
    def missed(self) -> int:
        """Messages of other hosts that were lost for good."""
        return self._inbox.dropped

    def start(self) -> None:
        self._queue.start()
        self._subscriber.on_passed = self._take_passed
        self._subscriber.start(self._from_relay)
        self._thread = threading.Thread(target=self._run, name="bridge", daemon=True)
        self._thread.start()

    def set_members(self, members: list[Member]) -> None:
        """The workers of this host have changed."""
        self._here = members
        self._members_known = True
        # The others get nothing of this bridge, and do not answer it.
        self._tags_here = frozenset(
            tag for tag, _, channels, *_ in members if self._channel in channels
        )
        self._living_here = frozenset(tag for tag, _, _, *alias in members if not any(alias))
        self._wake.set()

    def figures(self) -> dict[str, Any]:
        return {
            "connected": self._queue.connected,
            "sent": self._queue.sent,
            "received": self.received,
            "waiting": self._stream.waiting,
            "unsent": self._stream.unsent,
            "refused": self._queue.refused,
            "missed": self.missed,
            "malformed": self.malformed,
            "hosts": len(self._elsewhere),
        }

    def close(self, leaves: bool) -> None:
        """:param leaves: whether the host leaves, or only its router ends."""
        self._leaves = leaves
        self._closed = True
        if leaves:
            self._here = []
        self._wake.set()
        self._thread.join(1)
        self._subscriber.stop()
        self._queue.close()
        if leaves and self._stream.waiting:
            logger.error("%d messages for other hosts were not sent", self._stream.waiting)
        self._save()
        self._publisher.close()

    def _lives(self, sender: str) -> bool:
        return sender in self._living_here

    # --- state of the other bridges --------------------------------------------

    def _run(self) -> None:
        while not self._subscriber.joined and not self._closed:
            self._publisher.probe()
            time.sleep(_TICK / 5)
        beat = 0.0
        while True:
            last = self._closed
            try:
                if not self._resumed:
                    self._resume()
                if time.monotonic() >= beat or self._wake.is_set() or last:
                    self._wake.clear()
                    beat = time.monotonic() + BRIDGE_BEAT
                    self._note_passed()
                    self._save()
                    self._send_members(self._here)
                    self._tell_workers()
                self._count_unread()
                self._look(time.monotonic())
            except Exception as error:  # caused by another bridge: the rest goes on
                self._refusals.count("bridge-failed", repr(error))
            if last:
                return
            self._wake.wait(_TICK)

    def _save(self) -> None:
        try:
            self._stream.save()
        except OSError as error:
            line = self._refusals.noted(
                repr(error), "messages for other hosts are kept in the router only"
            )
            if line:
                logger.warning("%s", line)

    def _resume(self) -> None:
        """Ask the workers which messages of other hosts they had received before this bridge.

        A worker that does not answer in time counts as having those known to all.
        """
        until = time.monotonic() + _WORKERS_ANSWER
        while not self._resumed and not self._closed and time.monotonic() < until:
            self._publisher.ask_all({"method": "ask_passed"})
            time.sleep(_TICK / 5)
            if self._members_known and self._tags_here <= set(self._passed):
                break
        with self._lock:
            self._resumed = True
            for bridge in list(self._heard):
                self._place(bridge, None)

    def _take_passed(self, tag: str, numbers: dict[str, int]) -> None:
        with self._lock:
            self._passed[tag] = numbers

    def _note_passed(self) -> None:
        """Note which messages all workers have, for the bridge of the next router; ask anew."""
        with self._lock:
            here = self._tags_here
            self._passed = {tag: self._passed[tag] for tag in here if tag in self._passed}
            passed = {bridge: self._stream.passed.get(bridge, 0) for bridge in self._placed}
            if here and len(self._passed) == len(here):
                for bridge in passed:
                    # A worker that has received nothing from a bridge is new, and left out.
                    numbers = (one[bridge] for one in self._passed.values() if bridge in one)
                    passed[bridge] = max(passed[bridge], min(numbers, default=0))
            self._stream.note_passed(passed)
        self._publisher.ask_all({"method": "ask_passed"})

    def _look(self, now: float) -> None:
        with self._lock:
            stalled, self._looked_at = now - self._looked_at, now
            if stalled > STALLED:
                self._inbox.wait_longer(stalled)
                self._lost = {bridge: at + stalled for bridge, at in self._lost.items()}
            for bridge in [b for b, heard in self._heard.items() if now - heard > BRIDGE_SILENCE]:
                self._forget(bridge)
                self._lost[bridge] = now
            connected = self._queue.connected  # before _ask(): lost hosts get their time anew there
            self._ask(now)
            if connected:
                for bridge in self._inbox.silent(now):
                    if bridge not in self._lost:
                        self._deliver(self._inbox.give_up(bridge))
                for bridge in [b for b, at in self._lost.items() if now - at > BRIDGE_PATIENCE]:
                    del self._lost[bridge]
                    self._deliver(self._inbox.give_up(bridge))
            if self.missed > self._missed_shown:
                if not self._missed_shown:
                    logger.error("%d messages of another host were lost", self.missed)
                self._missed_shown = self.missed

    def _forget(self, bridge: str) -> None:
        self._heard.pop(bridge, None)
        # The inbox keeps its position, in case the bridge comes back.
        self._placed.discard(bridge)
        self._noted.pop(bridge, None)
        self._remove_workers(bridge)

    def _remove_workers(self, bridge: str) -> None:
        if self._elsewhere.pop(bridge, None):
            self._report_members()

    def _report_members(self) -> None:
        members = [member for members in self._elsewhere.values() for member in members]
        self._tags_elsewhere = frozenset(tag for tag, *_ in members)
        self._changed(members)

    def _tell_workers(self) -> None:
        """Tell the workers the other bridges' numbers, also those that got no message lately."""
        with self._lock:
            told, self._told = self._told, self._tags_here
            if not self._told <= told:  # new ones have no numbers
                self._noted.clear()
            for bridge in self._placed & set(self._heard):
                number = self._inbox.delivered_to_all(bridge)
                if number > self._noted.get(bridge, 0):
                    self._noted[bridge] = number
                    self._publisher.publish(None, {"method": NOTE, "via": [bridge, number]}, ())

    # --- from here to other hosts ----------------------------------------------

    def _from_relay(self, message: RelayMessage) -> None:
        alone = message.stream is not None
        origin = Origin(message.sender, alone, message.sequence, message.time)
        try:
            data = self._for_others(message)
            if not message.sequence:
                if data is not None:  # a volatile message
                    self._send_unnumbered(data)
            elif data is None:
                self._stream.skip(origin)
            else:
                self._send(data, origin)
        except (ValueError, RecursionError) as error:  # its fields, or encoding it
            self._refuse(error, message.sender)
            if message.sequence:
                self._stream.skip(origin)

    def _for_others(self, message: RelayMessage) -> Optional[QueueMessage]:
        """Translate a message; ``None`` when it is not for other hosts.

        :raises MalformedFields: when its fields are malformed.
        :raises FormatError: when it cannot be sent to other hosts.
        """
        fields = message.fields
        check_fields(fields)
        if message.sender.startswith(ASKER) and "request" in fields:
            self._note_asker(message.sender)
        to = fields.get("to")
        if to in self._tags_here or to in self._askers:
            return None  # it is for a receiver of this host
        return self._translator.to_queue(message)

    def _note_asker(self, sender: str) -> None:
        self._askers[sender] = None
        self._askers.move_to_end(sender)
        if len(self._askers) > BRIDGE_MOST_ASKERS:
            self._askers.popitem(last=False)

    def _send(self, data: QueueMessage, origin: Origin) -> None:
        data["origin"] = origin[:3]

        def encoded(number: int) -> bytes:
            return encode(data, self._id, number)

        try:
            reason = "" if self._stream.add(origin, encoded) else "Redis is away too long"
        except OSError as error:
            reason = repr(error)
        line = reason and self._refusals.noted(reason, "emits for other hosts are lost")
        if line:
            logger.error("%s", line)
        self._queue.wake()

    def _ask(self, now: float) -> None:
        """Ask the other bridges for missing messages."""
        if not self._queue.connected:
            return
        if self._connection != self._queue.connections:
            self._connection = self._queue.connections
            self._inbox.wait_anew()  # no bridge could answer meanwhile
            self._lost = dict.fromkeys(self._lost, now)  # nor be received
        for bridge, _, first, last in self._inbox.questions(now, self._placed):
            if first:
                numbers = {"first": first, "last": last}
                self._send_unnumbered(
                    {"method": "question", "of": bridge, "asker": self._id, **numbers}
                )

    def _count_unread(self) -> None:
        """Count what was lost on its way from a process here, so that other hosts count it, too."""
        lost = self._subscriber.dropped - self._unread
        if lost:
            self._unread += lost
            self._stream.lose(lost)
            self._queue.wake()

    def _answer(self, question: QueueMessage) -> None:
        first, last = question["first"], question["last"]
        if type(first) is not int or type(last) is not int or not 0 < first <= last:
            raise FormatError("a question with invalid numbers")
        if last > self._stream.given:
            return  # these numbers were not used yet
        again = self._stream.again(first, last)
        self._send_unnumbered(
            {
                "method": "again",
                "of": self._id,
                "asker": str(question["asker"]),
                "asked": first,
                "first": again.first,
                "messages": [raw.decode() for raw in again.messages],
            }
        )

    def _send_unnumbered(self, data: QueueMessage) -> None:
        """Send without a number and without keeping it: a lost one is not missed."""
        self._queue.say(json.dumps(data).encode())

    def _send_members(self, members: list[Member]) -> None:
        """Send the workers here, without a number but with that of the last message for Redis."""
        living, aliases = (
            [[tag, True, channels] for tag, _, channels, *alias in members if any(alias) is wanted]
            for wanted in (False, True)
        )
        data: QueueMessage = {"method": "members", "host_id": self._id, "members": living}
        if self._leaves:
            data["leaves"] = True
        if aliases:  # separate, as bridges of older versions do not know aliases
            data["aliases"] = aliases
        self._queue.say(encode(data, self._id, self._stream.given))

    # --- from other hosts to here ----------------------------------------------

    def _from_queue(self, raw: bytes) -> None:
        own = number_after(self._head, raw)
        if own is not None:
            self._queue.came_back(own)
            return
        self._turn.begin()
        try:
            data = parse(raw)
            mark = seen(data)
            with self._lock:
                if data["method"] in ("question", "again"):
                    self._handle_repeats(data)
                elif mark is None:
                    self._pass_on(data, None)
                elif mark[0] == self._id:
                    self._queue.came_back(mark[1])
                else:
                    self._take(data, raw, *mark)
        except Exception as error:  # anybody may have published it
            self._refuse(error)

    def _handle_repeats(self, data: QueueMessage) -> None:
        """Handle a bridge's question for missing messages, or an answer."""
        if data["method"] == "question":
            if data["of"] == self._id:
                self._answer(data)
        elif data["asker"] == self._id:
            bridge, messages = str(data["of"]), []
            if not self._inbox.awaits(bridge, None, int(data["asked"])):
                return  # the answer is a repeated one
            for raw in data["messages"]:
                other = parse(raw)
                mark = seen(other)
                if mark is None or mark[0] != bridge:
                    raise FormatError("messages of another bridge")
                messages.append(RelayMessage(bridge, mark[1], other, (raw,)))
            self._deliver(
                self._inbox.again(bridge, None, int(data["asked"]), int(data["first"]), messages)
            )
            self._ask(time.monotonic())

    def _take(self, data: QueueMessage, raw: bytes, bridge: str, number: int) -> None:
        """Take a numbered message of another bridge, or its list of workers with the last
        number."""
        now = time.monotonic()
        if bridge not in self._heard and len(self._heard) >= BRIDGE_MOST_OTHERS:
            raise FormatError("too many bridges")
        self._heard[bridge] = now
        if self._lost.pop(bridge, None) is not None:
            self._inbox.wait_anew()  # it could not answer meanwhile
        if data["method"] == "members":
            self._place(bridge, number)
            self._deliver(self._inbox.position(bridge, {None: number}))
            self._take_members(bridge, data.get("members"), data.get("aliases", []))
            if data.get("leaves") is True and self._resumed:
                self._forget(bridge)
                self._deliver(self._inbox.give_up(bridge))  # it cannot be asked any more
        else:
            self._place(bridge, number - 1)
            message = RelayMessage(bridge, number, data, (raw.decode(),))
            self._deliver(self._inbox.receive(message))
        if self._inbox.waits:
            self._ask(now)

    def _place(self, bridge: str, before: Optional[int]) -> None:
        """Begin a bridge's messages after those that the workers have, or at its present number.

        :param before: the number before the first message received; ``None`` when some are held
            already.
        """
        if bridge in self._placed or not self._resumed:
            return
        self._placed.add(bridge)
        passed = self._stream.passed
        known = [numbers[bridge] for numbers in self._passed.values() if bridge in numbers]
        if bridge in passed:
            known.append(passed[bridge])
        if known:
            before = min(known)
        if bridge not in passed:
            self._stream.note_passed({bridge: before or 0})
            self._save()
        if before is None:
            self._deliver(self._inbox.give_up(bridge))
        else:
            self._deliver(self._inbox.position(bridge, {None: before}, {None: before}))

    def _deliver(self, messages: Sequence[RelayMessage]) -> None:
        for message in messages:
            data: Any = message.fields
            try:
                if self._is_new_of(*origin_of(data)):
                    self._pass_on(data, [message.sender, message.sequence])
            except (ValueError, RecursionError) as error:  # the others are delivered
                self._refuse(error)

    def _pass_on(self, data: QueueMessage, via: Optional[list[Any]]) -> None:
        """Publish to the workers here. :raises FormatError: when the message is malformed."""
        outgoing = self._translator.from_queue(data)
        if outgoing is None:
            return
        tag, fields, packets = outgoing
        if tag is not None and tag.startswith(ASKER):
            # The process may have asked before this router began.
            if tag in self._askers or self._stream.continued:
                self.received += 1
                self._publisher.tell(tag, fields, packets)
            return
        # Others may be workers here that have not connected to this router yet, as they are busy.
        if tag in self._tags_elsewhere and tag not in self._tags_here:
            return
        self.received += 1
        if fields["method"] == "volatile":
            self._publisher.publish_volatile(tag, fields, packets)
            return
        self._publisher.publish(tag, fields if via is None else {**fields, "via": via}, packets)

    def _is_new_of(self, sender: str, alone: bool, number: int) -> bool:
        """False for a message that another bridge of its host has passed on already."""
        stream = sender, alone
        if number <= self._origins.get(stream, 0):
            return False
        self._origins[stream] = number
        self._origins.move_to_end(stream)
        if len(self._origins) > BRIDGE_MOST_ORIGINS:
            self._origins.popitem(last=False)
        return True

    def _take_members(self, bridge: str, members: Any, aliases: Any) -> None:
        """Take a bridge's list of workers. :raises FormatError: when it is malformed."""
        try:
            known: list[Member] = [
                [str(tag), True, [str(c) for c in channels], is_alias]
                for is_alias, rows in ((False, members), (True, aliases))
                for tag, _, channels in rows
            ]
        except (TypeError, ValueError):
            raise FormatError("malformed members") from None
        if not known:
            self._remove_workers(bridge)  # its host may still have other emitters
        elif self._elsewhere.get(bridge) != known:
            self._elsewhere[bridge] = known
            self._report_members()
            self._wake.set()  # the bridge may be new: send it the workers here soon

    def _refuse(self, error: Exception, sender: str = "") -> None:
        """:param sender: of a message of this host; empty for one on the message queue."""
        self.malformed += 1
        untold = self._untold.count("relay" if sender else "queue")
        if untold:
            where = f"of {sender}" if sender else "on the message queue"
            what = f"a malformed message {where} is ignored:"
            if untold > 1:
                what = f"{untold} malformed messages {where} are ignored, last:"
            logger.warning("%s %.200s", what, error)
