"""Watch many descriptors at a fraction of the cost of the loop's own readers.

``loop.add_reader`` makes a handle and a selector key for each descriptor, and another handle for
each event. This class has its own epoll, which is itself readable as soon as one of its descriptors
is (epoll(7)); the loop watches only the epoll.
"""

from __future__ import annotations

import asyncio
import select
from typing import Callable

#: Descriptors handled before others get a turn.
_BATCH = 64


class Readable:
    """:param call: called with each descriptor that is readable, or whose other end has closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[int], None]) -> None:
        self._loop = loop
        self._call = call
        self._epoll = select.epoll()
        loop.add_reader(self._epoll, self._look)

    def add(self, descriptor: int) -> None:
        self._epoll.register(descriptor, select.EPOLLIN)

    def remove(self, descriptor: int) -> None:
        """To be called before the descriptor is closed: another process may have it open, and then
        the epoll would keep watching it."""
        self._epoll.unregister(descriptor)

    def close(self) -> None:
        self._loop.remove_reader(self._epoll)
        self._epoll.close()

    def _look(self) -> None:
        for descriptor, _ in self._epoll.poll(0, _BATCH):
            self._call(descriptor)
