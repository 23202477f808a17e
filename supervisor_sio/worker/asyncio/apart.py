"""A coroutine that runs as long as it may: it is asked each time that it goes on."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Callable, Coroutine, Generator, Optional


async def run_apart(
    function: Callable[[], Coroutine[Any, Any, Any]], may_run: Callable[[], bool]
) -> None:
    """What the task runs."""
    await _Guarded(function(), may_run)


def error_of(task: asyncio.Task[None]) -> Optional[BaseException]:
    """What it has raised, when it is done."""
    return asyncio.CancelledError() if task.cancelled() else task.exception()


class Ended(BaseException):
    """A coroutine may not go on. ``CancelledError`` would not do: ``asyncio.wait_for()`` makes a
    ``TimeoutError`` of it when the time is over as well, or drops it when the other task is done,
    and the coroutine would go on.
    """


class _Guarded:
    """Awaits a coroutine. The first time that it may not go on, it gets :exc:`Ended` instead of
    what it has waited for; nothing of it runs when it may not even begin. Tasks that it has made
    by itself are not asked.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], may_run: Callable[[], bool]) -> None:
        self._coroutine = coroutine
        self._may_run = may_run

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._coroutine.__await__()
        was_ended = False
        step: Callable[[], Any] = partial(steps.send, None)
        while True:
            if not was_ended and not self._may_run():
                was_ended, step = True, partial(steps.throw, Ended())
            try:
                awaited = step()
            except StopIteration as stop:
                return stop.value
            try:
                step = partial(steps.send, (yield awaited))
            except BaseException as error:
                step = partial(steps.throw, error)
