"""How much of what clients have missed is in memory at a time. Pure.

Many clients come back in the same moment when a network fails. Each may have missed megabytes, and
has them to itself: its offset is in each event. So those that come wait in their order, until there
is room; one at a time reads, as nobody knows before how much it is. One alone may be larger than
all the room.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any, Callable, Optional

from ..common.limits import MISSED_BYTES, MISSED_HELD, MISSED_WAITING


class Full(Exception):
    """Too many wait."""


class Share:
    """What one client has missed."""

    __slots__ = ("granted", "may_read", "size", "until", "eio_sid")

    def __init__(self) -> None:
        #: An event, for who waits.
        self.granted: Any = None
        self.may_read = False
        self.size = 0
        #: For how long it is counted at most, by the host's monotonic clock.
        self.until = math.inf
        #: Of the client's connection, when it has all of it.
        self.eio_sid = ""


class Budget:
    """For the clients of one worker. One thread at a time calls."""

    def __init__(self) -> None:
        self.size = 0
        #: The first one is the next.
        self._waiting: OrderedDict[Share, None] = OrderedDict()
        self._reading: Optional[Share] = None
        #: Those that are read.
        self._shares: set[Share] = set()
        #: Those of them that clients, or other workers, have yet to take; in the order of their
        #: times.
        self._given: OrderedDict[Share, None] = OrderedDict()

    @property
    def is_awaited(self) -> bool:
        return bool(self._waiting)

    def join(self, share: Share, now: float) -> None:
        """It is read when it may be: :attr:`Share.may_read`.

        :raises Full: when too many wait.
        """
        self.expire(now)
        if len(self._waiting) >= MISSED_WAITING:
            raise Full
        self._waiting[share] = None
        self._begin_next()

    def let_in(self, share: Share) -> None:
        """It may be read, though there is no room."""
        if share in self._waiting:
            del self._waiting[share]
            self._shares.add(share)
            share.may_read = True
            self._begin_next()

    def has_read(self, share: Share, size: int) -> None:
        """All of it is read; or it is here, as another worker has read it.

        :param size: of it, in bytes.
        """
        self._resize(share, size)
        if self._reading is share:
            self._reading = None
            self._begin_next()

    def give(self, share: Share, now: float, eio_sid: str = "") -> None:
        """It is given to a connection, or to another worker."""
        if share in self._shares:
            share.until, share.eio_sid = now + MISSED_HELD, eio_sid
            self._given[share] = None

    def end(self, share: Share) -> None:
        """Nothing of it is here any more; or nobody waits for it."""
        self._waiting.pop(share, None)
        self._given.pop(share, None)
        self._resize(share, 0)
        self._shares.discard(share)
        if self._reading is share:
            self._reading = None
        self._begin_next()

    def look(self, waiting: Callable[[str], int]) -> None:
        """See what clients have taken.

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
        """What is not taken by now counts no more: the bounds of each client's output do."""
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
