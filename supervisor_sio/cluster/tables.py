"""The lock of a manager's tables, with the events that are written together."""

from __future__ import annotations

from _thread import RLock
from typing import Callable, List, Optional, Tuple

from ..relay.message import RelayMessage

#: An event, and its number for :meth:`.Takeover._scope_of`.
Collected = Tuple[RelayMessage, Optional[int]]


class Tables(RLock):  # type: ignore[misc]  # CPython lets it be subclassed
    """A lock that also holds *collected* events: events that wait until the end of this turn of the
    loop, to be written to the journal and sent to clients of this process together.

    Who enters it as a context finds no collected events. So everything else that is done, in this
    thread or another one, comes after the events that were emitted before it. ``acquire()`` leaves
    them.

    It is a lock of the operating system, even if a library has patched the module.
    """

    __slots__ = ("collected", "write")

    def __init__(self) -> None:
        self.collected: List[Collected] = []
        #: Writes and sends what :meth:`take` returns; with the lock.
        self.write: Callable[[], None] = self.collected.clear

    def __enter__(self) -> bool:  # type: ignore[override]  # without the arguments of acquire()
        self.acquire()
        if self.collected:
            try:
                self.write()
            except BaseException:
                self.release()
                raise
        return True

    def take(self) -> List[Collected]:
        """Take the collected events, in order; with the lock.

        Consecutive ones for the same clients are one message, as if they had arrived together, see
        :attr:`.RelayMessage.run`.
        """
        collected, self.collected = self.collected, []
        runs: List[List[Collected]] = []
        for one in collected:
            if runs and runs[-1][0][0].fields == one[0].fields:
                runs[-1].append(one)
            else:
                runs.append([one])
        return [run[0] if len(run) == 1 else _join(run) for run in runs]


def _join(run: List[Collected]) -> Collected:
    """The first of these events, with the packets of all."""
    message, number = run[0]
    message.packets = [packet for one, _ in run for packet in one.packets]
    message.run = [one.packed for one, _ in run if one.packed is not None]
    return message, number
