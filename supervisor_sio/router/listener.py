"""Supervisor's event listener protocol, over standard input and output."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Callable

from .events import READY, RESULT_OK, Event, EventReader

logger = logging.getLogger("supervisor_sio.router")


class EventListener:
    """Receives and answers events, which :mod:`.events` parses.

    :param take: handles an event. A ``ValueError`` means that it does not come from supervisord.
    :param end: called when the other end is closed, or is not supervisord.
    """

    def __init__(self, take: Callable[[Event], None], end: Callable[[], None]) -> None:
        self._take = take
        self._end = end
        self._events = EventReader()

    def listen(self) -> None:
        # Standard output carries the protocol: redirect all other output to stderr.
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
            logger.error("supervisord is gone, so the router ends")
            self._leave()
            return
        try:
            for event in self._events.feed(data):
                self._take(event)
                self._answer(RESULT_OK + READY)
        except ValueError as error:
            logger.error("standard input does not come from supervisord: %s", error)
            self._leave()

    def _leave(self) -> None:
        # A closed descriptor would stay readable.
        asyncio.get_running_loop().remove_reader(0)
        self._end()

    def _answer(self, data: bytes) -> None:
        # supervisord waits for each of these few bytes, so the pipe has room.
        try:
            os.write(self._out, data)
        except OSError as error:
            logger.error("cannot answer supervisord: %s", error.strerror)
            self._end()
