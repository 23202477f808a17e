"""Readers on uvloop that also notice a reset that arrives together with data.

libuv stops watching a descriptor on which it sees an error (``uv__poll_io`` in its
``src/unix/poll.c``), and uvloop calls the reader a last time. That call reads the data, but not the
error behind it, so the connection would stay open until its deadline. Therefore a reader that was
called is removed and added again a while later.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Callable, Optional

logger = logging.getLogger("supervisor_sio.worker")

#: Seconds until a called reader is added again, which takes two system calls.
_PAUSE = 1.0


class UvReaders:
    """The readers of a uvloop loop.

    :param add: ``loop.add_reader``.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, add: Callable[[int, Any], None]) -> None:
        self._loop = loop
        self._add = add
        self.remove = loop.remove_reader
        #: The readers called since the last restart.
        self._called: list[UvReader] = []

    def add(self, descriptor: int, call: Callable[..., None]) -> UvReader:
        """Call ``call`` whenever the descriptor is readable."""
        reader = UvReader(self, descriptor, call)
        self._add(descriptor, reader)
        return reader

    def called(self, reader: UvReader) -> None:
        """Schedule a restart of the reader."""
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
                    logger.exception("cannot watch a descriptor any more")


class UvReader:
    """One reader: the callback of the loop, and a :class:`...runtime.Watch`."""

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
        """The descriptor to restart; ``None`` if the reader was cancelled."""
        self._was_called = False
        return self._descriptor

    def cancel(self) -> None:
        descriptor, self._descriptor, self._call = self._descriptor, None, None
        if descriptor is not None:
            self._readers.remove(descriptor)
