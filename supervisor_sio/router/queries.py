"""Send questions of ``supervisorctl sio`` to the workers, and collect the answers."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, Mapping

from ..common.channel import ChannelError, Message, in_parts
from ..common.limits import MAX_REASON, MAX_ROWS

logger = logging.getLogger("supervisor_sio.router")

#: Seconds to wait for the workers' answers; supervisord waits a little longer.
_TIMEOUT = 3.0


@dataclass
class Result:
    """The workers' answers."""

    #: Rows by the worker's name.
    rows: dict[str, list[Any]] = field(default_factory=dict)
    #: Number of rows without a limit.
    total: int = 0
    #: Number of workers that did not answer.
    missing: int = 0
    #: Number of rows that each worker has without a limit, by its name.
    totals: dict[str, int] = field(default_factory=dict)


@dataclass
class _Question:
    waiting: dict[str, str]
    result: Result
    done: Callable[[Result], None]
    timer: asyncio.TimerHandle


def clients(result: Result) -> list[Any]:
    """Rows for supervisord, each with its worker's name."""
    return [[name, row] for name, rows in sorted(result.rows.items()) for row in rows]


def rooms(result: Result) -> list[Any]:
    """The rooms of all workers with their numbers of clients, the largest room first.

    Each worker sends its rooms in the order of their names. If a worker has sent only a part, rooms
    after its last one are not counted, because they are not known of all workers. Sets
    ``result.total`` to the number of rooms, or, in that case, to a lower bound.
    """
    cut = {
        worker: rows
        for worker, rows in result.rows.items()
        if rows and result.totals.get(worker, 0) > len(rows)
    }
    last = min((rows[-1][0] for rows in cut.values()), default=None)
    sizes: Counter[str] = Counter()
    for rows in result.rows.values():
        for name, size in rows:
            if last is None or name <= last:
                sizes[name] += size
    result.total = max(len(sizes), *(result.totals[worker] for worker in cut), 0)
    return [list(row) for row in sizes.most_common(MAX_ROWS)]


def answer_packets(number: Any, rows: list[Any], result: Result) -> Iterator[Message]:
    """The messages to supervisord with these rows, in answer to its command of this number.

    An answer that cannot be sent becomes an error.
    """
    end: Message = {"type": "result", "id": number, "error": ""}
    try:
        for part in in_parts(rows):
            yield {"type": "rows", "id": number, "rows": part}
    except ChannelError as error:
        logger.error("an answer to supervisorctl cannot be sent: %s", error)
        yield {**end, "error": str(error)}
        return
    yield {**end, "total": result.total, "missing": result.missing}


class Queries:
    """The questions that are not answered yet.

    :param ask: sends a question to the workers; returns the names of those that received it, by
        tag, and the number of those that could not.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ask: Callable[[Message], tuple[Mapping[str, str], int]],
    ) -> None:
        self._loop = loop
        self._ask = ask
        self._numbers = itertools.count(1)
        self._open: dict[int, _Question] = {}

    def ask(self, question: Message, done: Callable[[Result], None]) -> None:
        """Ask every worker, or the one with the ``tag`` of the question.

        :param done: called with the result when all have answered, or after the timeout.
        """
        number = next(self._numbers)
        asked, missing = self._ask({**question, "type": "query", "id": number})
        result = Result(missing=missing)
        timer = self._loop.call_later(_TIMEOUT, self._give_up, number)
        self._open[number] = _Question(dict(asked), result, done, timer)
        self._settle(number)

    def release(self, tag: str, most: int, done: Callable[[int], None]) -> None:
        """Let a worker close the connections of so many clients at most.

        :param done: gets of how many it has, as far as it says so in time.
        """
        question = {"what": "release", "tag": tag, "limit": most}
        self.ask(question, lambda result: done(result.total))

    def answer(self, tag: str, message: Message) -> None:
        """Add a part of a worker's answer."""
        question = self._open.get(message.get("id", 0))
        rows, total = message.get("rows"), message.get("total", 0)
        if question is None or tag not in question.waiting or not isinstance(rows, list):
            return
        result, name = question.result, question.waiting[tag]
        result.rows.setdefault(name, []).extend(rows)
        if message.get("last"):
            if message.get("error"):
                logger.warning("worker %s: %s", name, str(message["error"])[:MAX_REASON])
                result.missing += 1
            elif isinstance(total, int):
                result.total += total
                result.totals[name] = total
            del question.waiting[tag]
            self._settle(message["id"])

    def lost(self, tag: str) -> None:
        """That worker will not answer any more."""
        for number, question in list(self._open.items()):
            if question.waiting.pop(tag, None) is not None:
                question.result.missing += 1
                self._settle(number)

    def _give_up(self, number: int) -> None:
        question = self._open[number]
        question.result.missing += len(question.waiting)
        question.waiting.clear()
        self._settle(number)

    def _settle(self, number: int) -> None:
        question = self._open[number]
        if not question.waiting:
            question.timer.cancel()
            del self._open[number]
            question.done(question.result)
