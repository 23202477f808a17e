"""Coroutines that never suspend: what they await blocks instead.

What waits is written once, as ``async def``. On asyncio it suspends; on eventlet and in threads
the primitives that it awaits block, and :func:`run_blocking` runs it to its end.
"""

from __future__ import annotations

from typing import Any, Coroutine, TypeVar

T = TypeVar("T")


def run_blocking(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that does not suspend, and return what it returns.

    :raises RuntimeError: when it awaits something that needs an event loop.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    coroutine.close()
    name = getattr(coroutine, "__qualname__", "a coroutine")
    raise RuntimeError(f"{name} waits for something of asyncio: there is no loop")
