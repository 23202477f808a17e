"""Sends the figures of event handlers to the router, if ``event_metrics`` is on."""

from __future__ import annotations

from typing import Optional, Protocol

from ..common import event_figures
from ..common.channel import Message
from .event_figures import EventFigures
from .runtime import Runtime, Watch

#: Seconds between reports; metrics are scraped less often.
_INTERVAL = 2.0


class Channel(Protocol):
    #: The number of the current router, counted from 1.
    generation: int

    def post(self, message: Message) -> None: ...


class EventReports:
    """The reports of one worker, to whichever router is connected."""

    def __init__(self, runtime: Runtime, channel: Channel) -> None:
        self._runtime = runtime
        self._channel = channel
        #: What was reported last, and the router's generation.
        self._told: object = None
        self._next: Optional[Watch] = None

    def turn(self, on: bool) -> None:
        """Start or stop reporting; call it in the loop. A new router gets all figures."""
        if on and self._runtime.events is None:
            self._runtime.events = EventFigures()
            self._next = self._runtime.call_later(_INTERVAL, self._report)
        elif not on and self._next is not None:
            self._runtime.events = None
            self._next.cancel()
            self._next = None

    def _report(self) -> None:
        figures = self._runtime.events
        if figures is None:
            return
        rows = figures.rows()
        if rows and (rows, self._channel.generation) != self._told:
            self._told = rows, self._channel.generation
            self._channel.post(event_figures.message(rows))
        self._next = self._runtime.call_later(_INTERVAL, self._report)
