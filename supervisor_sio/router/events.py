"""Parse Supervisor's event listener protocol: bytes in, events out.

Supervisor sends a header line of ``key:value`` pairs and a payload, and expects ``READY\\n`` before
and ``RESULT 2\\nOK`` after each event
(http://supervisord.org/events.html#event-listener-notification-protocol). ``len`` in the header
counts the characters of the payload, which is sent in UTF-8. Supervisor's own
``childutils.listener`` blocks, and fails if the ``identifier`` of ``[supervisord]``, which the
header contains unescaped, has a space or a colon.
"""

from __future__ import annotations

import codecs
import re
from typing import Iterator, NamedTuple

READY = b"READY\n"
RESULT_OK = b"RESULT 2\nOK"

#: The end of a header. The part before it may contain anything, see above.
_HEADER_END = re.compile(r" eventname:(\S+) len:([0-9]{1,9})$")


class Event(NamedTuple):
    name: str
    #: The pairs of the payload's first line, such as ``processname`` and ``pid``.
    values: dict[str, str]

    @property
    def process(self) -> str:
        """The process of a ``PROCESS_STATE`` event, as supervisorctl names it."""
        name, group = self.values.get("processname", ""), self.values.get("groupname", "")
        return name if name == group else f"{group}:{name}"


class EventReader:
    """Collects bytes from standard input until events are complete."""

    def __init__(self) -> None:
        self._buffer = ""
        # Bytes that are not UTF-8 do not come from supervisord; the header's check reports them.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> Iterator[Event]:
        """:raises ValueError: when the bytes break the protocol."""
        self._buffer += self._decoder.decode(data)
        while True:
            line, newline, rest = self._buffer.partition("\n")
            if not newline:
                return
            header = _HEADER_END.search(line)
            if header is None:
                raise ValueError(f"not an event header: {line[:80]!r}")
            name, length = header[1], int(header[2])
            if len(rest) < length:
                return
            payload, self._buffer = rest[:length], rest[length:]
            pairs = (pair.partition(":") for pair in payload.partition("\n")[0].split(" "))
            yield Event(name, {key: value for key, colon, value in pairs if colon})
