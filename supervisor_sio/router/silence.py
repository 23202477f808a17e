"""Which workers hang: they have not reported for a while. Pure: the clock comes from outside."""

from __future__ import annotations

from typing import Iterable

from ..common.limits import SILENCE
from .pool import Member

#: Seconds between looks.
LOOK = 1.0


class Silence:
    """:param now: seconds of a clock, as everywhere here."""

    def __init__(self, now: float) -> None:
        self._due = now + LOOK

    def look(self, now: float, members: Iterable[Member]) -> list[Member]:
        """Those that hang since the last look; to be called every ``LOOK`` seconds."""
        due, self._due = self._due, now + LOOK
        if now > due + LOOK:
            return []  # it was this process that could not run: their reports may wait in here
        found = []
        for member in members:
            silent = now - member.reported_at
            if member.ready and silent > SILENCE:
                if not member.hung:
                    found.append(member)
                member.hangs(silent)
        return found
