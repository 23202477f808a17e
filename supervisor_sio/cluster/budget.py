"""A budget for missed events in memory. Pure.

When a network fails, many clients come back in the same moment. Each may have missed megabytes,
which cannot be shared: each event carries the client's offset. So clients wait in their order until
there is room, and one at a time reads, as nobody knows before how much it will be. A single client
may exceed the whole budget.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any, Callable, Optional

from ..common.limits import MISSED_BYTES, MISSED_HELD, MISSED_WAITING


class Full(Exception):
    """Too many clients wait already."""


class Share:
    """The events that one client has missed."""

    __slots__ = ("granted", "may_read", "size", "until", "eio_sid")

    def __init__(self) -> None:
        #: An event that is set when the share may be read, if its client waits.
        self.granted: Any = None
        self.may_read = False
        self.size = 0
        #: Monotonic time until which it counts at most.
        self.until = math.inf
        #: The Engine.IO sid of the client's connection, once all events are queued there.
        self.eio_sid = ""


class Budget:
    """The budget of one worker. Calls must not overlap."""

    def __init__(self) -> None:
        self.size = 0
        #: In their order.
        self._waiting: OrderedDict[Share, None] = OrderedDict()
        self._reading: Optional[Share] = None
        #: Shares that are read, or being read.
        self._shares: set[Share] = set()
        #: Those of them that clients or other workers have not taken entirely; the first to expire
        #: first.
        self._given: OrderedDict[Share, None] = OrderedDict()

    @property
    def is_awaited(self) -> bool:
        return bool(self._waiting)

    def join(self, share: Share, now: float) -> None:
        """Queue a share; it may be read once :attr:`Share.may_read` is set.

        :raises Full: when too many clients wait already.
        """
        self.expire(now)
        if len(self._waiting) >= MISSED_WAITING:
            raise Full
        self._waiting[share] = None
        self._begin_next()

    def let_in(self, share: Share) -> None:
        """Let a share be read at once, though there is no room."""
        if share in self._waiting:
            del self._waiting[share]
            self._shares.add(share)
            share.may_read = True
            self._begin_next()

    def has_read(self, share: Share, size: int) -> None:
        """All of a share is in memory, read here or fetched from another worker.

        :param size: in bytes.
        """
        self._resize(share, size)
        if self._reading is share:
            self._reading = None
            self._begin_next()

    def give(self, share: Share, now: float, eio_sid: str = "") -> None:
        """A share was queued at a client's connection, or sent to another worker."""
        if share in self._shares:
            share.until, share.eio_sid = now + MISSED_HELD, eio_sid
            self._given[share] = None

    def end(self, share: Share) -> None:
        """A share is not in memory any more, or not waited for any more."""
        self._waiting.pop(share, None)
        self._given.pop(share, None)
        self._resize(share, 0)
        self._shares.discard(share)
        if self._reading is share:
            self._reading = None
        self._begin_next()

    def look(self, waiting: Callable[[str], int]) -> None:
        """Reduce shares by what their clients have taken.

        :param waiting: how many bytes a connection has yet to write.
        """
        for share in list(self._given):
            if share.eio_sid:
                left = min(share.size, waiting(share.eio_sid))
                if left:
                    self._resize(share, left)
                else:
                    self.end(share)
        self._begin_next()

    def expire(self, now: float) -> None:
        """End shares that were not taken in time: the limits of each client's output hold them
        now."""
        while self._given:
            share = next(iter(self._given))
            if share.until > now:
                break
            self.end(share)

    def _resize(self, share: Share, size: int) -> None:
        if share in self._shares:
            self.size += size - share.size
            share.size = size

    def _begin_next(self) -> None:
        if self._waiting and self._reading is None and self.size < MISSED_BYTES:
            share, _ = self._waiting.popitem(last=False)
            self._reading = share
            self._shares.add(share)
            share.may_read = True
            if share.granted is not None:
                share.granted.set()
