"""Questions of ``supervisorctl sio`` to the workers, and their answers gathered."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping

from ..channel import Message, in_parts

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


@dataclass
class _Question:
    waiting: dict[str, str]
    result: Result
    done: Callable[[Result], None]
    timer: asyncio.TimerHandle


def answer_packets(number: Any, rows: list[Any], result: Result) -> list[Message]:
    """The messages to supervisord with these rows, in answer to its command of this number."""
    messages: list[Message] = [
        {"type": "rows", "id": number, "rows": part} for part in in_parts(rows)
    ]
    end = {"type": "result", "id": number, "error": ""}
    return [*messages, {**end, "total": result.total, "missing": result.missing}]


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
        question.result.rows.setdefault(question.waiting[tag], []).extend(rows)
        if message.get("last"):
            question.result.total += total if isinstance(total, int) else 0
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
