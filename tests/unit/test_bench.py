"""The benches measure no server that has ended, and end when they are told to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))

import measurements  # noqa: E402
from servers import Server  # noqa: E402


def test_the_memory_of_a_server_that_has_ended_is_no_figure() -> None:
    with subprocess.Popen(["true"]) as process:
        server = Server(0, {"server": [psutil.Process(process.pid)]})
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # and nobody has taken its status
        with pytest.raises((RuntimeError, psutil.NoSuchProcess)):
            server.memory()


def test_threads_of_a_bench_that_ends_measure_no_more() -> None:
    measurements.ending.set()
    try:
        with pytest.raises(RuntimeError):
            measurements.settle()
    finally:
        measurements.ending.clear()
