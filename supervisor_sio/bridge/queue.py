"""The connection pair to Redis: one to publish, one to subscribe.

What is numbered waits in the host's stream while Redis is away, or refuses it. Local traffic
knows nothing of it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections import deque
from typing import Callable, Deque, Optional

from ..common.limits import (
    BRIDGE_MOST_ON_THEIR_WAY,
    BRIDGE_MOST_UNNUMBERED,
    BRIDGE_MOST_UNNUMBERED_BYTES,
    BRIDGE_SILENCE,
)
from ..common.redis_client import without_password
from ..common.refusals import Refusals
from .brokers import Broker
from .stream import HostStream

logger = logging.getLogger("supervisor_sio.bridge")

#: Messages published in one round trip.
_BATCH = 100

#: Seconds between attempts to reach Redis: the first, and at most.
_FIRST_RETRY = 0.1
_LONGEST_RETRY = 1.0

#: Seconds after Redis is back until the first message: time for the other hosts
#: to subscribe again, or they would miss it. Longer than ``_LONGEST_RETRY``.
_OTHERS_FIRST = 1.5

#: Seconds between looks whether it is time to stop.
_TICK = 0.5


class RedisQueue:
    """Publishes and subscribes, in a thread each, from :meth:`start` to :meth:`close`.

    :param stream: what is to be published.
    :param received: gets each message of the channel, in the subscriber's thread.
    :param silence: seconds without a message, its own included, after which the
        connection is taken for dead.
    :raises QueueError: as :func:`make_client`.
    """

    def __init__(
        self,
        url: str,
        channel: str,
        stream: HostStream,
        received: Callable[[bytes], None],
        silence: float = BRIDGE_SILENCE,
    ) -> None:
        self._broker = Broker(url, channel)
        self._shown = without_password(url)
        self._stream = stream
        self._received = received
        self._silence = silence
        #: Messages without a number.
        self._unnumbered: Deque[bytes] = deque()
        self._bytes = 0
        self._refusals = Refusals(logger)
        #: Since when something is confirmed that has not come back; the last number that has.
        self._confirmed_since = math.inf
        self._returned = stream.given
        #: Why nothing gets through, as it was last told.
        self._fault: Optional[tuple[str, type[Exception]]] = None
        #: Why the connection was lost, as it was last told, until a message has come back; and
        #: whether it was lost for the same again since.
        self._loss = ""
        self._is_told = False
        self._changed = threading.Condition()
        self._closed = threading.Event()
        #: Whether the subscriber hears the channel.
        self.connected = False
        self._connected_at = 0.0
        #: How often it has begun to.
        self.connections = 0
        self.sent = 0
        #: How often Redis has refused a message.
        self.refused = 0
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for target, name in ((self._publish, "queue-publish"), (self._listen, "queue-listen"))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """There is something in the stream."""
        with self._changed:
            self._changed.notify()

    def say(self, data: bytes) -> None:
        """Publish soon, if Redis is there, what nobody misses; never waits."""
        with self._changed:
            if (
                self.connected
                and len(self._unnumbered) < BRIDGE_MOST_UNNUMBERED
                and self._bytes + len(data) <= BRIDGE_MOST_UNNUMBERED_BYTES
            ):
                self._unnumbered.append(data)
                self._bytes += len(data)
                self._changed.notify()

    def came_back(self, number: int) -> None:
        """A message of this host has come through Redis, with all up to this number."""
        self._confirmed_since = math.inf
        self._loss = ""
        with self._changed:
            self._returned = max(self._returned, number)
            self._changed.notify()

    def close(self, timeout: float = 2.0) -> None:
        """Publish what waits, if Redis takes it in time."""
        deadline = time.monotonic() + timeout
        while self.connected and self._due and time.monotonic() < deadline:
            time.sleep(0.01)
        self._closed.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, deadline + _TICK - time.monotonic()))

    # --- to publish -----------------------------------------------------------

    @property
    def _due(self) -> bool:
        return bool(self._unnumbered) or self._room > 0 and self._stream.given < self._stream.last

    @property
    def _room(self) -> int:
        """How many messages may be on their way, beside those that have yet to come back.

        All hosts take them as fast as this one, more or less. More would wait in Redis, until
        that cuts the receivers off; and behind them answers to who lacks some.
        """
        return BRIDGE_MOST_ON_THEIR_WAY - (self._stream.given - self._returned)

    def _publish(self) -> None:
        while not self._closed.is_set():
            with self._changed:
                if not self._due:
                    self._changed.wait(_TICK)
                    continue
            if not self.connected or time.monotonic() < self._connected_at + _OTHERS_FIRST:
                self._closed.wait(0.05)
                continue
            what = "cannot be reached to publish, trying again"
            try:
                self._broker.connect()
                what = "has not confirmed all, other hosts ask for what they lack"
                pause = self._publish_batch()
            except Exception as error:
                pause = True
                self._broker.renew()
                self._tell(what, error)
            if pause:
                self._closed.wait(_LONGEST_RETRY)

    def _publish_batch(self) -> bool:
        """:return: whether Redis has refused something."""
        with self._changed:
            count = min(_BATCH, len(self._unnumbered))
            unnumbered = [self._unnumbered.popleft() for _ in range(count)]
            self._bytes -= sum(map(len, unnumbered))
        numbered = self._stream.take(min(_BATCH, self._room)) if self._room > 0 else []
        results = self._broker.publish([*unnumbered, *numbered]) if unnumbered or numbered else []
        errors = [error for error in results if isinstance(error, Exception)]
        # Those at the end are tried again. What is missing in the middle the others ask for.
        again = 0
        while again < len(numbered) and isinstance(results[-1 - again], Exception):
            again += 1
        self._stream.give_back(again)
        self.sent += len(numbered) - again
        self.refused += len(errors)
        if errors:
            self._broker.renew()  # it may be a replica now, or have other slots
            self._tell("refuses messages, trying again", errors[-1])
        elif results:
            self._fault = None
            self._confirmed_since = min(self._confirmed_since, time.monotonic())
        return bool(errors)

    def _tell(self, what: str, error: Exception) -> None:
        """Once, until it works again or is another error."""
        fault = what, type(error)
        if fault != self._fault:
            self._fault = fault
            logger.error("%s %s: %s", self._shown, what, error)

    # --- to subscribe ---------------------------------------------------------

    def _listen(self) -> None:
        retry = _FIRST_RETRY
        while not self._closed.is_set():
            subscription = None
            try:
                subscription = self._broker.subscribe()
                confirmations = self._broker.confirmations
                heard = time.monotonic()
                self._confirmed_since = math.inf
                while not self._closed.is_set():
                    message = subscription.get_message(timeout=_TICK)
                    now = time.monotonic()
                    kind = None
                    if message is not None:
                        heard, kind = now, message["type"]
                    if kind in ("message", "smessage"):
                        self._hear(message["data"])
                    elif kind == "sunsubscribe":
                        raise ConnectionError("the channel is at another node now")
                    elif kind in ("subscribe", "ssubscribe"):
                        confirmations -= 1
                        if not confirmations:
                            retry = _FIRST_RETRY
                            self._found()
                    if now - heard > self._silence:
                        raise TimeoutError("it is silent")
                    if now - self._confirmed_since > self._silence:
                        raise TimeoutError("what it confirms does not come back")
            except Exception as error:
                self._lost(error)
            finally:
                if subscription is not None:
                    with contextlib.suppress(Exception):  # it is lost anyway
                        subscription.close()
            self._closed.wait(retry)
            retry = min(retry * 2, _LONGEST_RETRY)

    def _hear(self, data: bytes) -> None:
        try:
            self._received(data)
        except Exception as error:  # not a fault of Redis
            self._refusals.count("bad-message-on-queue", repr(error))

    def _found(self) -> None:
        if not self.connected:
            if not self._is_told:
                logger.info("connected to %s", self._shown)
            first = not self._connected_at
            self._connected_at = time.monotonic() - (_OTHERS_FIRST if first else 0.0)
            self._returned = self._stream.given  # or it has been lost
            self.connections += 1
            self.connected = True

    def _lost(self, error: Exception) -> None:
        if self.connected or not self._connected_at:
            # One that lets us subscribe and not publish is lost again and again.
            self._is_told = repr(error) == self._loss
            if not self._is_told:
                self._loss = repr(error)
                logger.error("%s is away, trying again: %s", self._shown, error)
            self._connected_at = self._connected_at or time.monotonic()
        self.connected = False
        self._broker.renew()
