"""Logs messages of other versions: once for each sender, with the process to be restarted."""

from __future__ import annotations

import logging
from typing import Set

from ..common.limits import RELAY_MOST_OUTDATED
from .message import OtherVersion

logger = logging.getLogger("supervisor_sio.relay")


class OtherVersions:
    """The senders with another version that this process has logged."""

    def __init__(self) -> None:
        self._senders: Set[str] = set()

    def note(self, error: OtherVersion) -> None:
        if error.sender in self._senders or len(self._senders) >= RELAY_MOST_OUTDATED:
            return
        self._senders.add(error.sender)
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
