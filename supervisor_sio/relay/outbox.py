"""What a process has published: numbered, and kept for receivers that missed some of it.

Pure: no sockets here. ZeroMQ drops messages silently: when a buffer is full, when the relay
restarts, when a subscriber connects late. So every publisher keeps what it sent, within limits, and
sends it again when asked.

Each publisher has one *stream* of messages to all, and one to each worker to which it sends alone;
messages are numbered in their stream, from 1. A worker receives two streams of a publisher, and
must deliver them in the order in which they were sent:

* a message to one worker says in ``after`` how many messages to all came before it;
* a message to all says in its field ``after`` how many messages each worker got alone, for workers
  that got any since the message to all before.

The number of streams to one worker is limited, as clients may make up names of workers. The least
recently used stream makes room, once nothing of it is kept; until then, a message to one more
worker goes to all, with its name in the field ``only``. A stream that begins later begins above the
numbers of all that made room: no number is ever given twice.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from typing import Any, Deque, Iterator, Mapping, NamedTuple, Optional, Sequence

from ..common.limits import (
    RELAY_BATCH_BYTES,
    RELAY_BATCH_MESSAGES,
    RELAY_KEPT_OVERHEAD,
    RELAY_MOST_STREAMS,
)
from .message import EncodedPacket, pack, time_of

#: Seconds since its last use for which a stream is announced: a worker that was stopped for longer
#: asks by itself.
_LATELY = 60.0


class _Stream:
    """One numbered stream; ``kept`` has no gaps.

    :param start: numbers above it belong to this stream.
    """

    def __init__(self, start: int = 0) -> None:
        self.start = start
        self.last = start
        #: When its first and its last message were sent.
        self.began = math.inf
        self.time = 0.0
        #: By number, the oldest first: messages as packed. An object for each would take memory
        #: and the time of the garbage collector.
        self.kept: dict[int, bytes] = {}

    @property
    def oldest(self) -> int:
        return self.last + 1 - len(self.kept)

    def last_before(self, time: float) -> int:
        """The number of the last message sent before ``time``.

        Messages that are not kept any more count as earlier, unless the whole stream is later.
        """
        if time <= self.began:
            return self.start
        last = self.oldest - 1
        for number, data in self.kept.items():
            if time_of(data) >= time:
                break
            last = number
        return last


class Again(NamedTuple):
    """An answer to a receiver that missed messages."""

    #: The number of the first message here; earlier ones are not kept any more.
    first: int
    messages: list[bytes]
    #: Numbers up to this one were never used in this stream.
    start: int = 0


class Outbox:
    """All streams of one publisher.

    :param most_messages: most messages to keep, over all streams.
    :param most_bytes: most memory that they may take.
    """

    def __init__(self, sender: str, most_messages: int, most_bytes: int) -> None:
        self.sender = sender
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._to_all = _Stream()
        self._to_one: OrderedDict[str, _Stream] = OrderedDict()
        self._in_order: Deque[_Stream] = deque()
        self._bytes = 0
        #: By tag: the last number to each worker that got messages alone since the last one to all.
        self._since: dict[str, int] = {}
        #: When the first message was sent.
        self.began = math.inf
        #: The highest number of all streams that have made room.
        self._floor = 0

    def addressee(self, tag: str) -> Optional[str]:
        """The tag whose stream a message for this worker goes to.

        ``None``, the stream to all, when there is no room for one more stream.
        """
        if tag in self._to_one or len(self._to_one) < RELAY_MOST_STREAMS:
            return tag
        # The latest messages of all streams are kept: if one is kept of the least recently used
        # stream, one is kept of each.
        oldest, stream = next(iter(self._to_one.items()))
        if stream.kept:
            return None
        self._floor = max(self._floor, stream.last)
        self._since.pop(oldest, None)
        del self._to_one[oldest]
        return tag

    def add(
        self,
        tag: Optional[str],
        fields: Mapping[str, Any],
        packets: Sequence[EncodedPacket],
        now: float,
    ) -> tuple[int, bytes]:
        """Number a message for the worker with this tag, or for all with ``None``.

        :param tag: from :meth:`addressee`.
        :param now: of the host's monotonic clock, in seconds.
        :return: its number, and the message as packed.
        :raises TypeError: when a field is not JSON; nothing has changed then.
        """
        if tag is None:
            stream, after = self._to_all, 0
            if self._since:
                fields = {**fields, "after": self._since}
        else:
            stream, after = self._to_one.get(tag) or _Stream(self._floor), self._to_all.last
        number = stream.last + 1
        data = pack(self.sender, number, fields, packets, after, now)
        stream.last = number
        if now < stream.began:
            stream.began, self.began = now, min(self.began, now)
        stream.time = now
        stream.kept[number] = data
        if tag is None:
            self._since = {}
        else:
            self._to_one[tag] = stream
            self._to_one.move_to_end(tag)
            self._since[tag] = number
        self._in_order.append(stream)
        self._bytes += _size(data)
        while self._in_order and (
            len(self._in_order) > self._most_messages or self._bytes > self._most_bytes
        ):
            stream = self._in_order.popleft()
            self._bytes -= _size(stream.kept.pop(stream.oldest))
        return number, data

    def again(self, tag: Optional[str], first: int, last: int) -> Optional[Again]:
        """A batch of messages to ``tag`` or to all, from ``first`` on.

        ``None`` when there never were such messages.
        """
        stream = self._to_all if tag is None else self._to_one.get(tag)
        if stream is None:  # never used, or it has made room
            stream = _Stream(self._floor)
        if not 1 <= first <= last <= stream.last:
            return None
        first = max(first, stream.oldest)
        start = stream.start if tag in self._to_one else 0
        return Again(first, list(_batch(stream, first, last)), start)

    def position(self, now: float, lately: float = _LATELY) -> dict[str, Any]:
        """The number of the last message of each recently used stream.

        :param lately: seconds since its last use.
        """
        own: dict[str, int] = {}
        for tag, stream in reversed(self._to_one.items()):
            if stream.time < now - lately:
                break
            own[tag] = stream.last
        return {"all": self._to_all.last, "own": own}

    def position_for(self, tags: Sequence[str], since: float) -> dict[str, Any]:
        """The same for a process that receives under these tags, with what came before it began.

        :param since: when it began to receive; earlier messages are not for it.
        """
        streams = {tag: self._to_one.get(tag) or _Stream() for tag in tags}
        return {
            "all": self._to_all.last,
            "own": {tag: stream.last for tag, stream in streams.items()},
            "before": self._to_all.last_before(since),
            "own_before": {tag: stream.last_before(since) for tag, stream in streams.items()},
        }

    def last(self, *tags: str) -> dict[Optional[str], int]:
        """The numbers of the last messages to all, and to each of these workers alone."""
        return {
            None: self._to_all.last,
            **{tag: self._to_one[tag].last for tag in tags if tag in self._to_one},
        }

    @property
    def empty(self) -> bool:
        """Whether nothing was ever sent."""
        return not self._to_all.last and not self._to_one


def _size(data: bytes) -> int:
    return len(data) + RELAY_KEPT_OVERHEAD


def _batch(stream: _Stream, first: int, last: int) -> Iterator[bytes]:
    size = 0
    for number in range(first, min(last + 1, first + RELAY_BATCH_MESSAGES)):
        data = stream.kept[number]
        size += _size(data)
        if size > RELAY_BATCH_BYTES and number > first:
            return
        yield data
