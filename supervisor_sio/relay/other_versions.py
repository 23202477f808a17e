"""Logs messages of other versions, with the process to be restarted: once for each older sender,
and once for all newer ones."""

from __future__ import annotations

import logging
from typing import Set, Tuple

from ..common.limits import RELAY_MOST_OUTDATED
from .message import OtherVersion

logger = logging.getLogger("supervisor_sio.relay")

#: What is logged already, of all subscribers of this process, as a router has several: whether the
#: sender is newer, and the name of an older one.
_logged: Set[Tuple[bool, str]] = set()


def note(error: OtherVersion) -> None:
    # However many are newer: this process is to be restarted.
    key = (error.newer, "" if error.newer else error.sender)
    if key in _logged or (not error.newer and len(_logged) >= RELAY_MOST_OUTDATED):
        return
    _logged.add(key)
    if error.newer:
        text = "messages of a newer supervisor-sio are ignored: %s: restart this process"
    elif error.sender:
        text = (
            f"messages of process {error.sender} are ignored: %s: restart it (`sio status` shows "
            "the tags of workers)"
        )
    else:
        text = (
            "messages of an older supervisor-sio are ignored: %s: restart the process that sends "
            "them (`sio status` shows the versions)"
        )
    logger.error(text, error)
