"""The message with a worker's figures for each event, with ``event_metrics``. Pure."""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple

from .channel import Message
from .figures import MOST
from .limits import EVENT_METRICS, EVENT_METRICS_TEXT

#: The type of the message.
KIND = "events"

#: Name of the row for all events without a row of their own.
OTHERS = "(other)"


class EventRow(NamedTuple):
    """Figures of one event since the worker's start."""

    namespace: str
    event: str
    #: Calls of its handler.
    calls: int
    #: Total time of these calls, including the time that they waited.
    microseconds: int
    #: Calls that raised.
    failures: int


def message(rows: list[EventRow]) -> Message:
    return {"type": KIND, "rows": rows}


def read(message: Mapping[str, Any]) -> list[EventRow]:
    """:raises ValueError: when the rows are malformed."""
    rows = message.get("rows")
    if not isinstance(rows, list) or len(rows) > EVENT_METRICS + 1:  # and that of the others
        raise ValueError("rows are not a list, or too many")
    found = [_read_row(row) for row in rows]
    if len({row[:2] for row in found}) != len(found):
        raise ValueError("row comes twice")
    return found


def _read_row(row: Any) -> EventRow:
    try:
        namespace, event, *counts = row
        if all(isinstance(t, str) and len(t) <= EVENT_METRICS_TEXT for t in (namespace, event)):
            if all(type(count) is int and 0 <= count <= MOST for count in counts):
                return EventRow(namespace, event, *counts)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"row is not of an event: {row!r:.80}")
