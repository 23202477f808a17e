"""Stands in for the router of :mod:`.run_once` if there is none: this process runs all tasks."""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import Any, Callable, Optional, Protocol

from ..common import run_once
from ..common.channel import Message
from ..common.limits import RUN_ONCE_PAUSE
from ..common.run_once import End, Word


class _Loop(Protocol):
    def call_later(self, seconds: float, task: Callable[..., Any], *args: Any) -> Any: ...


class NoRouter:
    """Answers the messages of :class:`.run_once.RunOnce` as a router would.

    :ivar answer: called with the router's answer.
    """

    generation = 1
    unanswered = True

    def __init__(self, loop: _Loop) -> None:
        self._loop = loop
        self.answer: Optional[Callable[[Message], None]] = None
        self._last = 0
        #: Consecutive failures, by name of the task.
        self._failures: Counter[str] = Counter()

    def say_now(self, message: Message) -> bool:
        return True

    def post(self, message: Message) -> None:
        name = run_once.read_name(message)
        if message["type"] == "task" and run_once.read_word(message) is Word.WANTS:
            self._loop.call_later(0, self._offer, name)
        elif message["type"] == "task-ends" and run_once.read_end(message) is End.FAILED:
            pause = min(2 ** self._failures[name], RUN_ONCE_PAUSE)
            self._failures[name] = min(self._failures[name] + 1, 10)
            self._loop.call_later(pause, self._offer, name)

    def _offer(self, name: str) -> None:
        self._last = max(int(time.time() * 1000), self._last + 1)
        if self.answer is not None:
            self.answer(run_once.offer(name, self._last, math.inf))
