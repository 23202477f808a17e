"""What a ``command=`` line of supervisord's configuration starts, as far as it says."""

from __future__ import annotations

import re
import shlex
from typing import Optional

PROGRAM = "supervisor-sio"

#: The command and what it is told to be, also behind a path, `env` or `sh -c`.
_COMMAND = re.compile(r"""(?:^|[\s/"'(;&|])supervisor-sio(?=["'\s]|$)["']?\s*([\w-]*)""")


def subcommand_of(command: str) -> Optional[str]:
    """The word after ``supervisor-sio``, if that is what the command runs."""
    match = _COMMAND.search(command)
    return match.group(1) if match else None


def program_of(command: str) -> str:
    """The first word, which supervisord looks for on the PATH; empty when there is none."""
    try:
        return shlex.split(command)[0]
    except (ValueError, IndexError):
        return ""
