"""The access log: a line for each session that opens, and one for each that ends.

Only where ``access_log`` of ``[rpcinterface:sio]`` is on: clients decide how many lines there are.
"""

from __future__ import annotations

import logging
import time
from typing import Callable

from ..common.limits import ACCESS_LOG_TEXT
from ..engine.request import Request
from ..engine.session import Session

logger = logging.getLogger("supervisor_sio.access")

#: Writes a line: a message, and what goes into it.
Write = Callable[..., None]


class AccessLog:
    """Of one worker; knows when the sessions that are open were opened."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        logger.setLevel(logging.INFO)  # it is asked for, whatever supervisord's own log has
        self._now = now
        self._opened: dict[str, float] = {}

    def opened(self, session: Session, request: Request, write: Write) -> None:
        self._opened[session.sid] = self._now()
        write(
            'session %s opens: %s %s %s "%s"',
            session.sid,
            _shown(session.address) or "-",
            request.transport,
            _shown(request.head.path),
            _shown(request.header(b"user-agent")),
        )

    def ended(self, session: Session, reason: str, write: Write) -> None:
        began = self._opened.pop(session.sid, None)
        # Another worker has seen it begin, if this one has not.
        seconds = "-" if began is None else f"{self._now() - began:.1f} s"
        address = _shown(session.address) or "-"
        write("session %s ends: %s %s %s", session.sid, address, seconds, reason)


def _shown(text: str) -> str:
    """What a client has sent, on one line."""
    text = text[:ACCESS_LOG_TEXT].encode("unicode_escape").decode()
    return text.replace('"', "'")
