"""How many new sessions a worker gets while others start. Pure.

========================================  =====================================================
it begins                                 because
========================================  =====================================================
with the first worker, when others start  who has waited for a worker is for all of them,
                                          however long each takes
with the start of a worker in the place   clients of that one come back, and the others have
of one that was stopped                   their share already; not where they have stayed,
                                          with takeover
========================================  =====================================================

From then on no worker gets more than its share, until all are there, or ``spread_timeout`` is
over: who waits yet is for those that are there then. The share is an equal part, for each worker
that is there or starts, of the sessions that there were and those that wait or were placed since.
"""

from __future__ import annotations

from collections import Counter
from typing import Collection, Mapping


class Spreading:
    """While it is on, workers are counted by their tags."""

    def __init__(self) -> None:
        self.on = False
        #: Names of the workers' processes that supervisord has started, and that are not ready.
        self.starting: set[str] = set()
        #: Sessions of each worker when it began, and those that it has got since.
        self._given: Counter[str] = Counter()

    def begin(self, loads: Mapping[str, int]) -> bool:
        """Whether there are workers to be waited for.

        :param loads: sessions of those that are there.
        """
        self.on = bool(self.starting)
        self._given = Counter(loads)
        return self.on

    def end(self) -> None:
        self.on = False
        self._given.clear()

    def gave(self, tag: str) -> None:
        """This worker has got one more."""
        if self.on:
            self._given[tag] += 1

    def with_room(self, tags: Collection[str], waiting: int) -> set[str]:
        """Those of the workers that are there which may have one more.

        :param tags: of all that are there.
        :param waiting: new sessions that wait, with the one that is to be placed.
        """
        if not tags:
            return set()
        workers = len(tags) + len(self.starting)
        given = {tag: self._given[tag] for tag in tags}
        share, rest = divmod(sum(given.values()) + waiting, workers)
        if not share or (rest and not self.starting):
            share += 1  # the rest is for the last: it may have the smallest part yet
        return {tag for tag, count in given.items() if count < share}
