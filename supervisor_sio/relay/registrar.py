"""The router's answers on the relay: who receives, and how much ended processes had sent.

A process that only emits does not know which processes must get its messages before it ends, nor a
process that asks whose answers to wait for: both ask here. If some receivers lack messages at a
process's end, because they are stopped, say, the process reports here how much it has sent. For a
worker that was killed only the router knows how much that was. A process that may have missed such
an end asks here, too.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Any, Iterable, List, Mapping, Optional, Tuple

import zmq

from ..common.limits import RELAY_HIGH_WATER, RELAY_MOST_ENDED, RELAY_MOST_LEFT, RELAY_MOST_STREAMS
from ..common.refusals import Refusals
from ..common.rundir import ClusterInfo, RunDir
from . import other_versions
from .message import (
    TOPIC_FOR_ROUTER,
    MessageError,
    OtherVersion,
    RelayMessage,
    read_number,
    topic_for_all,
    topic_for_one,
)
from .methods import BRIDGE
from .publisher import RECONNECT
from .tally import Sent

logger = logging.getLogger("supervisor_sio.relay")

#: Milliseconds between two looks whether it is time to stop.
_TICK = 200

#: The name under which the router answers.
_SENDER = "router"

#: A worker: its tag, whether it is on another host, the channels that it receives, and whether the
#: tag is an alias, under which no process sends.
Member = List[Any]

#: Channel, sender, and the fields of a message that says how much the sender had sent.
_End = Tuple[str, str, Mapping[str, Any]]


class Registrar:
    """Answers in a thread of its own, from :meth:`start` to :meth:`close`."""

    def __init__(self, run_dir: RunDir, cluster: ClusterInfo) -> None:
        self._channel = cluster.channel
        #: Whether a bridge to other hosts receives that channel.
        self.bridged = False
        #: The workers that receive from the relay; ``None`` until they are known.
        self._members: Optional[list[Member]] = None
        #: Workers that ended lately.
        self._ended: deque[_End] = deque(maxlen=RELAY_MOST_ENDED)
        #: Processes without clients that ended lately.
        self._left: deque[_End] = deque(maxlen=RELAY_MOST_LEFT)
        self._refusals = Refusals(logger)
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._context = zmq.Context()
        self._publisher = self._context.socket(zmq.PUB)
        self._publisher.setsockopt(zmq.SNDHWM, RELAY_HIGH_WATER)
        self._subscriber = self._context.socket(zmq.SUB)
        self._subscriber.setsockopt(zmq.RCVHWM, RELAY_HIGH_WATER)
        for sock, path in ((self._publisher, run_dir.xsub), (self._subscriber, run_dir.xpub)):
            sock.setsockopt(zmq.LINGER, 0)
            sock.setsockopt(zmq.RECONNECT_IVL, RECONNECT)
            sock.connect(f"ipc://{path}")
        self._subscriber.setsockopt(zmq.SUBSCRIBE, TOPIC_FOR_ROUTER)
        self._thread = threading.Thread(target=self._run, name="registrar", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def set_members(self, members: Iterable[Member]) -> None:
        """Set the workers that receive from the relay, of this host and of others."""
        self._members = list({row[0]: row for row in members}.values())

    def ended(self, tag: str, channel: str, sent: Sent) -> None:
        """A worker's process has ended: receivers that lack messages of it can count them now."""
        self._publish_end(self._ended, channel, tag, sent, all_sent=False)

    def _publish_end(
        self, ends: deque[_End], channel: str, sender: str, sent: Sent, all_sent: bool
    ) -> None:
        fields = {
            "method": "ended",
            "began": sent.began,
            "all": sent.to_all,
            "own": sent.to_one,
            # Of a process that was killed, perhaps the last ones were not sent.
            "sent": all_sent,
            "at": time.monotonic(),
        }
        with self._lock:
            ends.append((channel, sender, fields))
            self._send(topic_for_all(channel), sender, fields)

    def close(self) -> None:
        self._closed.set()
        self._thread.join(2 * _TICK / 1000)
        with self._lock:
            self._publisher.close()
        if not self._thread.is_alive():
            self._subscriber.close()
            self._context.term()

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                if self._subscriber.poll(_TICK):
                    self._answer(self._subscriber.recv())
            except OtherVersion as error:
                other_versions.note(error)
            except Exception as error:  # a malformed question: the next one is answered
                self._refusals.count("bad-question-on-relay", repr(error))

    def _answer(self, data: bytes) -> None:
        question = RelayMessage.unpack(data, len(TOPIC_FOR_ROUTER))
        channel, method = str(question.fields["channel"]), question.fields["method"]
        topic = topic_for_one(channel, question.sender)
        if method == "who" and self._members is not None:
            tags = [tag for tag, elsewhere, *_ in self._members_on(channel) if not elsewhere]
            if self.bridged and channel == self._channel:
                tags.append(BRIDGE)
            with self._lock:
                self._send(topic, _SENDER, {"method": "receivers", "tags": tags})
        elif method == "members" and self._members is not None:
            rows = [
                [tag, elsewhere, alias] for tag, elsewhere, _, alias in self._members_on(channel)
            ]
            asked = read_number(question.fields["asked"])
            with self._lock:
                self._send(topic, _SENDER, {"method": method, "asked": asked, "members": rows})
        elif method == "ended":
            with self._lock:
                for of_channel, sender, fields in (*self._ended, *self._left):
                    if of_channel == channel:
                        self._send(topic, sender, fields)
                if "asked" in question.fields:
                    at = float(question.fields["asked"])
                    self._send(topic, _SENDER, {"method": "all_ended", "asked": at})
        elif method == "bye":
            sent = _read_sent(question.fields)
            self._publish_end(self._left, channel, question.sender, sent, all_sent=True)

    def _members_on(self, channel: str) -> list[Member]:
        return [row for row in self._members or () if channel in row[2]]

    def _send(self, topic: bytes, sender: str, fields: Mapping[str, Any]) -> None:
        if not self._publisher.closed:
            message = RelayMessage(sender, 0, fields, (), 0, time.monotonic())
            self._publisher.send(topic + message.pack(), zmq.NOBLOCK)


def _read_sent(fields: Mapping[str, Any]) -> Sent:
    """:raises MessageError: when none of our senders can have sent so much."""
    began, own = fields["began"], fields["own"]
    if type(began) is not float or not isinstance(own, dict) or len(own) > RELAY_MOST_STREAMS:
        raise MessageError("malformed numbers of a process that ends")
    to_one = {tag: read_number(number) for tag, number in own.items()}
    return Sent(began, read_number(fields["all"]), to_one)
