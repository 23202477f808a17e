"""What a ``command=`` line of supervisord's configuration starts, as far as the text shows."""

from __future__ import annotations

import re
import shlex
from typing import Optional

PROGRAM = "supervisor-sio"

#: Supervisor's ``spawnerr`` begins so if a process was started, and ended by itself: within its
#: ``startsecs``, or later.
ENDED_BY_ITSELF = ("Exited too quickly", "Bad exit code")

#: The command and its subcommand, also after a path, `env` or `sh -c`.
_COMMAND = re.compile(r"""(?:^|[\s/"'(;&|])supervisor-sio(?=["'\s]|$)["']?\s*([\w-]*)""")

#: Between the commands of a shell.
_SEPARATOR = re.compile(r"[;&|(){}\"']|\b(?:then|do|else)\b")


def subcommand_of(command: str) -> Optional[str]:
    """The word after ``supervisor-sio``, or ``None`` if the command runs something else."""
    match = _COMMAND.search(command)
    return match.group(1) if match else None


def subcommand_in(script: str) -> Optional[str]:
    """As :func:`subcommand_of`, for the text of a shell script."""
    for line in script.splitlines():
        subcommand = None if line.lstrip().startswith("#") else subcommand_of(line)
        if subcommand is not None:
            return subcommand
    return None


def lacks_exec(text: str) -> bool:
    """Whether a shell that runs this text stays as the parent of ``supervisor-sio``.

    A signal to the shell does not reach ``supervisor-sio`` then.
    """
    for line in text.splitlines():
        match = None if line.lstrip().startswith("#") else _COMMAND.search(line)
        if match is not None:
            before = _SEPARATOR.split(line[: match.start() + 1])[-1].split()
            return "exec" not in before
    return False


def program_of(command: str) -> str:
    """The first word, which supervisord looks up on the PATH; empty when there is none."""
    try:
        return shlex.split(command)[0]
    except (ValueError, IndexError):
        return ""
