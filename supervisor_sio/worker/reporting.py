"""A worker's figures, as its router gets them: when they change, and as a sign of life."""

from __future__ import annotations

import time
from typing import Any, Callable, Optional

from ..common import channel
from ..common.channel import Message
from .runtime import Runtime

#: Seconds over which changes of the figures are gathered into one message.
_GATHER = 0.02

#: Seconds between reports at most: a worker that is silent for longer hangs.
_HEARTBEAT = 2.0


class Reporting:
    """:param figures: makes a message of them.
    :param sock: the channel to the router, if that takes a message now.
    :param failed: gets a reason and a text when there are no figures.
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
        """The figures may have changed: tell the router soon."""
        if not self._gathering and self._sock() is not None:
            self._gathering = True
            self._runtime.call_later(_GATHER, self._gathered)

    def _gathered(self) -> None:
        self._gathering = False
        self.report()

    def report_all(self) -> None:
        """To a router that knows none of them."""
        self._last = {}
        self.report()

    def report(self) -> None:
        """Now, if there is something to say; a busy router gets them later."""
        sock = self._sock()
        if sock is None:
            return
        try:
            figures = self._figures()
        except Exception as error:  # of the application's manager; the next look may do
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
