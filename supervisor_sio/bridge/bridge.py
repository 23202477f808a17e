"""Joins the relay of this host with those of others.

It hears what every worker says to all, and what is for a worker of another
host; it says to the workers here what comes from elsewhere. The bridges tell
each other every two seconds which workers they have, so that those know of
each other, and number what they send, so that what was missed is counted.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections import OrderedDict
from typing import Any, Callable, Optional

from ..relay.message import RelayMessage
from ..relay.methods import BRIDGE, MalformedFields, check_fields
from ..relay.publisher import Publisher
from ..relay.subscriber import ThreadSubscriber
from ..rundir import ClusterInfo, RunDir
from .format import FormatError, QueueMessage, Translator, origin_of, parse, seen
from .queue import RedisQueue

logger = logging.getLogger("supervisor_sio.bridge")

#: Seconds between two words of a bridge to the others.
_BEAT = 2.0

#: Seconds without a word after which another host counts as gone.
_SILENCE = 3.5 * _BEAT

#: Seconds before the end of the bridge before this one from which the workers are
#: asked for what they said: it may not have come to passing that on. What it has
#: passed on, the other bridges do not take twice.
_OVERLAP = 1.0

#: Streams of senders of other hosts whose last number is remembered.
_MOST_ORIGINS = 10_000

#: A worker as the router tells of it: tag, whether on another host, its channels.
Member = list[Any]


class Bridge:
    """Runs in threads of its own, from :meth:`start` to :meth:`close`.

    :param predecessor_ended: when the bridge before this one did, by the host's
        monotonic clock.
    :param changed: called, in a thread of the bridge, when the workers of
        other hosts have changed.
    :raises QueueError: when ``url`` cannot be used.
    """

    def __init__(
        self,
        url: str,
        run_dir: RunDir,
        cluster: ClusterInfo,
        predecessor_ended: Optional[float],
        changed: Callable[[list[Member]], None],
    ) -> None:
        self._id = f"bridge-{secrets.token_hex(6)}"
        self._translator = Translator(self._id)
        self._changed = changed
        self._queue = RedisQueue(url, cluster.channel, self._from_queue, _SILENCE)
        self._publisher = Publisher(run_dir, cluster, self._id)
        self._predecessor_ended = predecessor_ended or 0.0
        since = None if predecessor_ended is None else predecessor_ended - _OVERLAP
        self._subscriber = ThreadSubscriber(
            self._publisher, run_dir, tag=BRIDGE, lives=self._lives, since=since
        )
        self._numbering = threading.Lock()
        self._number = 0
        #: The last number of each other bridge, when it was heard, and its workers.
        self._others: dict[str, int] = {}
        self._heard: dict[str, float] = {}
        self._origins: OrderedDict[tuple[Any, ...], int] = OrderedDict()
        self._elsewhere: dict[str, list[Member]] = {}
        self._here: list[Member] = []
        self._tags_here: frozenset[str] = frozenset()
        self._members_known = False
        self._wake = threading.Event()
        self._closed = False
        self.received = 0
        #: Messages of other hosts that did not come.
        self.missed = 0
        self.malformed = 0

    def start(self) -> None:
        self._queue.start()
        self._subscriber.start(self._from_relay)
        self._thread = threading.Thread(target=self._run, name="bridge", daemon=True)
        self._thread.start()

    def set_members(self, members: list[Member]) -> None:
        """The workers of this host have changed."""
        self._here = members
        self._members_known = True
        self._tags_here = frozenset(tag for tag, _, _ in members)
        self._wake.set()

    def figures(self) -> dict[str, Any]:
        return {
            "connected": self._queue.connected,
            "sent": self._queue.sent,
            "received": self.received,
            "waiting": self._queue.waiting,
            "unsent": self._queue.unsent,
            "missed": self.missed,
            "malformed": self.malformed,
            "hosts": len(self._elsewhere),
        }

    def close(self) -> None:
        self._closed = True
        self._here = []
        self._wake.set()
        self._thread.join(1)
        self._subscriber.stop()
        self._queue.close()
        self._publisher.close()

    def _lives(self, sender: str) -> bool:
        return sender in self._tags_here

    # --- the other bridges ----------------------------------------------------

    def _run(self) -> None:
        while not self._subscriber.joined and not self._closed:
            self._publisher.probe()
            self._wake.wait(0.05)
        while True:
            self._wake.clear()
            members = [[tag, True, channels] for tag, _, channels in self._here]
            self._send_members(members)
            if self._closed:
                return
            now = time.monotonic()
            for bridge in [b for b, heard in list(self._heard.items()) if now - heard > _SILENCE]:
                self._forget(bridge)
            self._wake.wait(_BEAT)

    def _forget(self, bridge: str) -> None:
        self._heard.pop(bridge, None)
        if self._elsewhere.pop(bridge, None):
            self._tell()

    def _tell(self) -> None:
        elsewhere = list(self._elsewhere.values())  # as another thread may change it
        self._changed([member for members in elsewhere for member in members])

    # --- from here to the others ----------------------------------------------

    def _from_relay(self, message: RelayMessage) -> None:
        try:
            check_fields(message.fields)
            if message.fields.get("to") in self._tags_here:
                return  # it has got it
            if message.time < self._predecessor_ended:
                # The bridge before may have passed it on: only bridges notice.
                data: Optional[QueueMessage] = self._translator.to_bridges(message)
            else:
                data = self._translator.to_queue(message)
        except (MalformedFields, FormatError) as error:
            self._refuse(f"of {message.sender}", error)
            return
        if data is not None:
            alone = "to" in message.fields or message.fields["method"] == "callback"
            self._send({**data, "origin": [message.sender, alone, message.sequence]})

    def _send(self, data: QueueMessage) -> None:
        with self._numbering:  # and in the order of the numbers
            self._number += 1
            data.update(via=self._id, seq=self._number)
            self._queue.publish(json.dumps(data).encode())

    def _send_members(self, members: list[Member]) -> None:
        """Not numbered: it says the number of the last one that is."""
        data: QueueMessage = {"method": "members", "host_id": self._id, "members": members}
        with self._numbering:
            data.update(via=self._id, seq=self._number)
            self._queue.publish(json.dumps(data).encode(), counts=False)

    # --- from the others to here ----------------------------------------------

    def _from_queue(self, raw: bytes) -> None:
        try:
            data = parse(raw)
            mark = seen(data)
            if mark is not None:
                bridge, number = mark
                if bridge == self._id:
                    return
                if data["method"] == "members":
                    self._hear_of(bridge, number)
                    self._meet(bridge, data.get("members"))
                    return
                if not self._is_new(bridge, number) or not self._is_new_of(*origin_of(data)):
                    return
            outgoing = self._translator.from_queue(data)
        except FormatError as error:
            self._refuse("on the message queue", error)
            return
        if outgoing is None:
            return
        tag, fields, packets = outgoing
        if tag is not None and self._members_known and tag not in self._tags_here:
            return  # for a worker of another host
        self.received += 1
        self._publisher.publish(tag, fields, packets)

    def _is_new(self, bridge: str, number: int) -> bool:
        if number <= self._others.get(bridge, 0):
            return False
        self._hear_of(bridge, number - 1)
        self._others[bridge] = number
        return True

    def _hear_of(self, bridge: str, number: int) -> None:
        """That bridge has sent messages up to this number; those not heard are missed."""
        last = self._others.setdefault(bridge, number)
        self._heard[bridge] = time.monotonic()
        if number > last:
            if not self.missed:
                logger.error("%d messages of another host did not come", number - last)
            self.missed += number - last
            self._others[bridge] = number

    def _is_new_of(self, sender: str, alone: bool, number: int) -> bool:
        """False for what a bridge before that one has passed on already."""
        stream = sender, alone
        if number <= self._origins.get(stream, 0):
            return False
        self._origins[stream] = number
        self._origins.move_to_end(stream)
        if len(self._origins) > _MOST_ORIGINS:
            self._origins.popitem(last=False)
        return True

    def _meet(self, bridge: str, members: Any) -> None:
        """:raises FormatError: when these are no members."""
        try:
            known = [[str(tag), True, [str(c) for c in channels]] for tag, _, channels in members]
        except (TypeError, ValueError):
            raise FormatError("members that are none") from None
        if not known:
            self._forget(bridge)
        elif self._elsewhere.get(bridge) != known:
            self._elsewhere[bridge] = known
            self._tell()
            self._wake.set()  # it may be new: let it know who is here

    def _refuse(self, where: str, error: Exception) -> None:
        if not self.malformed:
            logger.warning("a malformed message %s is ignored: %s", where, error)
        self.malformed += 1
