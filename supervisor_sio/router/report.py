"""The figures that the router reports to supervisord and at the metrics port."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from typing import Any, Callable, Mapping

from .._version import __version__
from ..common import reasons
from ..common.channel import Message
from ..common.figures import Section
from ..common.reasons import Counted
from ..common.refusals import Refusals
from ..relay.proxy import Relay
from . import sums
from .health import Snapshot
from .pool import Pool
from .workers import Workers


class Report:
    """Collects figures from the router's parts at each call.

    :param waiting: the number of waiting connections.
    :param queue: figures of the bridge; empty without one.
    :param faults: options for which this Python lacks a package, with the reason.
    :param recycled: workers that supervisord has recycled, by reason; changed in place.
    :param rebalancing: the progress of ``sio rebalance``.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        workers: Workers,
        relay: Relay,
        refusals: Refusals,
        waiting: Callable[[], int],
        queue: Callable[[], Mapping[str, Any]],
        faults: list[str],
        recycled: Mapping[str, int],
        rebalancing: Callable[[], Message],
    ) -> None:
        self._pool = pool
        self._workers = workers
        self._relay = relay
        self._refusals = refusals
        self._waiting = waiting
        self._queue = queue
        self._faults = faults
        self._recycled = recycled
        self._rebalancing = rebalancing

    def totals(self) -> Message:
        """The figures of the router, and the sums of all workers."""
        return {
            "at": time.monotonic(),
            "version": __version__,
            "cpu_ms": int(time.process_time() * 1000),
            "handed_over": self._workers.handed_over,
            "handed_back": self._workers.handed_back,
            "waiting": self._waiting(),
            "refused": self._refused(),
            "relay_alive": self._relay.alive,
            "faults": self._faults,
            "messages": self._relay.received(),
            **self._sums(Section.RELAY),
            **self._sums(Section.CLIENTS),
            **self._sums(Section.TAKEOVER),
            "takes": any(member.takes for member in self._pool),
            "held": self._workers.held_sessions(),
            "not_moved": self._not_moved(),
            **self._sums(Section.RECOVERY),
            "recovers": any(member.recovers for member in self._pool),
            "not_recovered": self._not_recovered(),
            "tasks": [row._asdict() for row in self._workers.run_once.rows()],
            "queue": self._queue(),
            "rebalancing": self._rebalancing(),
        }

    def rows(self) -> list[Message]:
        """A row for each worker."""
        return sums.rows(self._pool)

    def snapshot(self) -> Snapshot:
        """The snapshot for the metrics."""
        return Snapshot(
            taken=time.monotonic(),
            handed_over=self._workers.handed_over,
            handed_back=self._workers.handed_back,
            waiting=self._waiting(),
            refused=self._refused(),
            relay_alive=self._relay.alive,
            relay_messages=self._relay.received(),
            passed_on=self._sums(Section.TAKEOVER)["passed_on"],
            held=self._workers.held_sessions(),
            not_moved=self._not_moved(),
            not_recovered=self._not_recovered(),
            queue=self._queue(),
            recycled=dict(self._recycled),
            tasks=tuple(self._workers.run_once.rows()),
            members=tuple(replace(member) for member in self._pool),
        )

    def _sums(self, section: Section) -> dict[str, int]:
        """The sums of a section over all workers since this router's start."""
        return sums.totals(section, self._pool, self._workers.gone)

    def _refused(self) -> dict[str, int]:
        """Refused clients by reason, in the router and in the workers."""
        return self._by_reason(Counted.REFUSED, Section.REFUSED)

    def _not_moved(self) -> dict[str, int]:
        """Sessions that were not moved, likewise."""
        return self._by_reason(Counted.NOT_MOVED, Section.NOT_MOVED)

    def _not_recovered(self) -> dict[str, int]:
        """Clients that were not recovered, likewise."""
        return self._by_reason(Counted.NOT_RECOVERED, Section.NOT_RECOVERED)

    def _by_reason(self, counted_as: Counted, section: Section) -> dict[str, int]:
        counted = Counter(
            {
                reason: count
                for reason, count in self._refusals.by_reason.items()
                if reasons.counted_as(reason) is counted_as
            }
        )
        counted.update(self._sums(section))
        return {reason: count for reason, count in counted.items() if count}
