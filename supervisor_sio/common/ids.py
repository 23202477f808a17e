"""Random ids that cannot be guessed, made many at a time to save system calls."""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode
from collections.abc import Iterator

#: Bytes of an id, which base64 encodes as 20 characters; python-engineio's ids have 12 bytes.
_BYTES = 15
_LENGTH = 20

_AT_ONCE = 64

#: Ids not used yet. Threads may share the iterator: each id is returned once.
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
    """In a forked child: drop the ids of the parent."""
    global _drawn
    _drawn = iter(())


os.register_at_fork(after_in_child=_forget)
