"""The access log: a line for each session that opens, and one for each that ends.

It is written only if ``access_log`` of ``[rpcinterface:sio]`` is on, because clients can cause any
number of lines.
"""

from __future__ import annotations

import logging
import time
from typing import Callable

from ..common.limits import ACCESS_LOG_TEXT
from ..engine.request import Request
from ..engine.session import Session

logger = logging.getLogger("supervisor_sio.access")

#: Writes a line; takes a format and its arguments.
Write = Callable[..., None]


class AccessLog:
    """The access log of one worker; keeps the opening time of each open session."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        logger.setLevel(logging.INFO)  # the user asked for it, whatever the general level is
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
        # A session that was opened at another worker has no opening time here.
        seconds = "-" if began is None else f"{self._now() - began:.1f} s"
        address = _shown(session.address) or "-"
        write("session %s ends: %s %s %s", session.sid, address, seconds, reason)


def _shown(text: str) -> str:
    """Text from a client, escaped to fit on one line."""
    text = text[:ACCESS_LOG_TEXT].encode("unicode_escape").decode()
    return text.replace('"', "'")
