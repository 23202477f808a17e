"""Limit the new sessions of each worker while other workers start. Pure.

========================================  =====================================================
spreading begins                          because
========================================  =====================================================
when the first worker is ready, and       the clients that have waited are for all workers,
others are starting                       even if some start more slowly
when a worker starts in place of a        the clients of that worker reconnect, and the other
stopped one                               workers have their share already (not with takeover,
                                          where these clients stay connected)
========================================  =====================================================

From then on, no worker gets more than its share, until all workers are ready, or ``spread_timeout``
is over; then the ready workers get the remaining clients. The share is an equal part, for each
ready or starting worker, of the existing sessions and those that wait or were placed since.
"""

from __future__ import annotations

from collections import Counter
from typing import Collection, Mapping


class Spreading:
    """Counts the sessions of each worker, by its tag, while it is on."""

    def __init__(self) -> None:
        self.on = False
        #: Names of the workers that supervisord has started, and that are not ready yet, with the
        #: time of their start.
        self.starting: dict[str, float] = {}
        #: Sessions of each worker when spreading began, plus those that it has got since.
        self._given: Counter[str] = Counter()

    def begin(self, loads: Mapping[str, int]) -> bool:
        """Begin; returns whether there are starting workers to wait for.

        :param loads: the sessions of each ready worker.
        """
        self.on = bool(self.starting)
        self._given = Counter(loads)
        return self.on

    def end(self) -> None:
        self.on = False
        self._given.clear()

    def gave(self, tag: str) -> None:
        """Count a session that this worker has got."""
        if self.on:
            self._given[tag] += 1

    def with_room(self, tags: Collection[str], waiting: int) -> set[str]:
        """The ready workers that may get one more session.

        :param tags: the tags of all ready workers.
        :param waiting: the number of waiting new sessions, with the one to place.
        """
        if not tags:
            return set()
        workers = len(tags) + len(self.starting)
        given = {tag: self._given[tag] for tag in tags}
        share, rest = divmod(sum(given.values()) + waiting, workers)
        if not share or (rest and not self.starting):
            share += 1  # while workers start, the remainder is left for them
        return {tag for tag, count in given.items() if count < share}
