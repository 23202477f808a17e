"""Counts, for each event, the calls of its handler, their total time, and the failures.

Used only if ``event_metrics`` of ``[rpcinterface:sio]`` is on. Because clients choose the names of
events, only events with their own handler get a row, up to a limit; all others share one row.
"""

from __future__ import annotations

import json
import time
from types import TracebackType
from typing import Any, Callable, Optional, Union

from ..common.event_figures import OTHERS, EventRow
from ..common.limits import EVENT_METRICS, EVENT_METRICS_TEXT
from ..relay import native


class _Row:
    __slots__ = ("namespace", "event", "count", "seconds", "failures")

    def __init__(self, namespace: str, event: str) -> None:
        self.namespace, self.event = namespace, event
        self.count = self.failures = 0
        self.seconds = 0.0


class EventFigures:
    """The figures of one worker; thread-safe, since handlers may run in threads."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = native.lock()
        self._others = _Row(OTHERS, OTHERS)
        self._rows: dict[tuple[str, Union[str, int]], _Row] = {}

    def rows(self) -> list[EventRow]:
        with self._lock:
            rows = [*self._rows.values(), self._others]
            return [
                EventRow(row.namespace, row.event, row.count, int(row.seconds * 1e6), row.failures)
                for row in rows
                if row.count
            ]

    def counting(self, server: Any, namespace: str, event: Union[str, int]) -> Counting:
        """A context manager for a call of a handler.

        :param server: the application's ``socketio.Server`` or ``AsyncServer``.
        """
        row = self._rows.get((namespace, event))
        if row is None:
            place = _place_of_handler(server, namespace, event)
            row = self._others if place is None else self._row(place, event)
        return Counting(row, self._lock, self._now)

    def _row(self, namespace: str, event: Union[str, int]) -> _Row:
        with self._lock:
            row = self._rows.get((namespace, event))
            if row is not None:
                return row
            text = str(event)
            longest = max(map(len, map(json.dumps, (namespace, text))))
            if len(self._rows) >= EVENT_METRICS or longest > EVENT_METRICS_TEXT:
                return self._others
            row = self._rows[namespace, event] = _Row(namespace, text)
            return row


class Counting:
    """One call of a handler."""

    __slots__ = ("_row", "_lock", "_now", "_began")

    def __init__(self, row: _Row, lock: Any, now: Callable[[], float]) -> None:
        self._row, self._lock, self._now = row, lock, now
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = self._now()

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        seconds = self._now() - self._began
        with self._lock:
            self._row.count += 1
            self._row.seconds += seconds
            self._row.failures += isinstance(error, Exception)


def _place_of_handler(server: Any, namespace: str, event: Union[str, int]) -> Optional[str]:
    """The namespace, or ``*``, for which the application has registered a handler of this event;
    ``None`` if it has not. Clients choose the namespace, too.
    """
    for place in (namespace, "*"):
        if event in server.handlers.get(place, ()):
            return place
        methods = server.namespace_handlers.get(place)
        if isinstance(event, str) and hasattr(methods, f"on_{event}"):
            return place
    return None
