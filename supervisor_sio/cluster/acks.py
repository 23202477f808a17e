"""Acknowledgements that are awaited: by id, limited in number and time.

A client may never acknowledge an event, and stay connected for months. So nothing of the event is
kept.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any, Callable, Iterable, NamedTuple, Optional

from ..common.limits import ACK_TIMEOUT, ACKS_PER_CLIENT, ACKS_PER_WORKER

Callback = Callable[..., Any]


class Asked(NamedTuple):
    """The process that asks, if it is another one: kept for a worker that takes the client over."""

    #: The tag or id of that process.
    asker: str
    namespace: str
    #: For ``emit_with_acks()``: the number of the question, and the worker that its answers name.
    request: Optional[int] = None
    worker: str = ""


class Question(NamedTuple):
    """A question to one or more clients."""

    ack_id: int
    #: Called with the arguments of each client's acknowledgement.
    answered: Callback
    #: Called for each client that leaves without an acknowledgement.
    no_answer: Optional[Callable[[], None]] = None
    #: Seconds after which it expires.
    timeout: float = ACK_TIMEOUT
    #: ``None`` when this process asks.
    asked: Optional[Asked] = None


class Clients:
    """Acknowledgements that clients of this process owe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: By sid and id: when each question expires, and the question; the oldest first.
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
        """Return the callback, once; ``None`` when nothing was asked, or the question has
        expired."""
        asked = self._asked.get(sid, {})
        entry = asked.pop(ack_id, None)
        if not asked:
            self._asked.pop(sid, None)
        return entry[1].answered if entry is not None and entry[0] > self._clock() else None

    def left(self, sid: str, moved: bool = False) -> list[Callable[[], None]]:
        """A client has left. Return the callbacks for the answers that will not come.

        :param moved: another process has the client, and answers the questions of others there.
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
        """The questions of other processes to a client: id, seconds until it expires, and the
        asker."""
        now = self._clock()
        return [
            (number, expires - now, question.asked)
            for number, (expires, question) in self._asked.get(sid, {}).items()
            if question.asked is not None and expires > now
        ]


class Callbacks:
    """Callbacks of the application for acknowledgements of clients of any worker."""

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
        """Return the callback, once; ``None`` when it was called, or has expired."""
        expires, callback = self._waiting.pop(ack_id, (0.0, None))
        return callback if expires > self._clock() else None
