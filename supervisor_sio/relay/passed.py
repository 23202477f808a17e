"""Which messages of other hosts a process has received, so that the bridge's successor can go on.

Pure: no sockets and no clocks here. A message of another host has the bridge that it came through,
and its number there, in its field ``via``. The router process, in which this host's bridge runs,
may end at any time; the workers' numbers then say what has been received.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Iterable, Mapping, Optional

from ..common.limits import BRIDGE_MOST_OTHERS

#: The method of a message that only carries a bridge's number.
NOTE = "via"


def read_via(fields: Mapping[str, Any]) -> Optional[tuple[str, int]]:
    """The bridge through which a message of another host came, and its number there.

    :raises ValueError: or another exception, when the field is malformed.
    """
    via = fields.get("via")
    if via is None:
        return None
    bridge, number = via
    if not isinstance(bridge, str) or type(number) is not int:
        raise ValueError("via is not a bridge and a number")
    return bridge, number


def via_of(fields: Mapping[str, Any]) -> Optional[tuple[str, int]]:
    """The same; ``None`` when the field is malformed."""
    try:
        return read_via(fields)
    except (ValueError, TypeError, LookupError):
        return None


class Passed:
    """The last number from each bridge.

    :param numbers: by bridge, from another process.
    """

    def __init__(self, numbers: Iterable[tuple[str, int]] = ()) -> None:
        self._numbers: OrderedDict[str, int] = OrderedDict(numbers)

    def is_new(self, fields: Mapping[str, Any]) -> bool:
        """Note where a message comes from. Return whether it is to be handled, and has not arrived
        before.

        :raises ValueError: when its field is malformed.
        """
        via = read_via(fields)
        if via is None:
            return True
        return self.note(*via) and bool(fields["method"] != NOTE)

    def note(self, bridge: str, number: int) -> bool:
        """Note a number. Return whether it has not arrived before."""
        if number <= self._numbers.get(bridge, 0):
            return False
        self._numbers[bridge] = number
        self._numbers.move_to_end(bridge)
        if len(self._numbers) > BRIDGE_MOST_OTHERS:
            self._numbers.popitem(last=False)
        return True

    @property
    def numbers(self) -> dict[str, int]:
        """The last number that arrived from each bridge."""
        return dict(self._numbers)

    def merge(self, other: Passed) -> None:
        """Take over the numbers of a listener that has received the same messages."""
        for bridge, number in other._numbers.items():
            self._numbers[bridge] = max(number, self._numbers.get(bridge, 0))
