"""What has come to a process from other hosts, so that the bridge's successor can go on there.

Pure: no sockets and no clocks here. A message of another host says in its field
``via`` through which bridge it came, and its number there. The router process,
which the bridge of this host is in, may end at any time; what the workers have got
is what they have got.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Iterable, Mapping, Optional

from ..common.limits import BRIDGE_MOST_OTHERS

#: A message that does no more than tell a bridge's number.
NOTE = "via"


def read_via(fields: Mapping[str, Any]) -> Optional[tuple[str, int]]:
    """Through which bridge a message of another host came, and its number there.

    :raises ValueError: or another exception, when it does not say so in the right form.
    """
    via = fields.get("via")
    if via is None:
        return None
    bridge, number = via
    if not isinstance(bridge, str) or type(number) is not int:
        raise ValueError("via is not a bridge and a number")
    return bridge, number


def via_of(fields: Mapping[str, Any]) -> Optional[tuple[str, int]]:
    """The same; ``None`` when it does not say so in the right form."""
    try:
        return read_via(fields)
    except (ValueError, TypeError, LookupError):
        return None


class Passed:
    """:param numbers: as another process had them, by bridge."""

    def __init__(self, numbers: Iterable[tuple[str, int]] = ()) -> None:
        self._numbers: OrderedDict[str, int] = OrderedDict(numbers)

    def is_new(self, fields: Mapping[str, Any]) -> bool:
        """Note where a message comes from; false when it has come before.

        :raises ValueError: when it does not say so in the right form.
        """
        via = read_via(fields)
        if via is None:
            return True
        return self.note(*via) and bool(fields["method"] != NOTE)

    def note(self, bridge: str, number: int) -> bool:
        """The same of a message of which no more is known."""
        if number <= self._numbers.get(bridge, 0):
            return False
        self._numbers[bridge] = number
        self._numbers.move_to_end(bridge)
        if len(self._numbers) > BRIDGE_MOST_OTHERS:
            self._numbers.popitem(last=False)
        return True

    @property
    def numbers(self) -> dict[str, int]:
        """The last number that has come through each bridge."""
        return dict(self._numbers)

    def merge(self, other: Passed) -> None:
        """Both have had the same: one of them may have known it earlier."""
        for bridge, number in other._numbers.items():
            self._numbers[bridge] = max(number, self._numbers.get(bridge, 0))
