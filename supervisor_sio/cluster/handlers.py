"""Functions of an application that a manager calls: they are registered, or decorated."""

from __future__ import annotations

from typing import Any, Callable, Optional, TypeVar

Key = TypeVar("Key")
Handler = Callable[..., Any]

#: A decorated function is for type checkers what it was.
AnyHandler = TypeVar("AnyHandler", bound=Handler)

#: Called with a sid and the environment of its handshake.
ClientHandler = TypeVar("ClientHandler", bound=Callable[[str, Any], Any])


def register(
    method: str, handlers: dict[Key, Handler], key: Key, handler: Optional[Handler]
) -> Any:
    """Put a handler in its place, or return the decorator that does.

    :param method: of the manager, for the error.
    :raises TypeError: for what is not a function.
    """

    def put(handler: Handler) -> Handler:
        if not callable(handler):
            hint = f"; write namespace={handler!r:.80}" if isinstance(handler, str) else ""
            raise TypeError(f"{method}(): {handler!r:.80} is not a function{hint}")
        handlers[key] = handler
        return handler

    return put if handler is None else put(handler)
