"""What a worker says of the events of its clients, with ``event_metrics``. Pure."""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple

from .channel import Message
from .figures import MOST
from .limits import EVENT_METRICS, EVENT_METRICS_TEXT

#: The type of the message.
KIND = "events"

#: Of all events that have no row of their own.
OTHERS = "(other)"


class EventRow(NamedTuple):
    """Of one event, since the start of the worker."""

    namespace: str
    event: str
    #: How often its handler was called.
    calls: int
    #: Sum of the time until it returned, also while it waited.
    microseconds: int
    #: How often it raised.
    failures: int


def message(rows: list[EventRow]) -> Message:
    return {"type": KIND, "rows": rows}


def read(message: Mapping[str, Any]) -> list[EventRow]:
    """:raises ValueError: when these are not the rows of a worker."""
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
