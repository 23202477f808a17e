"""Closes sessions whose client does not connect to a namespace in time."""

from __future__ import annotations

from typing import Callable

from ..common.reasons import TOO_SLOW
from ..engine.deadlines import NEVER, NOWHERE, Deadlines
from ..engine.reasons import SERVER_DISCONNECT
from ..engine.session import Session


class Unconnected:
    """The recently opened sessions of one Socket.IO server. Call all methods in the loop.

    :param seconds: the time to connect, from the beginning of the session.
    :param is_busy: whether a handler runs for a session; it may be about to accept the client.
    """

    def __init__(
        self, deadlines: Deadlines, seconds: float, is_busy: Callable[[Session], bool]
    ) -> None:
        self.deadline = NEVER
        self.slot = NOWHERE
        self._deadlines = deadlines
        self._seconds = seconds
        self._is_busy = is_busy
        #: The sessions with their deadlines, in this order. A session whose client has connected
        #: stays until its deadline, because clients connect in any thread.
        self._until: dict[Session, float] = {}

    def add(self, session: Session) -> None:
        """A session has begun."""
        self._until[session] = until = self._deadlines.clock() + self._seconds
        if self.slot == NOWHERE:
            self._deadlines.set(self, until)

    def discard(self, session: Session) -> None:
        """A session has ended."""
        self._until.pop(session, None)

    def on_deadline(self, now: float) -> None:
        """:meth:`..engine.deadlines.Item.on_deadline`: close the sessions whose time is over."""
        over: list[Session] = []
        for session, until in self._until.items():
            if until > now:
                break
            over.append(session)
        for session in over:
            del self._until[session]
            if session.connected or session.closed:
                continue
            if self._is_busy(session):
                self._until[session] = now + self._seconds
            else:
                session.count(TOO_SLOW, "no CONNECT")
                session.close(SERVER_DISCONNECT)
        if self._until:
            self._deadlines.set(self, next(iter(self._until.values())))
