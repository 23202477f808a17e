"""The two connections to Redis: one to publish, one to subscribe.

Numbered messages wait in the host's stream while Redis is away or refuses them. Local traffic does
not wait for them.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Optional, Sequence

from ..common.limits import (
    BRIDGE_LONGEST,
    BRIDGE_MOST_ON_THEIR_WAY,
    BRIDGE_MOST_ON_THEIR_WAY_BYTES,
    BRIDGE_MOST_UNNUMBERED,
    BRIDGE_MOST_UNNUMBERED_BYTES,
    BRIDGE_SILENCE,
)
from ..common.redis_client import without_password
from ..common.refusals import Refusals
from .brokers import Broker
from .stream import HostStream

logger = logging.getLogger("supervisor_sio.bridge")

#: Messages published in one round trip, or handled in one turn of the subscriber.
_BATCH = 100

#: Seconds between attempts to reach Redis: the first, and the longest pause.
_FIRST_RETRY = 0.1
_LONGEST_RETRY = 1.0

#: Seconds after a reconnect until the first message: the other hosts have to subscribe again, or
#: would miss it. Longer than ``_LONGEST_RETRY``.
_OTHERS_FIRST = 1.5

#: Seconds between two looks whether it is time to stop.
_TICK = 0.5


class RedisQueue:
    """Publishes and subscribes, each in a thread, from :meth:`start` to :meth:`close`.

    :param stream: the numbered messages to publish.
    :param received: gets each message of the channel, in the subscriber's thread.
    :param rests: called in that thread after messages, when no further one is there.
    :param silence: seconds without a message, its own included, after which the connection counts
        as dead.
    :raises QueueError: as :func:`make_client`.
    """

    def __init__(
        self,
        url: str,
        channel: str,
        stream: HostStream,
        received: Callable[[bytes], None],
        rests: Callable[[], None] = lambda: None,
        silence: float = BRIDGE_SILENCE,
    ) -> None:
        self._broker = Broker(url, channel)
        self._shown = without_password(url)
        self._stream = stream
        self._received = received
        self._rests = rests
        self._silence = silence
        #: Messages without numbers that wait to be published.
        self._unnumbered: Deque[bytes] = deque()
        self._bytes = 0
        self._refusals = Refusals(logger)
        #: Since when Redis has confirmed messages that have not come back; the last number that
        #: has.
        self._confirmed_since = math.inf
        self._returned = stream.given
        #: For each batch on its way: its last number, and its size in bytes.
        self._on_their_way: Deque[tuple[int, int]] = deque()
        self._bytes_on_their_way = 0
        #: Whether Redis counts to how many receivers it passes a message on; ``None`` until it has
        #: passed one on to somebody, ``False`` once one to nobody has come back.
        self._receivers_are_counted: Optional[bool] = None
        #: The connection during which it passed messages on to nobody, as :attr:`connections`.
        self._reached_nobody_in = -1
        #: Why nothing can be published, as it was logged last.
        self._fault: Optional[tuple[str, type[Exception]]] = None
        #: Why the connection was lost, as it was logged last, until a message has come back; and
        #: whether it was lost again since then for the same reason.
        self._loss = ""
        self._is_logged = False
        self._changed = threading.Condition()
        self._closed = threading.Event()
        #: Whether the subscription to the channel is complete.
        self.connected = False
        self._connected_at = 0.0
        #: How often it has connected.
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
        """The stream has something to publish."""
        with self._changed:
            self._changed.notify()

    def say(self, data: bytes) -> None:
        """Publish soon, without a number, if Redis is connected and there is room; never waits."""
        with self._changed:
            # An answer with a single message may be longer than all that may wait.
            has_room = not self._unnumbered or (
                len(self._unnumbered) < BRIDGE_MOST_UNNUMBERED
                and self._bytes + len(data) <= BRIDGE_MOST_UNNUMBERED_BYTES
            )
            if self.connected and has_room and len(data) <= BRIDGE_LONGEST:
                self._unnumbered.append(data)
                self._bytes += len(data)
                self._changed.notify()

    def came_back(self, number: int) -> None:
        """A message of this host has come back through Redis, after all up to this number."""
        self._confirmed_since = math.inf
        self._loss = ""
        with self._changed:
            # Anybody may have published it with any number.
            self._returned = max(self._returned, min(number, self._stream.given))
            while self._on_their_way and self._on_their_way[0][0] <= self._returned:
                self._bytes_on_their_way -= self._on_their_way.popleft()[1]
            self._changed.notify()

    def close(self, timeout: float = 2.0) -> None:
        """Publish waiting messages, if Redis takes them in time."""
        deadline = time.monotonic() + timeout
        while self.connected and self._waits and time.monotonic() < deadline:
            time.sleep(0.01)
        self._closed.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, deadline + _TICK - time.monotonic()))

    # --- publishing -------------------------------------------------------------

    @property
    def _waits(self) -> bool:
        """Whether there is something to publish, now or once earlier messages have come back."""
        return bool(self._unnumbered or self._stream.waiting)

    @property
    def _due(self) -> bool:
        return bool(self._unnumbered) or self._room > 0 and self._stream.given < self._stream.last

    @property
    def _room(self) -> int:
        """How many more messages may be on their way, besides those that have yet to come back.

        All hosts receive them about as fast as this one. More of them would wait in Redis, until it
        disconnects the receivers; and answers to bridges that lack some would wait behind them.
        """
        if self._bytes_on_their_way >= BRIDGE_MOST_ON_THEIR_WAY_BYTES:
            return 0
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
                self._log_fault(what, error)
            if pause:
                self._closed.wait(_LONGEST_RETRY)

    def _publish_batch(self) -> bool:
        """Publish a batch. Return whether Redis has refused a message."""
        connection = self.connections
        with self._changed:
            count = min(_BATCH, len(self._unnumbered))
            unnumbered = [self._unnumbered.popleft() for _ in range(count)]
            self._bytes -= sum(map(len, unnumbered))
            numbered = self._stream.take(min(_BATCH, self._room)) if self._room > 0 else []
            if numbered:
                size = sum(map(len, numbered))
                self._on_their_way.append((self._stream.given, size))
                self._bytes_on_their_way += size
        results = self._broker.publish([*unnumbered, *numbered]) if unnumbered or numbered else []
        errors = [error for error in results if isinstance(error, Exception)]
        reached_nobody = self._reached_nobody(results, len(numbered), connection)
        # Those at the end that nobody got are tried again; other bridges ask for those in the
        # middle.
        again = 0
        while again < len(numbered) and (
            reached_nobody or isinstance(results[-1 - again], Exception)
        ):
            again += 1
        if again:
            self._give_back(again)
        self.sent += len(numbered) - again
        self.refused += len(errors)
        if errors:
            self._broker.renew()  # the node may be a replica now, or have other slots
            self._log_fault("refuses messages, trying again", errors[-1])
        elif reached_nobody:
            self._reached_nobody_in = connection
        elif results:
            self._fault = None
            self._confirmed_since = min(self._confirmed_since, time.monotonic())
        return bool(errors)

    def _give_back(self, count: int) -> None:
        """The last messages that were taken are not on their way."""
        with self._changed:
            self._stream.give_back(count)
            given = self._stream.given
            self._returned = min(self._returned, given)  # it may have connected anew meanwhile
            while self._on_their_way and self._on_their_way[-1][0] > given:
                self._bytes_on_their_way -= self._on_their_way.pop()[1]

    def _reached_nobody(self, results: Sequence[Any], numbered: int, connection: int) -> bool:
        """Whether Redis passed messages on to nobody, not even to this host's own subscription.

        Then that is at another server: at one that was the master until now. The count says nothing
        where it is always 0, as behind some proxies, or where the messages come back nevertheless:
        the nodes of a cluster pass messages on to each other, and count their own receivers only.
        """
        if any(type(result) is not int for result in results):
            return False
        if any(results) and self._receivers_are_counted is None:
            self._receivers_are_counted = True
        if any(results) or not numbered or not self._receivers_are_counted:
            return False
        last = self._stream.given
        with self._changed:
            self._changed.wait_for(
                lambda: self._returned >= last or self._closed.is_set(), _LONGEST_RETRY
            )
            # After a reconnect all count as returned.
            same = self.connected and self.connections == connection
            self._receivers_are_counted = not (same and self._returned >= last)
        return self._receivers_are_counted

    def _log_fault(self, what: str, error: Exception) -> None:
        """Log an error once, until publishing works again or the error changes."""
        fault = what, type(error)
        if fault != self._fault:
            self._fault = fault
            logger.error("%s %s: %s", self._shown, what, error)

    # --- subscribing ------------------------------------------------------------

    def _listen(self) -> None:
        retry = _FIRST_RETRY
        while not self._closed.is_set():
            subscription = None
            try:
                subscription = self._broker.subscribe()
                confirmations = self._broker.confirmations
                heard = time.monotonic()
                self._confirmed_since = math.inf
                taken = 0
                while not self._closed.is_set():
                    message = subscription.get_message(timeout=_TICK)
                    now = time.monotonic()
                    kind = None
                    if message is not None:
                        heard, kind = now, message["type"]
                    if kind in ("message", "smessage"):
                        self._take(message["data"])
                        taken += 1
                    elif kind == "sunsubscribe":
                        raise ConnectionError("the channel has moved to another node")
                    elif kind in ("subscribe", "ssubscribe"):
                        confirmations -= 1
                        if not confirmations:
                            retry = _FIRST_RETRY
                            self._found()
                    # Without get_message(): that has no patience with one of which only a part has
                    # arrived, as of redis-py 8.
                    all_read = not subscription.connection.can_read(timeout=0)
                    if taken and (all_read or taken >= _BATCH):
                        taken = 0
                        self._rest()
                    if self.connected and self._reached_nobody_in == self.connections:
                        raise ConnectionError("messages are published to another server")
                    if now - heard > self._silence:
                        raise TimeoutError("no message arrives")
                    # A host that is slow to receive has others' messages to read before its own.
                    if all_read and now - self._confirmed_since > self._silence:
                        raise TimeoutError("confirmed messages do not come back")
            except Exception as error:
                self._lost(error)
            finally:
                self._rest()
                if subscription is not None:
                    with contextlib.suppress(Exception):  # it is lost anyway
                        subscription.close()
            self._closed.wait(retry)
            retry = min(retry * 2, _LONGEST_RETRY)

    def _take(self, data: bytes) -> None:
        try:
            self._received(data)
        except Exception as error:  # the handler's fault, not Redis's
            self._refusals.count("bad-message-on-queue", repr(error))

    def _rest(self) -> None:
        try:
            self._rests()
        except Exception as error:
            self._refusals.count("bridge-failed", repr(error))

    def _found(self) -> None:
        if not self.connected:
            if not self._is_logged:
                logger.info("connected to %s", self._shown)
            first = not self._connected_at
            self._connected_at = time.monotonic() - (_OTHERS_FIRST if first else 0.0)
            with self._changed:
                self._returned = self._stream.given  # those on their way may be lost
                self._on_their_way.clear()
                self._bytes_on_their_way = 0
            self.connections += 1
            self.connected = True

    def _lost(self, error: Exception) -> None:
        if self.connected or not self._connected_at:
            # A Redis that lets this host subscribe but not publish is lost again and again.
            self._is_logged = repr(error) == self._loss
            if not self._is_logged:
                self._loss = repr(error)
                logger.error("%s is away, trying again: %s", self._shown, error)
            self._connected_at = self._connected_at or time.monotonic()
        self.connected = False
        self._broker.renew()
