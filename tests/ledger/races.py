"""What somebody who may write to a directory does in the moment before supervisord's chmod()."""

from __future__ import annotations

import os
import sys
from typing import Any

PATH, VICTIM = os.environ["RACE_PATH"], os.environ["RACE_VICTIM"]


def _race(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "os.chmod" and arguments[0] == PATH:
        os.rename(PATH, PATH + ".away")
        os.symlink(VICTIM, PATH)


sys.addaudithook(_race)
