"""Sends a worker's figures to its router: when they change, and regularly as a heartbeat."""

from __future__ import annotations

import time
from typing import Any, Callable, Optional

from ..common import channel
from ..common.channel import Message
from .runtime import Runtime

#: Seconds for which changes are collected into one message.
_GATHER = 0.02

#: Most seconds between reports; the router shows a worker as hung after ``hung_timeout`` without.
_HEARTBEAT = 2.0


class Reporting:
    """:param figures: returns a message with the figures.
    :param sock: returns the channel to the router, or ``None`` if it takes no message now.
    :param failed: called with a reason and a text if ``figures`` raises.
    """

    def __init__(
        self,
        runtime: Runtime,
        figures: Callable[[], Message],
        sock: Callable[[], Optional[Any]],
        failed: Callable[[str, str], None],
    ) -> None:
        self._runtime = runtime
        self._figures = figures
        self._sock = sock
        self._failed = failed
        self._last: Message = {}
        self._last_sent = 0.0
        self._gathering = False

    def changed(self) -> None:
        """Note that the figures may have changed, and report them soon."""
        if not self._gathering and self._sock() is not None:
            self._gathering = True
            self._runtime.call_later(_GATHER, self._gathered)

    def _gathered(self) -> None:
        self._gathering = False
        self.report()

    def report_all(self) -> None:
        """Report all figures to a new router."""
        self._last = {}
        self.report()

    def report(self) -> None:
        """Report now if the figures have changed or a heartbeat is due.

        If the router is busy, the next call reports them.
        """
        sock = self._sock()
        if sock is None:
            return
        try:
            figures = self._figures()
        except Exception as error:  # raised by the application's manager; try again next time
            self._failed("figures", repr(error))
            return
        now = time.monotonic()
        if figures == self._last and now < self._last_sent + _HEARTBEAT:
            return
        try:
            channel.send(sock, figures)
            self._last, self._last_sent = figures, now
        except OSError:
            pass
