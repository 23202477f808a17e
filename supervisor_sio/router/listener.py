"""Supervisor's event listener protocol, over standard input and output."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Callable

from .events import READY, RESULT_OK, Event, EventReader

logger = logging.getLogger("supervisor_sio.router")


class EventListener:
    """Answers each event that comes; :mod:`.events` reads them.

    :param take: does what an event says. A ``ValueError`` means that it is not supervisord's.
    :param end: called when nobody, or not supervisord, is at the other end.
    """

    def __init__(self, take: Callable[[Event], None], end: Callable[[], None]) -> None:
        self._take = take
        self._end = end
        self._events = EventReader()

    def listen(self) -> None:
        # Standard output is the protocol: let nobody else write there.
        self._out = os.dup(1)
        os.dup2(2, 1)
        os.set_blocking(0, False)
        asyncio.get_running_loop().add_reader(0, self._read)
        self._answer(READY)

    def _read(self) -> None:
        try:
            data = os.read(0, 65536)
        except BlockingIOError:
            return
        if not data:
            logger.error("supervisord is gone, the router leaves too")
            self._leave()
            return
        try:
            for event in self._events.feed(data):
                self._take(event)
                self._answer(RESULT_OK + READY)
        except ValueError as error:
            logger.error("standard input is not supervisord's: %s", error)
            self._leave()

    def _leave(self) -> None:
        # What has ended is always ready to be read.
        asyncio.get_running_loop().remove_reader(0)
        self._end()

    def _answer(self, data: bytes) -> None:
        # A few bytes for each event supervisord waits for: the pipe has room.
        try:
            os.write(self._out, data)
        except OSError as error:
            logger.error("cannot answer supervisord: %s", error.strerror)
            self._end()
