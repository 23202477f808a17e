"""Logs messages of other versions: once for each sender, with the process to be restarted."""

from __future__ import annotations

import logging
from typing import Set

from ..common.limits import RELAY_MOST_OUTDATED
from .message import OtherVersion

logger = logging.getLogger("supervisor_sio.relay")

#: The senders that are logged already, of all subscribers of this process: a router has several.
_logged: Set[str] = set()


def note(error: OtherVersion) -> None:
    if error.sender in _logged or len(_logged) >= RELAY_MOST_OUTDATED:
        return
    _logged.add(error.sender)
    if error.newer:
        text = "messages of a newer supervisor-sio are ignored: %s: restart this process"
        logger.error(text, error)
    else:
        logger.error(
            "messages of process %s are ignored: %s: restart it (`sio status` shows the tags "
            "of workers)",
            error.sender or "(unknown)",
            error,
        )
