"""How far a router and a worker are from their system calls: beside a server of hardly more.

    python tests/bench/session_floor.py [--only ROW,ROW] [--runs 5] [--seconds 3]

Rows of compare.py with one worker of ours and, in turn, floor_server.py, which makes the same
calls with answers of the same length. Figures are medians of CPU, user and system, of both
processes; the ratio is the median of each round's.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import psutil
from compare import end, print_row, rounds
from rows import OURS, ROWS
from servers import (
    HERE,
    Server,
    free_port,
    running,
    supervised_cluster,
    temporary_directory,
    wait_for_answer,
)
from worker_setup import running as is_running

NAMES = ("set-up", "websocket", "echo")
FLOOR = "floor"


@contextlib.contextmanager
def floor_server() -> Iterator[Server]:
    port = free_port()
    with temporary_directory() as here:
        log = here / "server.log"
        command = [sys.executable, str(HERE / "floor_server.py"), str(port)]
        with running(command, log) as process:
            wait_for_answer(port, process, log)
            yield Server(port, {"both": [psutil.Process(process.pid)]})


def main() -> None:
    parser = argparse.ArgumentParser(description="How far we are from the system calls")
    parser.add_argument("--only", default=",".join(NAMES), help="of these: %(default)s")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    options = parser.parse_args()
    names = options.only.split(",")
    if not set(names) <= set(NAMES):
        parser.error(f"--only: expected some of {', '.join(NAMES)}")
    signal.signal(signal.SIGTERM, end)
    with ExitStack() as stack:
        servers = {
            OURS: stack.enter_context(supervised_cluster(workers=1)),
            FLOOR: stack.enter_context(floor_server()),
        }
        for name in names:
            row = ROWS[f"single-{name}"]
            row = replace(
                row,
                servers={peer: is_running(server) for peer, server in servers.items()},
                figures=[replace(figure, bars=()) for figure in row.figures],
            )
            samples = rounds(row, list(servers), options.runs, options.seconds)
            print_row(row, samples, list(servers))


if __name__ == "__main__":
    main()
