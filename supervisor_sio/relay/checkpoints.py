"""Which messages outlive the process that has received them for others. Pure.

Who ends asks whether all have its messages, and is not there afterwards to send them again. So
where sessions are held, this is confirmed when what they have is kept elsewhere, too. Senders that
live need not wait: what is lost is fetched from them. Who has no answer asks again.
"""

from __future__ import annotations

from typing import Any, Callable, Mapping, Optional

from ..common.limits import RELAY_MOST_SENDERS

#: By sender, and by the tag for which it asks: how many messages to all it has sent, and to that
#: tag alone.
_Numbers = dict[str, dict[str, tuple[int, int]]]


class Checkpoints:
    """:param begin: keeps all that is there now; :meth:`end` is called then."""

    def __init__(self, begin: Callable[[], None]) -> None:
        self._begin = begin
        self._safe: _Numbers = {}
        self._asked: _Numbers = {}
        #: What the one that is under way keeps.
        self._coming: Optional[_Numbers] = None

    def may_confirm(self, sender: str, confirmed: Mapping[str, Any]) -> bool:
        """Whether the messages that were received are safe up to the numbers asked for.

        :param confirmed: as :meth:`.listener.Listener.confirms` has it.
        """
        if self._are_safe(sender, confirmed):
            return True
        asked = self._asked.setdefault(sender, {})
        asked.update((tag, (confirmed["all"], own)) for tag, own in confirmed["own"].items())
        if self._coming is None:
            self._coming, self._asked = self._asked, {}
            self._begin()
        return self._are_safe(sender, confirmed)  # they may be kept at once

    def _are_safe(self, sender: str, confirmed: Mapping[str, Any]) -> bool:
        safe = self._safe.get(sender, {})
        for tag, own in confirmed["own"].items():
            numbers = safe.get(tag)
            if numbers is None or confirmed["all"] > numbers[0] or own > numbers[1]:
                return False
        return True

    def end(self) -> None:
        """What was there at the beginning is kept; called in any thread."""
        coming = self._coming
        if coming is not None:
            if sum(map(len, (*self._safe.values(), *coming.values()))) > RELAY_MOST_SENDERS:
                self._safe = {}  # those who ask again are kept again
            for sender, numbers in coming.items():
                self._safe.setdefault(sender, {}).update(numbers)
            self._coming = None
