"""The role of a program in the cluster, from its command or its start script."""

from __future__ import annotations

import enum
import os
import re
import shlex
import shutil

from ..common.commands import subcommand_of
from ..common.limits import SCRIPT_LENGTH

_PYTHON = re.compile(r"""(?:^|[\s/"'])(?:python|pypy)[\d.]*(?:\s|$)|\.py(?:["'\s]|$)""")

_SHELLS = {"sh", "bash", "dash", "ash", "zsh", "ksh"}
_SHEBANG = re.compile(rf"#!\S*/(?:env +)?(?:{'|'.join(sorted(_SHELLS))})\b")


class Role(enum.Enum):
    """The role of a program, as far as its command shows it."""

    ROUTER = "router"
    WORKER = "worker"
    #: A Python program, which may call ``serve()``.
    PYTHON = "python"
    OTHER = "other"


def script_of(command: str) -> str:
    """The shell script that a command starts; empty when it starts something else."""
    words = [word for word in split_command(command) if not word.startswith("-")]
    if words and os.path.basename(words[0]) in _SHELLS:
        words = words[1:]
    found = shutil.which(words[0]) or words[0] if words else ""
    return found if found and _SHEBANG.match(head_of(found)) else ""


def head_of(path: str) -> str:
    """The beginning of a file; empty when it cannot be read."""
    try:
        if not os.path.isfile(path):
            return ""
        with open(path, errors="replace") as file:
            return file.read(SCRIPT_LENGTH)
    except (OSError, ValueError):
        return ""


def split_command(command: str) -> list[str]:
    """The words of a command; empty when it cannot be split."""
    try:
        return shlex.split(command)
    except ValueError:
        return []


def role_of(command: str) -> Role:
    subcommand = subcommand_of(command)
    if subcommand == "router":
        return Role.ROUTER
    if subcommand == "worker":
        return Role.WORKER
    return Role.PYTHON if subcommand is None and _PYTHON.search(command) else Role.OTHER
