"""Which messages outlive the process that has received them for others. Pure.

Who ends asks whether all have its messages, and is not there afterwards to send them again. So
where sessions are held, this is confirmed when what they have is kept elsewhere, too. Senders that
live need not wait: what is lost is fetched from them. Who has no answer asks again.
"""

from __future__ import annotations

from typing import Any, Callable, Mapping, Optional

from ..common.limits import RELAY_MOST_SENDERS

#: A sender, and the tag for which it asks.
_Key = tuple[str, str]

#: How many messages to all it has sent, and to that tag.
_Numbers = tuple[int, int]


class Checkpoints:
    """:param begin: keeps all that is there now; :meth:`end` is called then."""

    def __init__(self, begin: Callable[[], None]) -> None:
        self._begin = begin
        self._safe: dict[_Key, _Numbers] = {}
        self._asked: dict[_Key, _Numbers] = {}
        #: What the one that is under way keeps.
        self._coming: Optional[dict[_Key, _Numbers]] = None

    def may_confirm(self, sender: str, confirmed: Mapping[str, Any]) -> bool:
        """Whether the messages that were received are safe up to the numbers asked for.

        :param confirmed: as :meth:`.listener.Listener.confirms` has it.
        """
        key = sender, str(confirmed["tag"])
        to_all, own = confirmed["all"], confirmed["own"]
        safe = self._safe.get(key)
        if safe is not None and to_all <= safe[0] and own <= safe[1]:
            return True
        self._asked[key] = to_all, own
        if self._coming is None:
            self._coming, self._asked = self._asked, {}
            self._begin()
        return self._safe.get(key) == (to_all, own)  # it may be kept at once

    def end(self) -> None:
        """What was there at the beginning is kept; called in any thread."""
        coming = self._coming
        if coming is not None:
            if len(self._safe) + len(coming) > RELAY_MOST_SENDERS:
                self._safe = {}  # those who ask again are kept again
            self._safe.update(coming)
            self._coming = None
