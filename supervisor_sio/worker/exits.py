"""What the log says of an application that calls ``sys.exit()`` while it serves.

With eventlet and asyncio that ends the worker at once, with this status, as it ends a worker of
gunicorn; supervisord starts another one, by the rules of ``autorestart``. In a thread it ends what
the thread does, as always in Python.
"""

from __future__ import annotations

import os

from ..common.limits import MAX_REASON
from . import compat
from .tracebacks import raised_at


def describe(error: SystemExit) -> str:
    """Which handler has called it, and where."""
    code = "" if error.code is None else repr(error.code)[:MAX_REASON]
    event = compat.event_of(error.__traceback__)
    who = "the application" if event is None else f"the handler of {event[:MAX_REASON]!r}"
    place = ""
    if error.__traceback__ is not None:
        file, line = raised_at(error.__traceback__)
        place = f" at {os.path.basename(file)}:{line}"
    return f"{who} called sys.exit({code}){place}"


def status(error: SystemExit) -> int:
    """Of the process, as Python does it."""
    if error.code is None:
        return 0
    return error.code & 0xFF if isinstance(error.code, int) else 1
