"""Log lines with what clients send in them: one line stays one line."""

from __future__ import annotations

import logging


class Printable(logging.Filter):
    """Escapes what is not printable in the messages of a logger; drops none."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if not text.isprintable():
            record.msg, record.args = printable(text), ()
        return True


#: One for all loggers: a logger has a filter once, however often it is added.
PRINTABLE = Printable()


def printable(text: str) -> str:
    """The text, with escapes as in a Python literal for control characters and the like."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
