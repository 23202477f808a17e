"""Where a process spends its time, by py-spy."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Callable

import psutil

RATE = 250  # samples a second
MOST_FUNCTIONS = 25
STOP_TIMEOUT = 30.0


def py_spy() -> str:
    """The program; ends this one where it is not installed."""
    beside_python = str(Path(sys.executable).parent)
    program = shutil.which("py-spy") or shutil.which("py-spy", path=beside_python)
    if program is None:
        sys.exit("--profile needs py-spy: pip install py-spy")
    return program


def self_times(stacks: str) -> Counter[str]:
    """Samples by innermost function, of lines "outer;inner 3"."""
    functions: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, samples = line.rpartition(" ")
        functions[stack.rpartition(";")[2] or "(no Python function)"] += int(samples)
    return functions


def print_profile(program: str, process: psutil.Process, work: Callable[[], object]) -> None:
    """Of the process, while the work is done."""
    with tempfile.NamedTemporaryFile(mode="r") as output:
        command = [program, "record", "--pid", str(process.pid), "--rate", str(RATE)]
        command += [
            "--function",
            "--format",
            "raw",
            "--output",
            output.name,
            "--duration",
            "unlimited",
        ]
        recorder = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            work()
        finally:
            recorder.send_signal(signal.SIGINT)
            said, _ = recorder.communicate(timeout=STOP_TIMEOUT)
        functions = self_times(Path(output.name).read_text())
    if not functions:
        sys.exit(f"py-spy has seen nothing:\n{said.decode()}")
    total = sum(functions.values())
    print(f"{'samples':>8}{'share':>8}  function")
    for function, samples in functions.most_common(MOST_FUNCTIONS):
        print(f"{samples:8}{samples / total:8.1%}  {function}")
    print(f"{total:8}{'':8}  all, {RATE} a second while it was busy")
