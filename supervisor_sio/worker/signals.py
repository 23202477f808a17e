"""The signals that end a worker."""

from __future__ import annotations

import logging
import os
import signal
from typing import Any, Callable, Optional

import eventlet
from eventlet import hubs

logger = logging.getLogger("supervisor_sio.worker")


class Signals:
    """Calls ``stop`` in the hub after SIGTERM, SIGINT or SIGHUP.

    A Python signal handler alone would not end the hub's wait (PEP 475).

    The application's own handlers for SIGTERM and SIGINT are called as well, in a
    greenlet, with no frame. A SIGHUP for which the application has a handler, or
    which nohup(1) ignores, is not watched.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        #: The signal that came first.
        self.first: Optional[signal.Signals] = None
        self._handlers = eventlet.GreenPool()
        self._reader, self._writer = os.pipe()
        for descriptor in (self._reader, self._writer):
            os.set_blocking(descriptor, False)
            hubs.notify_opened(descriptor)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        watched = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            watched.append(signal.SIGHUP)
        #: What was there before.
        self._previous = {number: signal.signal(number, _ignore) for number in watched}
        eventlet.spawn_n(self._watch)

    def wait(self) -> None:
        """Return when the application's handlers are done."""
        self._handlers.waitall()

    def release(self) -> None:
        """In a forked child: let signals do what they did before, and tell the parent nothing."""
        signal.set_wakeup_fd(-1)
        for number, handler in self._previous.items():
            if handler is not None:  # else it was not installed from Python
                signal.signal(number, handler)
        os.close(self._reader)
        os.close(self._writer)

    def _watch(self) -> None:
        while True:
            hubs.trampoline(self._reader, read=True)
            for number in os.read(self._reader, 512):
                if number in self._previous:
                    self._take(signal.Signals(number))

    def _take(self, number: signal.Signals) -> None:
        handler = self._previous[number]
        if callable(handler) and handler is not signal.default_int_handler:
            self._handlers.spawn_n(_call, handler, number)
        if self.first is None:
            self.first = number
        self._stop()


def _ignore(*_: Any) -> None:
    """That a handler is there is enough: what is written to the pipe is read in the hub."""


def _call(handler: Callable[..., Any], number: signal.Signals) -> None:
    try:
        handler(number, None)
    except SystemExit:
        pass  # the worker is about to end
    except Exception:
        logger.exception("the application's handler of %s", number.name)
