"""Ids that nobody can guess, drawn many at a time: each draw is a call of the kernel."""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode
from collections.abc import Iterator

#: Bytes of one, of which base64 makes 20 characters; python-engineio's have 12, and a number.
_BYTES = 15
_LENGTH = 20

_AT_ONCE = 64

#: What is drawn and not used. Threads may take from it together: each id comes once.
_drawn: Iterator[str] = iter(())


def new_id() -> str:
    """120 random bits, as 20 letters, digits, ``-`` and ``_``."""
    global _drawn
    for drawn in _drawn:
        return drawn
    text = urlsafe_b64encode(os.urandom(_BYTES * _AT_ONCE)).decode()
    fresh = iter([text[at : at + _LENGTH] for at in range(0, len(text), _LENGTH)])
    drawn = next(fresh)
    _drawn = fresh
    return drawn


def _forget() -> None:
    """In a forked child: those are its parent's."""
    global _drawn
    _drawn = iter(())


os.register_at_fork(after_in_child=_forget)
