"""Registers functions of the application that a manager calls; also as a decorator."""

from __future__ import annotations

from typing import Any, Callable, Optional, TypeVar

Key = TypeVar("Key")
Handler = Callable[..., Any]

#: Type checkers see a decorated function as it was.
AnyHandler = TypeVar("AnyHandler", bound=Handler)

#: Called with a sid and the environment of its handshake.
ClientHandler = TypeVar("ClientHandler", bound=Callable[[str, Any], Any])


def register(
    method: str, handlers: dict[Key, Handler], key: Key, handler: Optional[Handler]
) -> Any:
    """Register a handler, or return the decorator that does.

    :param method: the name of the manager's method, for the error.
    :raises TypeError: when the handler is not a function.
    """

    def put(handler: Handler) -> Handler:
        if not callable(handler):
            hint = f"; write namespace={handler!r:.80}" if isinstance(handler, str) else ""
            raise TypeError(f"{method}(): {handler!r:.80} is not a function{hint}")
        handlers[key] = handler
        return handler

    return put if handler is None else put(handler)
