"""One timing wheel for all deadlines of a process, instead of one timer for each.

Nearly every deadline is moved before it is reached: each pong moves one by half a minute. So
moving a deadline to a later time only stores an attribute: the item stays in its slot, and the
wheel moves it on when that slot's time comes. The runtime has a single timer, for
:meth:`Deadlines.next`, and calls ``on_deadline`` of all items that :meth:`Deadlines.expired`
returns.

The caller passes in the clock, which is the only one that the engine uses.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from typing import Callable, Optional, Protocol

#: The deadline of an item without a deadline.
NEVER = math.inf

#: The slot of an item that is in no slot; less than the slot of any time.
NOWHERE = -2

#: Slots per second: a power of two, so that the multiplication does not round.
RATE = 64


class Item(Protocol):
    """An object with a deadline; the attributes start as :data:`NEVER` and :data:`NOWHERE`.

    The wheel refers to the item until its deadline has expired, or :meth:`Deadlines.remove`.
    """

    #: Anybody may store a later time, or :data:`NEVER`, without calling the wheel.
    deadline: float
    #: Only the wheel uses it.
    slot: int

    def on_deadline(self, now: float) -> None:
        """The deadline has expired. The item now has none, but may set a new one."""


class Deadlines:
    """The timing wheel.

    Deadlines expire one or two slots (16 to 31 ms) early, never late: one timer serves many
    items, and a limit that clients rely on, such as the time for a poll, is not exceeded.

    :param clock: returns seconds; never goes back.
    """

    __slots__ = ("clock", "on_earlier", "_slots", "_order")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        #: Called when :meth:`next` has become earlier.
        self.on_earlier: Callable[[], None] = _nothing
        #: The items by the number of their slot, and these numbers as a heap.
        self._slots: dict[int, dict[Item, None]] = {}
        self._order: list[int] = []

    def set(self, item: Item, when: float) -> None:
        """Set the item's deadline to this time, instead of the previous one."""
        item.deadline = when
        number = _slot(when)
        if item.slot == NOWHERE:
            self._put(item, number)
        elif number < item.slot:
            del self._slots[item.slot][item]
            self._put(item, number)

    def after(self, item: Item, seconds: float) -> None:
        """Set the item's deadline to this many seconds from now."""
        self.set(item, self.clock() + seconds)

    def remove(self, item: Item) -> None:
        """Cancel the item's deadline, and drop the reference to it."""
        item.deadline = NEVER
        if item.slot != NOWHERE:
            del self._slots[item.slot][item]
            item.slot = NOWHERE

    def next(self) -> Optional[float]:
        """The time at which to call :meth:`expired` next; ``None`` if no item has a deadline."""
        return self._order[0] / RATE if self._order else None

    def expired(self, now: float) -> Iterator[Item]:
        """Yield the items whose deadline has expired.

        An item that was removed or got a new deadline while an earlier one of the same call was
        handled is left out.
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
            if self._order[0] == number:
                self.on_earlier()
        else:
            items[item] = None


def _nothing() -> None:
    """Nobody waits for the next deadline."""


def _slot(when: float) -> int:
    return int(when * RATE) - 1
