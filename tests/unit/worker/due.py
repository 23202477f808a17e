"""An item with a deadline."""

from __future__ import annotations

from supervisor_sio.engine.deadlines import NEVER, NOWHERE


class Item:
    """:ivar due: how often its deadline has expired."""

    def __init__(self, fails: bool = False) -> None:
        self.deadline = NEVER
        self.slot = NOWHERE
        self.due = 0
        self._fails = fails

    def on_deadline(self, now: float) -> None:
        self.due += 1
        if self._fails:
            raise ValueError("a mistake")
