"""The end of a process whose application has threads that do not end."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

PROGRAM = """\
import atexit, sys, threading, time
from supervisor_sio.worker.ending import end_in_time

atexit.register(lambda: (time.sleep({at_exit}), print("at exit")))
threading.Thread(target=time.sleep, args=({seconds},), name="mine", daemon={daemon}).start()
end_in_time(3)
print("main")
"""


@pytest.mark.parametrize(
    "seconds, daemon, at_exit, status, lines",
    [
        (600, False, 0, 3, ["main"]),
        (0.2, False, 0, 0, ["main", "at exit"]),
        (600, True, 0, 0, ["main", "at exit"]),
        # Functions registered with atexit are not interrupted.
        (0, False, 2.5, 0, ["main", "at exit"]),
    ],
)
def test_the_process_ends(
    seconds: float, daemon: bool, at_exit: float, status: int, lines: list[str]
) -> None:
    program = PROGRAM.format(seconds=seconds, daemon=daemon, at_exit=at_exit)
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert time.monotonic() - began < 60
    assert (ended.returncode, ended.stdout.splitlines()) == (status, lines)
    assert ("threads of the application run: mine" in ended.stderr) == (status == 3)
