"""How the Socket.IO server takes a request over from the application, to let the engine answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional, Protocol

from ..engine.request import Request

if TYPE_CHECKING:
    from .connection import Connection

#: The key of the :class:`Taker` in a request's environment or scope.
EXCHANGE = "supervisor_sio.exchange"


class Takable(Protocol):
    """A request that the engine may answer instead of the application."""

    def take(self) -> tuple[Request, Connection]: ...


class Taker:
    """The object under :data:`EXCHANGE` in the environment or scope of a request.

    A copy of the environment may refer to it for much longer than the request lasts.
    """

    __slots__ = ("_request",)

    def __init__(self, request: Takable) -> None:
        self._request: Optional[Takable] = request

    def take(self) -> tuple[Request, Connection]:
        """Take the request for the engine; the application's own response is ignored.

        :raises RuntimeError: if the request has ended.
        """
        if self._request is None:
            raise RuntimeError("the request has ended")
        return self._request.take()

    def release(self) -> None:
        """The request is over."""
        self._request = None
