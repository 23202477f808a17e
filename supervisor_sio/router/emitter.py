"""``sio emit``: emit from the router with a write-only manager."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Callable, Optional

from ..common.channel import Message

if TYPE_CHECKING:
    from ..cluster.manager import ZmqManager


class Emitter:
    """Emits events one after the other, in a thread, because an emit may wait for the relay.

    :param url: URL of the relay for the client manager.
    """

    def __init__(self, url: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1)
        self._url = url
        self._manager: Optional[ZmqManager] = None

    def emit(self, command: Message, done: Callable[[str], None]) -> None:
        """:param done: called with the error, or ""."""

        def emitted(task: asyncio.Future[None]) -> None:
            error = task.exception()
            done(str(error) if error else "")

        self._loop.run_in_executor(self._thread, self._emit, command).add_done_callback(emitted)

    def _emit(self, command: Message) -> None:
        from ..cluster.manager import ZmqManager  # imports python-socketio, so only when needed

        if self._manager is None:
            self._manager = ZmqManager(self._url, write_only=True)
        self._manager.emit(
            command["event"],
            tuple(command["arguments"]),
            namespace=command["namespace"],
            room=command["room"] or None,
        )

    async def close(self) -> None:
        if self._manager is not None:
            await self._loop.run_in_executor(None, self._manager.close)
