"""Coroutines that never suspend: what they await blocks instead.

What waits is written once, as ``async def``. On asyncio it suspends; on eventlet and in threads
the primitives that it awaits block, and :func:`run_blocking` runs it to its end.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Callable, Coroutine, Generic, TypeVar

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


def _blocking(function: Callable[..., Coroutine[Any, Any, Any]]) -> Any:
    """A method that does the same as a coroutine method, and blocks."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return run_blocking(function(*args, **kwargs))

    return call


if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec

    P = ParamSpec("P")

    class blocking(Generic[P, T]):
        def __init__(
            self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]
        ) -> None: ...

        def __get__(self, instance: Any, owner: Any = None) -> Callable[P, T]: ...

else:
    blocking = _blocking


async def settle(result: Any) -> Any:
    """The result of what may be a plain function or a coroutine function."""
    return await result if hasattr(result, "__await__") else result
