"""Acknowledgements that are awaited: by ids alone, so many, and for so long.

A client may never acknowledge what it got, and stay connected for months. Nothing of the
message is kept for it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any, Callable, Iterable, NamedTuple, Optional

from ..common.limits import ACK_TIMEOUT, ACKS_PER_CLIENT, ACKS_PER_WORKER

Callback = Callable[..., Any]


class Asked(NamedTuple):
    """By whom, when it is another process: for whoever takes the client over meanwhile."""

    #: Who gets the answer.
    asker: str
    namespace: str
    #: Of ``emit_with_acks()``: which question it is, and in whose name it is answered.
    request: Optional[int] = None
    worker: str = ""


class Question(NamedTuple):
    """What is asked of one or more clients."""

    ack_id: int
    #: Called with the answer of each client.
    answered: Callback
    #: Called for each client that leaves without one.
    no_answer: Optional[Callable[[], None]] = None
    #: For how many seconds it may be answered.
    timeout: float = ACK_TIMEOUT
    #: ``None`` when it is this process that asks.
    asked: Optional[Asked] = None


class Clients:
    """What clients of this process have yet to acknowledge."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: By sid and id, when a question expires, and the question; the oldest first.
        self._asked: dict[str, dict[int, tuple[float, Question]]] = {}

    def ask(self, sids: Iterable[str], question: Question) -> None:
        now = self._clock()
        entry = now + question.timeout, question
        for sid in sids:
            asked = self._asked.setdefault(sid, {})
            while asked:
                oldest = next(iter(asked))
                if asked[oldest][0] > now and len(asked) < ACKS_PER_CLIENT:
                    break
                del asked[oldest]
            asked[question.ack_id] = entry

    def answered(self, sid: str, ack_id: Any) -> Optional[Callback]:
        """Whom to call with the answer, once; ``None`` when nobody has asked, or too long ago."""
        asked = self._asked.get(sid, {})
        entry = asked.pop(ack_id, None)
        if not asked:
            self._asked.pop(sid, None)
        return entry[1].answered if entry is not None and entry[0] > self._clock() else None

    def left(self, sid: str, moved: bool = False) -> list[Callable[[], None]]:
        """That client is gone: whom to call for each answer that will not come.

        :param moved: another process has it, where what others ask is answered.
        """
        asked = self._asked.pop(sid, None)
        if not asked:
            return []
        return [
            question.no_answer
            for _, question in asked.values()
            if question.no_answer is not None and not (moved and question.asked)
        ]

    def asked_by_others(self, sid: str) -> list[tuple[int, float, Asked]]:
        """What other processes ask that client: ids, and for how many seconds yet."""
        now = self._clock()
        return [
            (number, expires - now, question.asked)
            for number, (expires, question) in self._asked.get(sid, {}).items()
            if question.asked is not None and expires > now
        ]


class Callbacks:
    """What the application wants to be called when clients, wherever they are, acknowledge."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: OrderedDict[int, tuple[float, Callback]] = OrderedDict()

    def add(self, ack_id: int, callback: Callback) -> None:
        now, waiting = self._clock(), self._waiting
        while waiting:
            oldest = next(iter(waiting))
            if waiting[oldest][0] > now and len(waiting) < ACKS_PER_WORKER:
                break
            del waiting[oldest]
        waiting[ack_id] = now + ACK_TIMEOUT, callback

    def take(self, ack_id: int) -> Optional[Callback]:
        """Whom to call, once; ``None`` when that was done, or came too late."""
        expires, callback = self._waiting.pop(ack_id, (0.0, None))
        return callback if expires > self._clock() else None
