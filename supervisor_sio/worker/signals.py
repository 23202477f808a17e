"""The signals that end a worker."""

from __future__ import annotations

import logging
import signal
from typing import Any, Callable, Optional

from .runtime import Runtime

logger = logging.getLogger("supervisor_sio.worker")

#: Seconds between checks whether the application's handlers have returned.
_LOOK = 0.01


class Signals:
    """Calls ``stop`` in the loop after SIGTERM, SIGINT or SIGHUP.

    It also calls the application's own handlers for SIGTERM and SIGINT, in a task, with
    ``None`` as frame. SIGHUP is left alone if the application handles it, or nohup(1) ignores it.
    """

    def __init__(self, runtime: Runtime, stop: Callable[[], None]) -> None:
        self._runtime = runtime
        self._stop = stop
        #: The first signal received.
        self.first: Optional[signal.Signals] = None
        #: How many handlers of the application are running.
        self._running = 0
        watched = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            watched.append(signal.SIGHUP)
        #: The handlers that were installed before.
        self._previous = {number: signal.getsignal(number) for number in watched}
        runtime.on_signal(watched, self._take)

    async def wait(self) -> None:
        """Wait until the application's handlers have returned."""
        while self._running:
            await self._runtime.sleep(_LOOK)

    def release(self) -> None:
        """In a forked child: restore the previous handlers, without affecting the parent."""
        signal.set_wakeup_fd(-1)
        for number, handler in self._previous.items():
            if handler is not None:  # None: not installed from Python, cannot be restored
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
