"""The interpreter of a script, as its first lines say."""

from __future__ import annotations

import os
import re
from typing import Optional

#: What pip and setuptools write where a path is too long, or has spaces, for a first line.
_EXEC = re.compile(rb"""^'''exec' "?([^"\n]+?)"? "\$0" "\$@"$""", re.MULTILINE)


def python_of(path: str) -> Optional[str]:
    """``None`` when it cannot be seen from here."""
    try:
        with open(path, "rb") as file:
            head = file.read(2048)
    except OSError:
        return None
    if match := _EXEC.search(head):
        return os.fsdecode(match.group(1))
    line = head.partition(b"\n")[0]
    words = os.fsdecode(line[2:]).split() if line.startswith(b"#!") else []
    # Through `env` it depends on the PATH: not to be seen from here.
    return words[0] if words and "python" in os.path.basename(words[0]) else None
