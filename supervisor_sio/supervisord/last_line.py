"""Read the last line of a process's log."""

from __future__ import annotations

import os
import re
import stat
from typing import Any

from ..common.limits import LAST_LINE, LAST_LINE_READ
from ..settings import without_credentials

#: Escape sequences for colours on a terminal.
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def last_line(config: Any) -> str:
    """The last line that is not empty of the log with a process's stderr.

    :param config: Supervisor's configuration of the process.
    :returns: "" if there is no such line, or if the log is not a file.
    """
    path = config.stdout_logfile if config.redirect_stderr else config.stderr_logfile
    try:
        # Reading a pipe or terminal, such as /dev/fd/1, would block, or take its data away.
        descriptor = os.open(str(path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return ""
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            return ""
        data = os.pread(descriptor, LAST_LINE_READ, max(0, info.st_size - LAST_LINE_READ))
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    lines = (_plain(line) for line in reversed(data.decode(errors="replace").splitlines()))
    return next(filter(None, lines), "")


def _plain(line: str) -> str:
    """Remove control characters, which XML-RPC cannot carry and a terminal would execute."""
    text = "".join(char if char.isprintable() else " " for char in _COLOURS.sub("", line))
    text = without_credentials(" ".join(text.split()))
    return text if len(text) <= LAST_LINE else f"{text[: LAST_LINE - 1]}…"
