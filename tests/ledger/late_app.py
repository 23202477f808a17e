"""Workers that take their time to start, each another."""

from __future__ import annotations

import os
import time

import portable

# Clients are asked for no pings while workers restart again and again.
sio, _ = portable.make(takeover="TAKEOVER" in os.environ, ping_timeout=300)
app = portable.application(sio)

number = int(os.environ["SUPERVISOR_PROCESS_NAME"][-1])
time.sleep(float(os.environ["SECONDS"].split()[number]))
