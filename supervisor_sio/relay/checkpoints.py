"""Which received messages outlive the process that keeps them for others. Pure.

A sender that ends asks whether all processes have its messages, as it cannot send them again later.
So a process that holds sessions confirms only when it has also stored the messages elsewhere.
Senders that live need no confirmation: what is lost is fetched from them. A sender without an
answer asks again.
"""

from __future__ import annotations

from typing import Any, Callable, Mapping, Optional

from ..common.limits import RELAY_MOST_SENDERS

#: By sender, and by the tag for which it asks: the numbers of its last messages to all, and to that
#: tag alone.
_Numbers = dict[str, dict[str, tuple[int, int]]]


class Checkpoints:
    """:param begin: stores everything received so far; :meth:`end` is called when that is done."""

    def __init__(self, begin: Callable[[], None]) -> None:
        self._begin = begin
        #: Numbers up to which messages are stored; and those asked for since the last checkpoint.
        self._safe: _Numbers = {}
        self._asked: _Numbers = {}
        #: The numbers that the checkpoint under way will make safe.
        self._coming: Optional[_Numbers] = None

    def may_confirm(self, sender: str, confirmed: Mapping[str, Any]) -> bool:
        """Whether the received messages are stored up to the numbers asked for.

        :param confirmed: see :meth:`.listener.Listener.confirms`.
        """
        if self._are_safe(sender, confirmed):
            return True
        asked = self._asked.setdefault(sender, {})
        asked.update((tag, (confirmed["all"], own)) for tag, own in confirmed["own"].items())
        if self._coming is None:
            self._coming, self._asked = self._asked, {}
            self._begin()
        return self._are_safe(sender, confirmed)  # they may be stored at once

    def _are_safe(self, sender: str, confirmed: Mapping[str, Any]) -> bool:
        safe = self._safe.get(sender, {})
        for tag, own in confirmed["own"].items():
            numbers = safe.get(tag)
            if numbers is None or confirmed["all"] > numbers[0] or own > numbers[1]:
                return False
        return True

    def end(self) -> None:
        """Everything that was received when the checkpoint began is stored; in any thread."""
        coming = self._coming
        if coming is not None:
            if sum(map(len, (*self._safe.values(), *coming.values()))) > RELAY_MOST_SENDERS:
                self._safe = {}  # senders that ask again are stored again
            for sender, numbers in coming.items():
                self._safe.setdefault(sender, {}).update(numbers)
            self._coming = None
