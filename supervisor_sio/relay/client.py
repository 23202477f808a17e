"""A process's own sockets to the relay: one to publish, one to subscribe."""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import threading
import time
from collections import Counter
from typing import Any, Iterator, Optional

import zmq

from ..rundir import RunDir
from .message import MessageError, RelayMessage, topic_for_all, topic_for_one
from .proxy import HIGH_WATER_MARK
from .sequence import GapCounter

logger = logging.getLogger("supervisor_sio.relay")

#: Milliseconds that a process at its end waits for what it still has to send.
_LINGER = 5000

_RECONNECT = 50  # milliseconds

#: Messages received before other greenlets get a turn.
_BATCH = 50

_PROBE = {"method": "probe"}


class RelayUnreachable(RuntimeError):
    """Nobody relays what this process has to say; the text says what to look at."""


class Publisher:
    """Sends messages under topics, numbered; safe to use from several threads.

    A ZeroMQ publisher sends to nobody, silently, until it has heard from the
    relay. :meth:`join` finds out by a message to itself that comes back.

    :param sender: the tag of the worker, or another id that nobody else has.
    """

    def __init__(self, run_dir: RunDir, channel: str, sender: str) -> None:
        self._run_dir = run_dir
        self.channel = channel
        self.sender = sender
        self.own_topic = topic_for_one(channel, sender)
        self._for_all = topic_for_all(channel)
        self._sequence: Counter[bytes] = Counter()
        self._lock = threading.Lock()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
        self._socket.setsockopt(zmq.LINGER, _LINGER)
        self._socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT)
        self._socket.connect(f"ipc://{run_dir.xsub}")
        self._pid = os.getpid()
        atexit.register(self.close)

    def publish(self, tag: Optional[str], fields: dict[str, Any], packets: Any = ()) -> None:
        """Send to the worker with this tag, or to all for ``None``.

        :raises TypeError: when a field is not JSON; nothing is sent then.
        """
        topic = self._for_all if tag is None else topic_for_one(self.channel, tag)
        with self._lock:
            sequence = self._sequence[topic] + 1
            frames = RelayMessage(self.sender, sequence, fields, packets).pack(topic)
            # libzmq's own thread does the waiting: this call never blocks.
            self._socket.send_multipart(frames, zmq.NOBLOCK)
            self._sequence[topic] = sequence

    def probe(self) -> None:
        self.publish(self.sender, _PROBE)

    def join(self, timeout: float) -> None:
        """Wait until the relay forwards what this process sends; for one that only emits.

        :param timeout: in seconds.
        :raises RelayUnreachable: when no probe has come back by then.
        """
        ear = self._context.socket(zmq.SUB)
        try:
            ear.setsockopt(zmq.LINGER, 0)
            ear.setsockopt(zmq.SUBSCRIBE, self.own_topic)
            ear.connect(f"ipc://{self._run_dir.xpub}")
            deadline = time.monotonic() + timeout
            while time.monotonic() < deadline:
                self.probe()
                if ear.poll(20):
                    return
        finally:
            ear.close()
        raise RelayUnreachable(
            f"no relay answers in {self._run_dir.path}: "
            "is supervisord running, with [eventlistener:sio]?"
        )

    def close(self) -> None:
        """Send what is left, for at most five seconds, and close."""
        atexit.unregister(self.close)
        if self._pid == os.getpid() and not self._socket.closed:
            self._socket.close()
            self._context.term()


class Subscriber:
    """Receives, in an eventlet process, what is for all and what is for its own tag."""

    def __init__(self, publisher: Publisher, run_dir: RunDir) -> None:
        import eventlet
        from eventlet.green import zmq as green_zmq

        self._yield = eventlet.sleep
        self._publisher = publisher
        self._gaps = GapCounter()
        self.malformed = 0
        self.joined = False
        self._socket = green_zmq.Context().socket(green_zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT)
        self._socket.setsockopt(zmq.SUBSCRIBE, topic_for_all(publisher.channel))
        self._socket.setsockopt(zmq.SUBSCRIBE, publisher.own_topic)
        self._socket.connect(f"ipc://{run_dir.xpub}")

    @property
    def dropped(self) -> int:
        """Messages for this process that never arrived."""
        return self._gaps.missed

    def messages(self) -> Iterator[RelayMessage]:
        """What the others send, for ever."""
        for count in itertools.count(1):
            if not count % _BATCH:
                self._yield()  # a flood must not keep the worker from its clients
            frames = self._socket.recv_multipart()
            try:
                message = RelayMessage.unpack(frames)
            except MessageError as error:
                self.malformed += 1
                if self.malformed == 1:
                    logger.warning("a malformed message on the relay is ignored: %s", error)
                continue
            if message.sender == self._publisher.sender:
                # Its own, and what it says to all is delivered here already.
                self.joined = True
                continue
            gap = self._gaps.observe(message.sender, frames[0], message.sequence)
            if gap:
                logger.error("%d messages of %s were lost on the relay", gap, message.sender)
            yield message
