"""A session with which no other process can go on."""

from __future__ import annotations


class NotMovable(Exception):
    """Such a session ends with its worker, as all of them do without takeover.

    :param reason: of :mod:`.reasons`.
    :param detail: for the log.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
