"""Escapes text from clients in log messages, so that it cannot add lines to the log."""

from __future__ import annotations

import logging


class Printable(logging.Filter):
    """A logging filter that escapes unprintable characters; it drops no message."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if not text.isprintable():
            record.msg, record.args = printable(text), ()
        return True


#: Shared by all loggers, since a logger keeps the same filter only once.
PRINTABLE = Printable()


def printable(text: str) -> str:
    """The text, with unprintable characters escaped as in a Python literal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
