"""A network between clients and a cluster, which can fail."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

from .harness import free_port


class Network:
    """Passes connections to its own port on to another one, until it is told otherwise.

    :ivar url: where clients connect to.
    """

    def __init__(self, to: int) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._to = to
        self._up = True
        self._silent = False
        self._clients: set[asyncio.StreamWriter] = set()
        self._servers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._listener = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", self.port), self._loop
        ).result()

    def cut(self) -> None:
        """End all connections, for both sides."""
        self._do(self._end, self._clients | self._servers)

    def fail(self) -> None:
        """The same, and let no others come until :meth:`heal`."""

        def fail() -> None:
            self._up = False
            self._end(self._clients | self._servers)

        self._do(fail)

    def lose_clients(self) -> None:
        """As :meth:`fail`, but the server hears nothing more, not even that they have gone."""

        def lose() -> None:
            self._up, self._silent = False, True
            self._end(set(self._clients))

        self._do(lose)

    def heal(self) -> None:
        def heal() -> None:
            self._up, self._silent = True, False

        self._do(heal)

    def close(self) -> None:
        async def close() -> None:
            self._listener.close()
            self._end(self._clients | self._servers)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _do(self, action: Callable[..., None], *args: Any) -> None:
        async def do() -> None:
            action(*args)

        asyncio.run_coroutine_threadsafe(do(), self._loop).result(10)

    def _end(self, writers: set[asyncio.StreamWriter]) -> None:
        for writer in writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if not self._up:
            client.transport.abort()
            return
        self._clients.add(client)
        try:
            answers, server = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            client.transport.abort()
            self._clients.discard(client)
            return
        self._servers.add(server)
        back = asyncio.create_task(self._pass_on(answers, client))
        await self._pass_on(reader, server)
        self._clients.discard(client)
        if self._silent:
            await back  # until the server has had enough
        else:
            server.transport.abort()
        self._servers.discard(server)
        await back

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if not writer.transport.is_closing():
                    writer.write(data)
                    await writer.drain()
        # Also after a reset: a server that has not read all resets, and a client that waits for the
        # end of the connection would wait until it misses a ping.
        if not self._silent:
            writer.close()
