"""Runs a coroutine as long as a condition holds, which is checked each time it continues."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Callable, Coroutine, Generator, Optional


async def run_apart(
    function: Callable[[], Coroutine[Any, Any, Any]], may_run: Callable[[], bool]
) -> None:
    """The coroutine of the task: runs ``function`` under the condition."""
    await _Guarded(function(), may_run)


def error_of(task: asyncio.Task[None]) -> Optional[BaseException]:
    """The exception that a finished task has raised, or ``None``."""
    return asyncio.CancelledError() if task.cancelled() else task.exception()


class Ended(BaseException):
    """Raised in a coroutine that may not continue.

    ``CancelledError`` is not enough: ``asyncio.wait_for()`` turns it into ``TimeoutError`` if the
    timeout has expired, or drops it if the awaited task is done, and the coroutine would continue.
    """


class _Guarded:
    """Awaits a coroutine, and raises :exc:`Ended` in it when ``may_run`` first returns false.

    If that is before the start, the coroutine does not run at all. Tasks that it has created are
    not affected.
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
