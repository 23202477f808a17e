"""Passes an Engine.IO handshake to the ASGI application.

Nearly always the Socket.IO server takes it, and the engine answers without uvicorn. If the
application answers itself (a middleware refuses the handshake, or another route has the path),
uvicorn writes the response, from the first message on.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Optional

from ...engine.http import Head
from ...engine.request import Request
from ..asgi_environ import make_environ
from ..taker import EXCHANGE, Taker
from .scope import is_about_client, make_scope, release

if TYPE_CHECKING:
    from ..connection import Connection
    from .asgi import Application

logger = logging.getLogger("supervisor_sio.worker")

_NO_BODY = {"type": "http.request", "body": b"", "more_body": False}
_GONE: dict[str, dict[str, Any]] = {
    "http": {"type": "http.disconnect"},
    "websocket": {"type": "websocket.disconnect", "code": 1006},
}


class Handshake:
    """The call of the application for one request without a body."""

    __slots__ = (
        "_application",
        "_connection",
        "_head",
        "_scope",
        "_taker",
        "_taken",
        "_received",
        "_bridge",
    )

    def __init__(self, application: Application, connection: Connection, head: Head) -> None:
        self._application = application
        self._connection = connection
        self._head = head
        self._taker = Taker(self)
        self._scope = make_scope(connection, head, application.state)
        self._scope[EXCHANGE] = self._taker
        self._taken = self._received = False
        self._bridge: Optional[_Bridge] = None

    async def run(self) -> None:
        """Call the application."""
        scope = self._scope
        bridge: Optional[_Bridge] = None
        try:
            await self._application.app(scope, self._receive, self._send)
        except BaseException as error:  # like uvicorn: the client gets a response in any case
            if self._taken and self._connection.is_answered:
                logger.exception("a request to the application failed")
            else:
                self._taken = False
                bridge = self._bridge or self._begin_bridge()
                bridge.end(error)
        else:
            if not self._taken:
                bridge = self._bridge or self._begin_bridge()
                bridge.end(None)
        finally:
            self._taker.release()
            release(scope)
        if self._taken:
            self._connection.leave_to_engine(False)

    def take(self) -> tuple[Request, Connection]:
        """:meth:`.Taker.take`"""
        if self._bridge is not None:
            raise RuntimeError("the request has ended")
        self._taken = True
        connection = self._connection
        environ = partial(make_environ, self._scope)
        return Request(self._head, connection.scheme, connection.address, environ), connection

    async def _receive(self) -> Any:
        kind = self._scope["type"]
        if not self._received:
            self._received = True
            return {"type": "websocket.connect"} if kind == "websocket" else _NO_BODY
        if self._taken:
            return _GONE[kind].copy()
        bridge = self._bridge or self._begin_bridge()
        return await bridge.receive()

    async def _send(self, message: Any) -> None:
        if not self._taken:
            bridge = self._bridge or self._begin_bridge()
            await bridge.send(message)

    def _begin_bridge(self) -> _Bridge:
        bridge = self._bridge = _Bridge(self._scope["type"], self._received)
        application = self._application
        application.pass_on(self._connection, self._head, bridge.run, bridge.close)
        return bridge


class _Bridge:
    """Connects an application that is already running with uvicorn's ``receive`` and ``send``.

    :param kind: the type of the scope.
    :param received: whether the application has received the first message.
    """

    def __init__(self, kind: str, received: bool) -> None:
        self._kind = kind
        self._received = received
        loop = asyncio.get_running_loop()
        #: uvicorn's ``receive`` and ``send``; ``None`` if it has closed the connection.
        self._calls: asyncio.Future[Any] = loop.create_future()
        self._ended: asyncio.Future[None] = loop.create_future()

    async def run(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI callable that uvicorn calls."""
        if self._received:
            await receive()
        if not self._calls.done():
            self._calls.set_result((receive, send))
        await self._ended

    async def receive(self) -> Any:
        calls = await asyncio.shield(self._calls)  # the application may cancel a receive()
        return _GONE[self._kind].copy() if calls is None else await calls[0]()

    async def send(self, message: Any) -> None:
        calls = await asyncio.shield(self._calls)
        if calls is None:
            # Otherwise an application that sends in a loop would block the event loop.
            raise ConnectionResetError("the client is gone")
        await calls[1](message)

    def close(self) -> None:
        """The application no longer has the connection."""
        if not self._calls.done():
            self._calls.set_result(None)

    def end(self, error: Optional[BaseException]) -> None:
        """The application has returned, or raised an exception."""
        if self._ended.done():
            return
        if error is None:
            self._ended.set_result(None)
        elif self._calls.done() and self._calls.result() is None:
            # uvicorn has refused the request, or the client has gone: uvicorn does not wait for us.
            self._ended.set_result(None)
            if not is_about_client(error):
                logger.error("a request to the application failed", exc_info=error)
        else:
            self._ended.set_exception(error)
