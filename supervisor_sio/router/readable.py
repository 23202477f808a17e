"""Waiting for many descriptors at a fraction of what the loop's own readers cost.

``loop.add_reader`` makes a handle and a key of the selector for each descriptor, and
another handle for each event. Here they are in an epoll of their own, which is readable
itself as soon as one of them is (epoll(7)): that is all the loop knows.
"""

from __future__ import annotations

import asyncio
import select
from typing import Callable

#: Descriptors taken care of before others get a turn.
_BATCH = 64


class Readable:
    """:param call: gets each descriptor that is readable, or whose other end has closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[int], None]) -> None:
        self._loop = loop
        self._call = call
        self._epoll = select.epoll()
        loop.add_reader(self._epoll, self._look)

    def add(self, descriptor: int) -> None:
        self._epoll.register(descriptor, select.EPOLLIN)

    def remove(self, descriptor: int) -> None:
        """Before it is closed: elsewhere the connection may be open still."""
        self._epoll.unregister(descriptor)

    def close(self) -> None:
        self._loop.remove_reader(self._epoll)
        self._epoll.close()

    def _look(self) -> None:
        for descriptor, _ in self._epoll.poll(0, _BATCH):
            self._call(descriptor)
