"""Coroutines that never suspend: what they await blocks instead.

What waits is written once, as ``async def``. On asyncio it suspends; on eventlet and in threads
the primitives that it awaits block, and :func:`run_blocking` runs it to its end.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Callable, Coroutine, TypeVar

if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    P = ParamSpec("P")

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


def blocking(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """A function that does the same as a coroutine function, and blocks."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> T:
        return run_blocking(function(*args, **kwargs))

    return call


def blocking_method(
    method: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[[Callable[..., None]], Callable[P, T]]:
    """A decorator: what it decorates does the same as a coroutine method, and blocks.

    The body of the decorated function is never called. It is a function for pyright's sake, which
    takes a variable in the place of a method of a base class for that method.
    """
    return lambda _: blocking(method)


async def settle(result: Any) -> Any:
    """The result of what may be a plain function or a coroutine function."""
    return await result if hasattr(result, "__await__") else result
