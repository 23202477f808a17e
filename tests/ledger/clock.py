"""A wall clock of supervisord's that somebody sets: a day on, once a file is there."""

from __future__ import annotations

import os
import time
from pathlib import Path

if b"supervisord" in Path("/proc/self/cmdline").read_bytes():
    _time = time.time

    def _set_clock() -> float:
        return _time() + (86400 if os.path.exists(os.environ["CLOCK_IS_SET"]) else 0)

    time.time = _set_clock
