"""Questions of ``supervisorctl sio`` to the workers, and their answers gathered."""

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

#: Seconds that the workers have to answer; supervisord waits a little longer.
_TIMEOUT = 3.0


@dataclass
class Result:
    """What the workers have answered."""

    #: By the worker's name.
    rows: dict[str, list[Any]] = field(default_factory=dict)
    #: How many rows there would be without a limit.
    total: int = 0
    #: Workers that did not answer.
    missing: int = 0
    #: How many rows each worker has, by its name.
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
    """The rooms of all workers, the largest first, and how many clients each has.

    Each worker sends its rooms in the order of their names, so those up to the first
    name at which one had to stop are known of all workers: only these are counted.
    Sets ``result.total`` to how many there are, or, in such a case, are at least.
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
        logger.error("the answer to a question of supervisorctl: %s", error)
        yield {**end, "error": str(error)}
        return
    yield {**end, "total": result.total, "missing": result.missing}


class Queries:
    """Those that are not answered yet.

    :param ask: sends a question to the workers; the names of those that took it,
        by tag, and how many did not.
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

        :param done: gets the result, when all have answered or the time is up.
        """
        number = next(self._numbers)
        asked, missing = self._ask({**question, "type": "query", "id": number})
        result = Result(missing=missing)
        timer = self._loop.call_later(_TIMEOUT, self._give_up, number)
        self._open[number] = _Question(dict(asked), result, done, timer)
        self._settle(number)

    def answer(self, tag: str, message: Message) -> None:
        """A part of a worker's answer."""
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
