"""Answers to processes that serve no clients, kept until those processes have them.

Such an answer has no number on the relay, and may be lost there. So it has a number within its
question, and is kept for a while: a process that lacks some asks for them again. Pure: no sockets
here.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from typing import Any, Callable, Deque, Mapping, NamedTuple, Sequence

from ..common.limits import (
    RELAY_BATCH_BYTES,
    RELAY_KEPT_OVERHEAD,
    REPLIES_AGAIN,
    REPLIES_BYTES,
    REPLIES_KEPT,
    REPLIES_SECONDS,
)
from ..relay.message import EncodedPacket


class Key(NamedTuple):
    """The answers to one question in the name of one worker."""

    asker: str
    request: int
    worker: str


class Reply(NamedTuple):
    fields: Mapping[str, Any]
    packets: Sequence[EncodedPacket]
    time: float
    size: int


class _Answers:
    """The answers under one key; ``kept`` has no gaps.

    :param start: the number of the first one.
    """

    def __init__(self, start: int) -> None:
        self.start = self.next = start
        self.kept: Deque[Reply] = deque()


class Replies:
    """The recent answers of a worker.

    No number is given twice. A key that was forgotten meanwhile begins anew with a higher number:
    first numbers are the present microsecond.

    :param clock: the host's monotonic one.
    :param clock: the host's monotonic one.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: The least recently used first.
        self._answers: OrderedDict[Key, _Answers] = OrderedDict()
        #: One entry for each kept answer, the oldest first.
        self._in_order: Deque[_Answers] = deque()
        self._bytes = 0
        self._highest = 0

    def add(
        self, asker: str, fields: Mapping[str, Any], packets: Sequence[EncodedPacket]
    ) -> Mapping[str, Any]:
        """Keep an answer.

        :return: its fields, with its number and that of the first one to this question.
        """
        key = Key(asker, fields["request"], fields["worker"])
        answers = self._answers.get(key)
        if answers is None:
            # Also above the numbers of a worker whose questions this one answers now.
            first = max(self._highest + 1, int(self._clock() * 1e6))
            answers = self._answers[key] = _Answers(first)
        self._answers.move_to_end(key)
        numbered = {**fields, "start": answers.start, "number": answers.next}
        self._highest = max(self._highest, answers.next)
        answers.next += 1
        size = RELAY_KEPT_OVERHEAD + sum(map(len, packets))
        answers.kept.append(Reply(numbered, packets, self._clock(), size))
        self._in_order.append(answers)
        self._bytes += size
        self._forget()
        return numbered

    def again(self, key: Key, first: int) -> list[Reply]:
        """A batch of the kept answers under a key, from number ``first`` on."""
        answers = self._answers.get(key)
        if answers is None:
            return []
        batch: list[Reply] = []
        size = 0
        for reply in answers.kept:
            if reply.fields["number"] < first:
                continue
            size += reply.size
            if batch and (size > RELAY_BATCH_BYTES or len(batch) == REPLIES_AGAIN):
                break
            batch.append(reply)
        return batch

    def _forget(self) -> None:
        until = self._clock() - REPLIES_SECONDS
        while self._in_order and (
            len(self._in_order) > REPLIES_KEPT
            or self._bytes > REPLIES_BYTES
            or self._in_order[0].kept[0].time < until
        ):
            self._bytes -= self._in_order.popleft().kept.popleft().size
        # Keys whose answers are all forgotten are the first ones.
        while self._answers and not next(iter(self._answers.values())).kept:
            self._answers.popitem(last=False)


class Came:
    """Which answers of one worker to one question have arrived."""

    def __init__(self) -> None:
        self._start = 0
        #: The first number that has not come.
        self.lacks = 0
        self._ahead: set[int] = set()

    def is_new(self, start: int, number: int) -> bool:
        """Note that an answer has arrived. Return whether it had not arrived before.

        :param start: the number of the worker's first answer, as it came with this one.
        """
        if start > self._start:  # the worker had forgotten the question
            self._start = self.lacks = start
            self._ahead.clear()
        if number < self.lacks or number in self._ahead:
            return False
        self._ahead.add(number)
        while self.lacks in self._ahead:
            self._ahead.remove(self.lacks)
            self.lacks += 1
        return True
