"""Readers on uvloop, which does not call them for a reset that comes with data.

libuv stops to look at a descriptor on which it sees an error (``uv__poll_io`` in its
``src/unix/poll.c``), and uvloop calls the reader once more. That call reads the data, and nobody
reads the error behind it: the connection would be there until its deadline. So a reader that was
called is started anew a while later.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Callable, Optional

logger = logging.getLogger("supervisor_sio.worker")

#: Seconds until readers that were called are started anew: two calls of the kernel for each.
_PAUSE = 1.0


class UvReaders:
    """The readers of a loop of uvloop.

    :param add: ``loop.add_reader``.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, add: Callable[[int, Any], None]) -> None:
        self._loop = loop
        self._add = add
        self.remove = loop.remove_reader
        #: Those that were called since the last look.
        self._called: list[UvReader] = []

    def add(self, descriptor: int, call: Callable[..., None]) -> UvReader:
        """Call it whenever there is something to read."""
        reader = UvReader(self, descriptor, call)
        self._add(descriptor, reader)
        return reader

    def called(self, reader: UvReader) -> None:
        """Start it anew, soon."""
        if not self._called:
            self._loop.call_later(_PAUSE, self._start_anew)
        self._called.append(reader)

    def _start_anew(self) -> None:
        called, self._called = self._called, []
        for reader in called:
            descriptor = reader.looked_after()
            if descriptor is not None:
                try:
                    self.remove(descriptor)
                    self._add(descriptor, reader)
                except OSError:
                    logger.exception("a descriptor is not looked at any more")


class UvReader:
    """One of them: what the loop calls, and a :class:`...runtime.Watch`."""

    __slots__ = ("_readers", "_descriptor", "_call", "_was_called")

    def __init__(self, readers: UvReaders, descriptor: int, call: Callable[..., None]) -> None:
        self._readers = readers
        self._descriptor: Optional[int] = descriptor
        self._call: Optional[Callable[..., None]] = call
        self._was_called = False

    def __call__(self) -> None:
        if not self._was_called:
            self._was_called = True
            self._readers.called(self)
        if self._call is not None:
            self._call()

    def looked_after(self) -> Optional[int]:
        """Its descriptor; ``None`` when it was cancelled meanwhile."""
        self._was_called = False
        return self._descriptor

    def cancel(self) -> None:
        descriptor, self._descriptor, self._call = self._descriptor, None, None
        if descriptor is not None:
            self._readers.remove(descriptor)
