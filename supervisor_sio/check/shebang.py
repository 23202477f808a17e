"""Find the interpreter of a script in its first lines."""

from __future__ import annotations

import os
import re
from typing import Optional

#: What pip and setuptools write if the path is too long for a first line, or has spaces.
_EXEC = re.compile(rb"""^'''exec' "?([^"\n]+?)"? "\$0" "\$@"$""", re.MULTILINE)


def python_of(path: str) -> Optional[str]:
    """The Python of a script; ``None`` when it cannot be determined."""
    try:
        with open(path, "rb") as file:
            head = file.read(2048)
    except OSError:
        return None
    if match := _EXEC.search(head):
        return os.fsdecode(match.group(1))
    line = head.partition(b"\n")[0]
    words = os.fsdecode(line[2:]).split() if line.startswith(b"#!") else []
    # With `env`, it depends on the PATH.
    return words[0] if words and "python" in os.path.basename(words[0]) else None
