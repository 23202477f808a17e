"""The connection pair to Redis: one to publish, one to subscribe.

What is to be published while Redis is away waits, within bounds; what there is
no room for is counted. Local traffic knows nothing of it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections import deque
from typing import Callable, Deque, Iterable, Optional

from ..common.limits import BRIDGE_MOST_WAITING, BRIDGE_MOST_WAITING_BYTES, RELAY_GIVE_UP
from ..common.redis_client import make_client, without_password
from ..common.refusals import Refusals

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


#: To be published: whether it counts, and when it was sent, or ``inf``.
_Item = tuple[bytes, bool, float]


def _oldest(items: Iterable[_Item]) -> float:
    return min((since for _, _, since in items), default=math.inf)


class RedisQueue:
    """Publishes and subscribes, in a thread each, from :meth:`start` to :meth:`close`.

    :param received: gets each message of the channel, in the subscriber's thread.
    :param silence: seconds without a message, its own included, after which the
        connection is taken for dead.
    :raises QueueError: as :func:`make_client`.
    """

    def __init__(
        self, url: str, channel: str, received: Callable[[bytes], None], silence: float = 7.0
    ) -> None:
        self._client = make_client(url)
        self._shown = without_password(url)
        self._channel = channel
        self._received = received
        self._silence = silence
        self._waiting: Deque[_Item] = deque()
        self._bytes = 0
        self._refusals = Refusals(logger)
        #: When the oldest message was sent of the batch that is just being published, and of
        #: those that were not confirmed.
        self._taken = math.inf
        self._unconfirmed = math.inf
        #: Until when other hosts may ask for the latter.
        self._unconfirmed_until = math.inf
        self._changed = threading.Condition()
        self._closed = threading.Event()
        #: Whether the subscriber hears the channel.
        self.connected = False
        self._connected_at = 0.0
        self.sent = 0
        #: Messages that Redis did not take and that are given up.
        self.unsent = 0
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for target, name in ((self._publish, "queue-publish"), (self._listen, "queue-listen"))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def publish(self, data: bytes, counts: bool = True, since: float = math.inf) -> bool:
        """Publish soon; never waits. False when there is no room for it.

        :param counts: whether it is missed when it is not published.
        :param since: when a worker sent it, by the host's monotonic clock, in seconds.
        """
        with self._changed:
            if (
                len(self._waiting) >= BRIDGE_MOST_WAITING
                or self._bytes + len(data) > BRIDGE_MOST_WAITING_BYTES
            ):
                if not counts:
                    return False
                if not self.unsent:
                    logger.error("%s is away too long: emits for other hosts are lost", self._shown)
                self.unsent += 1
                return False
            self._waiting.append((data, counts, since))
            self._bytes += len(data)
            self._changed.notify()
            return True

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def oldest(self) -> Optional[float]:
        """When the oldest message was sent that others may lack and ask this process for.

        Redis has not taken it, or not confirmed it; ``None`` without any. It is what the
        bridge of the next router asks the workers for, should this one end.
        """
        with self._changed:
            oldest = min(self._taken, self._unconfirmed, _oldest(self._waiting))
        return None if oldest == math.inf else oldest

    def close(self, timeout: float = 2.0) -> None:
        """Publish what waits, if Redis takes it in time."""
        deadline = time.monotonic() + timeout
        while self.connected and self._waiting and time.monotonic() < deadline:
            time.sleep(0.01)
        self._closed.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, deadline + _TICK - time.monotonic()))

    # --- to publish -----------------------------------------------------------

    def _publish(self) -> None:
        while not self._closed.is_set():
            with self._changed:
                if not self._waiting:
                    self._changed.wait(_TICK)
                    continue
            if not self.connected or time.monotonic() < self._connected_at + _OTHERS_FIRST:
                self._closed.wait(0.05)
                continue
            with self._changed:
                batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
                self._bytes -= sum(len(data) for data, _, _ in batch)
                self._taken = _oldest(batch)
            counted = sum(counts for _, counts, _ in batch)
            try:
                pipeline = self._client.pipeline(transaction=False)
                for data, _, _ in batch:
                    pipeline.publish(self._channel, data)
                pipeline.execute()
                self.sent += counted
                self._forget_unconfirmed(time.monotonic())
            except Exception as error:
                # Some of them may have gone: again would be twice for those who do not
                # look at the numbers. Other hosts ask for what they lack.
                self._unconfirmed = min(self._unconfirmed, self._taken)
                self._unconfirmed_until = math.inf
                logger.error(
                    "%s has not confirmed %d messages; other hosts of ours ask for what they "
                    "lack: %s",
                    self._shown,
                    counted,
                    error,
                )
                self._closed.wait(_LONGEST_RETRY)
            finally:
                self._taken = math.inf

    def _forget_unconfirmed(self, now: float) -> None:
        """Redis has confirmed something later: the others see now what they lack."""
        if self._unconfirmed_until == math.inf:
            self._unconfirmed_until = now + RELAY_GIVE_UP
        elif now > self._unconfirmed_until:
            self._unconfirmed = math.inf

    # --- to subscribe ---------------------------------------------------------

    def _listen(self) -> None:
        retry = _FIRST_RETRY
        while not self._closed.is_set():
            pubsub = None
            try:
                pubsub = self._client.pubsub()
                pubsub.subscribe(self._channel)
                heard = time.monotonic()
                while not self._closed.is_set():
                    message = pubsub.get_message(timeout=_TICK)
                    if message is None:
                        if time.monotonic() - heard > self._silence:
                            raise TimeoutError("it is silent")
                        continue
                    heard = time.monotonic()
                    if message["type"] == "subscribe":
                        retry = _FIRST_RETRY
                        self._found()
                    elif message["type"] == "message":
                        self._hear(message["data"])
            except Exception as error:
                self._lost(error)
            finally:
                if pubsub is not None:
                    with contextlib.suppress(Exception):  # it is lost anyway
                        pubsub.close()
            self._closed.wait(retry)
            retry = min(retry * 2, _LONGEST_RETRY)

    def _hear(self, data: bytes) -> None:
        try:
            self._received(data)
        except Exception as error:  # not a fault of Redis
            self._refusals.count("bad-message-on-queue", repr(error))

    def _found(self) -> None:
        if not self.connected:
            logger.info("connected to %s", self._shown)
            first = not self._connected_at
            self._connected_at = time.monotonic() - (_OTHERS_FIRST if first else 0.0)
            self.connected = True

    def _lost(self, error: Exception) -> None:
        if self.connected or not self._connected_at:
            logger.error("%s is away, trying again: %s", self._shown, error)
            self._connected_at = self._connected_at or time.monotonic()
        self.connected = False
