"""Run coroutines without an event loop, when everything that they await blocks.

Code that waits is written once, as ``async def``. On asyncio it suspends. On eventlet and in
threads, the primitives that it awaits block, and :func:`run_blocking` runs it to its end.
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

    :raises RuntimeError: when the coroutine awaits something that needs an event loop.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    coroutine.close()
    name = getattr(coroutine, "__qualname__", "a coroutine")
    raise RuntimeError(f"{name} awaits something of asyncio, but no event loop runs here")


def blocking(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make a blocking function of a coroutine function."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> T:
        return run_blocking(function(*args, **kwargs))

    return call


def blocking_method(
    method: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[[Callable[..., None]], Callable[P, T]]:
    """Decorator: replace the decorated function by a blocking version of a coroutine method.

    The body of the decorated function is never called. A ``def`` is used instead of an assignment
    because pyright takes an assigned variable for the method of the base class.
    """
    return lambda _: blocking(method)


async def settle(result: Any) -> Any:
    """Return the result of a plain function or of a coroutine function."""
    return await result if hasattr(result, "__await__") else result
