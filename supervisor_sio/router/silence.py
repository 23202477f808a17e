"""Which workers hang: they have not reported for a while. Pure: the clock comes from outside."""

from __future__ import annotations

from typing import Iterable

from .pool import Member

#: Seconds without a report after which a worker hangs; one that is well reports every two.
SILENCE = 6.0

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
        silent = [
            member
            for member in members
            if member.ready and not member.hung and now - member.reported_at > SILENCE
        ]
        for member in silent:
            member.hung = True
        return silent
