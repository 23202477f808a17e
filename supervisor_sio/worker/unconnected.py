"""Sessions whose client has yet to connect to a namespace: it has a limited time for that."""

from __future__ import annotations

from typing import Callable

from ..common.reasons import TOO_SLOW
from ..engine.deadlines import NEVER, NOWHERE, Deadlines
from ..engine.reasons import SERVER_DISCONNECT
from ..engine.session import Session


class Unconnected:
    """Those of one Socket.IO server. All methods are called in the loop.

    :param seconds: that a client has, from the beginning of its session.
    :param is_busy: whether a handler runs for a session, which may be about to accept its client.
    """

    def __init__(
        self, deadlines: Deadlines, seconds: float, is_busy: Callable[[Session], bool]
    ) -> None:
        self.deadline = NEVER
        self.slot = NOWHERE
        self._deadlines = deadlines
        self._seconds = seconds
        self._is_busy = is_busy
        #: Those that have begun lately: when the time of each is over, in this order. Who connects
        #: stays until then: that happens in any thread.
        self._until: dict[Session, float] = {}

    def add(self, session: Session) -> None:
        """A session begins."""
        self._until[session] = until = self._deadlines.clock() + self._seconds
        if self.slot == NOWHERE:
            self._deadlines.set(self, until)

    def discard(self, session: Session) -> None:
        """It has ended."""
        self._until.pop(session, None)

    def on_deadline(self, now: float) -> None:
        """:meth:`..engine.deadlines.Item.on_deadline`: the first may be over."""
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
