"""The list of workers on the relay, as messages that the router sends to each worker. Pure.

Each version is encoded once for all workers. A worker that has the previous version receives the
difference, any other worker the whole list.
"""

from __future__ import annotations

from typing import Any, Iterable, Optional

from ..common import channel

#: A worker: its tag, whether it is on another host, the channels in which it receives, and whether
#: the tag is an alias: its worker has ended, and another worker, or the router, has its sessions
#: and receives under this tag; none sends under it.
Row = list[Any]


class Membership:
    def __init__(self) -> None:
        #: The number of the version; 0 before the first one.
        self.version = 0
        self._rows: dict[str, Row] = {}
        self._difference: list[bytes] = []
        self._whole: Optional[list[bytes]] = None

    def set(self, rows: Iterable[Row]) -> None:
        """Set the rows; of two rows with the same tag, the last one counts."""
        new = {row[0]: row for row in rows}
        changed = [row for tag, row in new.items() if self._rows.get(tag) != row]
        gone = [tag for tag in self._rows if tag not in new]
        if self.version and not changed and not gone:
            return
        self.version += 1
        self._rows = new
        self._difference = _encode(changed, gone, whole=False)
        self._whole = None

    def since(self, version: int) -> list[bytes]:
        """The messages for a worker that has this version; 0 for none."""
        if version and version == self.version - 1:
            return self._difference
        if self._whole is None:
            self._whole = _encode(list(self._rows.values()), [], whole=True)
        return self._whole


def _encode(rows: list[Row], gone: list[str], whole: bool) -> list[bytes]:
    """Encode the messages; with ``whole``, the first tells the receiver to drop the old list."""
    parts: list[tuple[list[Any], list[Any]]] = []
    if gone:
        parts += [([], part) for part in channel.in_parts(gone)]
    if rows or not parts:
        parts += [(part, []) for part in channel.in_parts(rows)]
    return [
        channel.encode(
            {
                "type": "members",
                "first": whole and number == 0,
                "members": members,
                "gone": lost,
                "last": number == len(parts) - 1,
            }
        )
        for number, (members, lost) in enumerate(parts)
    ]
