"""One wheel for all deadlines of a process: no timer of its own for anybody.

Nearly every deadline is moved before it is reached: each pong moves one by half a minute. So
that costs one store of an attribute: the item stays where it is, and is looked at again
when its turn comes there. The runtime has a single timer, for :meth:`Deadlines.next`, and
calls ``on_deadline`` of all items that :meth:`Deadlines.expired` returns.

The clock is given, and is the only one of the engine.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from typing import Callable, Optional, Protocol

#: The deadline of an item that has none.
NEVER = math.inf

#: The slot of an item that is in none; less than that of any time.
NOWHERE = -2

#: Slots of a second: a power of two, so that nothing is lost in rounding.
RATE = 64


class Item(Protocol):
    """What has a deadline; it begins with :data:`NEVER` and :data:`NOWHERE`.

    It is kept by the wheel until its time has come, or :meth:`Deadlines.remove`.
    """

    #: May be moved to a later time, or to :data:`NEVER`, without telling the wheel.
    deadline: float
    #: The wheel's.
    slot: int

    def on_deadline(self, now: float) -> None:
        """It is time. The item has no deadline any more, but may set one."""


class Deadlines:
    """When what is due.

    An item comes one or two slots early, 16 to 31 ms: one timer serves many, and what a client
    may count on, such as its time for a poll, is not over late.

    :param clock: in seconds; never goes back.
    """

    __slots__ = ("clock", "_slots", "_order")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        #: By number, the items that are to be looked at then; the numbers, as a heap.
        self._slots: dict[int, dict[Item, None]] = {}
        self._order: list[int] = []

    def set(self, item: Item, when: float) -> None:
        """The item is due at this time, and not at the one before."""
        item.deadline = when
        number = _slot(when)
        if item.slot == NOWHERE:
            self._put(item, number)
        elif number < item.slot:
            del self._slots[item.slot][item]
            self._put(item, number)

    def after(self, item: Item, seconds: float) -> None:
        """The same, from now on."""
        self.set(item, self.clock() + seconds)

    def remove(self, item: Item) -> None:
        """The item has no deadline any more, and is not kept in here."""
        item.deadline = NEVER
        if item.slot != NOWHERE:
            del self._slots[item.slot][item]
            item.slot = NOWHERE

    def next(self) -> Optional[float]:
        """When to call :meth:`expired` next; ``None`` while nothing has a deadline."""
        return self._order[0] / RATE if self._order else None

    def expired(self, now: float) -> Iterator[Item]:
        """The items that are due.

        Not one that has been removed, or set anew, for one that came before it.
        """
        due: list[Item] = []
        current = int(now * RATE)
        while self._order and self._order[0] <= current:
            for item in self._slots.pop(heapq.heappop(self._order)):
                number = NOWHERE if item.deadline == NEVER else _slot(item.deadline)
                if number > current:
                    self._put(item, number)
                    continue
                item.slot = NOWHERE
                if item.deadline != NEVER:
                    due.append(item)
        for item in due:
            if item.slot == NOWHERE and item.deadline != NEVER:
                item.deadline = NEVER
                yield item

    def _put(self, item: Item, number: int) -> None:
        item.slot = number
        items = self._slots.get(number)
        if items is None:
            self._slots[number] = {item: None}
            heapq.heappush(self._order, number)
        else:
            items[item] = None


def _slot(when: float) -> int:
    return int(when * RATE) - 1
