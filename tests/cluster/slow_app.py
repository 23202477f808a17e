"""A worker that takes as long to start as a file says, in seconds."""

from __future__ import annotations

import os
import time
from pathlib import Path

import portable

time.sleep(float(Path(os.environ["SECONDS_TO_START"]).read_text()))

sio, _ = portable.make()
app = portable.application(sio)
