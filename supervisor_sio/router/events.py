"""Supervisor's event listener protocol, as bytes in and events out.

Supervisor sends a header line of ``key:value`` pairs and ``len`` bytes of
payload, and wants ``READY\\n`` before and ``RESULT 2\\nOK`` after each event
(http://supervisord.org/events.html#event-listener-notification-protocol).
Supervisor's own ``childutils.listener`` blocks, and counts ``len`` in
characters where supervisord counts bytes.
"""

from __future__ import annotations

from typing import Iterator, NamedTuple

from supervisor import childutils

READY = b"READY\n"
RESULT_OK = b"RESULT 2\nOK"


class Event(NamedTuple):
    name: str
    #: The pairs of the payload's first line, such as ``processname`` and ``pid``.
    values: dict[str, str]


class EventReader:
    """Collects what arrives on standard input until events are whole."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> Iterator[Event]:
        """:raises ValueError: when the bytes are not of this protocol."""
        self._buffer += data
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if not newline:
                return
            try:
                header = childutils.get_headers(line.decode())
                length, name = int(header["len"]), str(header["eventname"])
            except (KeyError, ValueError):
                raise ValueError(f"not an event header: {line[:80]!r}") from None
            if len(rest) < length:
                return
            payload, self._buffer = rest[:length], rest[length:]
            first = payload.partition(b"\n")[0].decode(errors="replace")
            pairs = (pair.partition(":") for pair in first.split())
            yield Event(name, {key: value for key, colon, value in pairs if colon})
