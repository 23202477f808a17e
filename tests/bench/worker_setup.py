"""What one worker costs alone, without router and relay: for work on the worker itself.

    python tests/bench/worker_setup.py [--ours CHECKOUT] [--only ROW,ROW] [--runs 3] [--seconds 1]
    python tests/bench/worker_setup.py --profile ROW [--seconds 5]

CPU is user and system time of the worker's process, so a loaded machine disturbs little. With
``--ours`` a worker of another checkout runs beside it ("before"), and ratios are shown.
``--profile`` shows instead what the worker does; it needs py-spy.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Callable, ContextManager

from compare import end, print_row, rounds
from profiling import print_profile, py_spy
from rows import BEFORE, OURS, ROWS, Row
from servers import Server, worker_alone

NAMES = ("set-up", "websocket", "polling", "echo")


def running(server: Server) -> Callable[..., ContextManager[Server]]:
    return lambda: nullcontext(server)


def alone(name: str, servers: dict[str, Server]) -> Row:
    """The row of compare.py with running workers, and no other peers' bars."""
    row = ROWS[f"single-{name}"]
    figures = [
        replace(figure, bars=[bar for bar in figure.bars if bar.peer in (None, BEFORE)])
        for figure in row.figures
    ]
    return replace(
        row,
        title=f"{row.title}, no router",
        servers={peer: running(server) for peer, server in servers.items()},
        figures=figures,
    )


def measure_all(
    names: Sequence[str], servers: dict[str, Server], runs: int, seconds: float
) -> None:
    for name in names:
        row = alone(name, servers)
        print_row(row, rounds(row, list(servers), runs, seconds), list(servers))


def main() -> None:
    parser = argparse.ArgumentParser(description="What one worker costs")
    parser.add_argument("--ours", type=Path, metavar="CHECKOUT", help="to compare with")
    parser.add_argument("--only", default=",".join(NAMES), help="of these: %(default)s")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1, help="of each measurement")
    parser.add_argument("--profile", choices=NAMES)
    options = parser.parse_args()
    names = options.only.split(",")
    if not set(names) <= set(NAMES):
        parser.error(f"--only: expected some of {', '.join(NAMES)}")
    signal.signal(signal.SIGTERM, end)
    try:
        with ExitStack() as stack:
            servers = {OURS: stack.enter_context(worker_alone())}
            if options.ours:
                servers[BEFORE] = stack.enter_context(worker_alone(options.ours.resolve()))
            if options.profile:
                row = alone(options.profile, servers)
                with row.measuring(servers[OURS], options.seconds) as measure:
                    print_profile(py_spy(), servers[OURS].parts["worker"][0], measure)
            else:
                measure_all(names, servers, options.runs, options.seconds)
    except RuntimeError as error:
        sys.exit(f"failed: {error}")


if __name__ == "__main__":
    main()
