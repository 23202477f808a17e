"""How the Socket.IO server takes a request from its application: the engine answers it then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional, Protocol

from ..engine.request import Request

if TYPE_CHECKING:
    from .connection import Connection

#: In the environment or the scope of a request: its :class:`Taker`.
EXCHANGE = "supervisor_sio.exchange"


class Takable(Protocol):
    """A request that the engine may answer in the application's place."""

    def take(self) -> tuple[Request, Connection]: ...


class Taker:
    """In the environment or the scope of a request, under :data:`EXCHANGE`.

    A copy of that may have this for much longer than the request lasts.
    """

    __slots__ = ("_request",)

    def __init__(self, request: Takable) -> None:
        self._request: Optional[Takable] = request

    def take(self) -> tuple[Request, Connection]:
        """The engine answers it: the application's answer does not count.

        :raises RuntimeError: when the request is over.
        """
        if self._request is None:
            raise RuntimeError("the request is over")
        return self._request.take()

    def release(self) -> None:
        """The request is over."""
        self._request = None
