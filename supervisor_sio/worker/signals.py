"""The signals that end a worker."""

from __future__ import annotations

import logging
import signal
from typing import Any, Callable, Optional

from .runtime import Runtime

logger = logging.getLogger("supervisor_sio.worker")

#: Seconds between looks whether the application's handlers are done.
_LOOK = 0.01


class Signals:
    """Calls ``stop`` in the loop after SIGTERM, SIGINT or SIGHUP.

    The application's own handlers for SIGTERM and SIGINT are called as well, in a
    task, with no frame. A SIGHUP for which the application has a handler, or
    which nohup(1) ignores, is not watched.
    """

    def __init__(self, runtime: Runtime, stop: Callable[[], None]) -> None:
        self._runtime = runtime
        self._stop = stop
        #: The signal that came first.
        self.first: Optional[signal.Signals] = None
        #: How many handlers of the application are running.
        self._running = 0
        watched = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            watched.append(signal.SIGHUP)
        #: What was there before.
        self._previous = {number: signal.getsignal(number) for number in watched}
        runtime.on_signal(watched, self._take)

    async def wait(self) -> None:
        """Return when the application's handlers are done."""
        while self._running:
            await self._runtime.sleep(_LOOK)

    def release(self) -> None:
        """In a forked child: let signals do what they did before, and tell the parent nothing."""
        signal.set_wakeup_fd(-1)
        for number, handler in self._previous.items():
            if handler is not None:  # else it was not installed from Python
                signal.signal(number, handler)

    def _take(self, number: int) -> None:
        of = signal.Signals(number)
        handler = self._previous[of]
        if callable(handler) and handler is not signal.default_int_handler:
            self._running += 1
            self._runtime.spawn(self._call(handler, of))
        if self.first is None:
            self.first = of
        self._stop()

    async def _call(self, handler: Callable[..., Any], number: signal.Signals) -> None:
        try:
            handler(number, None)
        except SystemExit:
            pass  # the worker is about to end
        except Exception:
            logger.exception("the application's handler of %s", number.name)
        finally:
            self._running -= 1
