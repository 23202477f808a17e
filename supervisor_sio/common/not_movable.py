"""The error for a session that cannot be moved to another worker."""

from __future__ import annotations


class NotMovable(Exception):
    """The session cannot be moved; it ends with its worker, as without takeover.

    :param reason: one of :mod:`.reasons`.
    :param detail: text for the log.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
