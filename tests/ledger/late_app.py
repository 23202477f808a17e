"""Workers that take their time to start, each another: the last one more than a second."""

from __future__ import annotations

import os
import time

import portable

sio, _ = portable.make()
app = portable.application(sio)

time.sleep(0.6 * int(os.environ["SUPERVISOR_PROCESS_NAME"][-1]))
