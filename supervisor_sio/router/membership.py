"""Which workers hear the relay, as the messages that tell each worker of it.

Pure. A version is encoded once for all workers: who knows the one before gets the
difference, everybody else the whole.
"""

from __future__ import annotations

from typing import Any, Iterable, Optional

from ..common import channel

#: A worker: its tag, whether it is on another host, the channels that it hears, and whether
#: the tag is an alias: another worker, or the router, has the sessions of one that has ended.
#: Somebody hears under it, and nobody sends.
Row = list[Any]


class Membership:
    def __init__(self) -> None:
        #: Counts the changes; 0 before there is anything to tell.
        self.version = 0
        self._rows: dict[str, Row] = {}
        self._difference: list[bytes] = []
        self._whole: Optional[list[bytes]] = None

    def set(self, rows: Iterable[Row]) -> None:
        """Of two rows with one tag the last counts."""
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
        """The messages for who was told that version; 0 for who was told none."""
        if version and version == self.version - 1:
            return self._difference
        if self._whole is None:
            self._whole = _encode(list(self._rows.values()), [], whole=True)
        return self._whole


def _encode(rows: list[Row], gone: list[str], whole: bool) -> list[bytes]:
    """Messages of which the first forgets what was told before, if they tell the whole."""
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
