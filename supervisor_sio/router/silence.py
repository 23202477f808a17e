"""Find workers that hang: they have not reported for a while. Pure; the caller passes the time."""

from __future__ import annotations

from typing import Iterable

from ..common.limits import SILENCE
from .pool import Member

#: Seconds between two calls of :meth:`Silence.look`.
LOOK = 1.0


class Silence:
    """:param now: seconds of a monotonic clock, as in all methods."""

    def __init__(self, now: float) -> None:
        self._due = now + LOOK

    def look(self, now: float, members: Iterable[Member]) -> list[Member]:
        """The workers that began to hang since the last call; call it every ``LOOK`` seconds."""
        due, self._due = self._due, now + LOOK
        if now > due + LOOK:
            return []  # this process was blocked itself, so reports may be waiting unread
        found = []
        for member in members:
            silent = now - member.reported_at
            if member.ready and silent > SILENCE:
                if not member.hung:
                    found.append(member)
                member.hangs(silent)
        return found
