"""Describes, for the log, a ``sys.exit()`` that the application calls while the worker serves.

With eventlet and asyncio it ends the worker at once with its status, as with gunicorn; supervisord
restarts the worker according to ``autorestart``. In a thread it ends only the current handler or
request, as always in Python.
"""

from __future__ import annotations

import os

from ..common.limits import MAX_REASON
from . import compat
from .tracebacks import raised_at


def describe(error: SystemExit) -> str:
    """Which handler called ``sys.exit()``, and where."""
    code = "" if error.code is None else repr(error.code)[:MAX_REASON]
    event = compat.event_of(error.__traceback__)
    who = "the application" if event is None else f"the handler of {event[:MAX_REASON]!r}"
    place = ""
    if error.__traceback__ is not None:
        file, line = raised_at(error.__traceback__)
        place = f" at {os.path.basename(file)}:{line}"
    return f"{who} called sys.exit({code}){place}"


def status(error: SystemExit) -> int:
    """The exit status of the process, by Python's rules."""
    if error.code is None:
        return 0
    return error.code & 0xFF if isinstance(error.code, int) else 1
