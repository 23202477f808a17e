"""What takeover and recovery cost while nobody needs them: with both, and without, side by side.

    python tests/bench/costs.py [--mode eventlet] [--seconds 2] [--runs 7] [--rows echo ...]
                                [--before CHECKOUT]

Two clusters of two workers are measured in turn, in short runs: medians of the CPU time of router
and workers, and the median of the ratios of each run. Clients ask as browsers do, which can come
back to their session; in the rows "plain" as those of Python, which get no offsets. A third cluster
may run another checkout of this package, without both. Ends with 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from generators import BROWSER, PYTHON
from measurements import Measuring, idle, traffic, visits
from servers import Server, supervised_cluster
from takeover import APPLICATIONS, end

#: Seconds until memory is looked at.
SETTLE_SECONDS = 3.0

OFF, ON, BEFORE = "off", "on", "before"


@dataclass(frozen=True)
class Row:
    """:ivar most: the ratio that is allowed, or of memory the difference in KiB.

    :ivar key: of what is measured. Memory is measured once, of clusters that have had no clients.
    """

    title: str
    measuring: Measuring
    most: float
    key: str = "cpu"

    @property
    def of_memory(self) -> bool:
        return self.key == "memory"


def memory(title: str, query: str) -> Row:
    return Row(title, idle("websocket", query, SETTLE_SECONDS), 1, "memory")


ROWS = {
    "echo": Row("echo, µs", traffic("echo", 100), 1.1),
    "echo-plain": Row("echo, plain, µs", traffic("echo", 100, PYTHON), 1.1),
    "10": Row("broadcast to 10, µs", traffic("broadcast", 10, in_a_row=100), 1.1),
    "10-plain": Row("to 10, plain, µs", traffic("broadcast", 10, PYTHON, in_a_row=100), 1.1),
    "200": Row("broadcast to 200, µs", traffic("broadcast", 200, in_a_row=10), 1.1),
    "800": Row("broadcast to 800, µs", traffic("broadcast", 800, in_a_row=1), 1.1),
    "websocket": Row("set-up, websocket, ms", visits("websocket"), 1.15),
    "upgraded": Row("set-up, polling first, ms", visits("set-up"), 1.15),
    "plain": Row("set-up, websocket, plain, ms", visits("websocket", PYTHON), 1.15),
    "memory": memory("idle client, KiB", BROWSER),
    "memory-plain": memory("idle client, plain, KiB", PYTHON),
}


def measure(row: Row, servers: Sequence[Server], options: argparse.Namespace) -> list[list[float]]:
    """What was found of each server, by run."""
    with contextlib.ExitStack() as stack:
        measures = [
            stack.enter_context(row.measuring(server, options.seconds)) for server in servers
        ]
        found = []
        for number in range(1 if row.of_memory else options.runs):
            turn = range(len(measures)) if number % 2 == 0 else reversed(range(len(measures)))
            values = {place: measures[place]()[row.key] for place in turn}
            found.append([values[place] for place in range(len(measures))])
        return found


def is_met(row: Row, names: Sequence[str], found: Sequence[Sequence[float]]) -> bool:
    """Print the row."""
    by_server = dict(zip(names, zip(*found)))
    medians = {name: statistics.median(values) for name, values in by_server.items()}
    ratios = [values[1] / values[0] for values in found]
    ratio = statistics.median(ratios)
    figure = medians[ON] - medians[OFF] if row.of_memory else ratio
    cells = [f"{medians[name]:9.2f}" for name in names]
    cells.append(f"{ratio:7.3f}  ({min(ratios):.2f}-{max(ratios):.2f})")
    allowed = f"at most {row.most:g}"
    if row.of_memory:
        allowed = f"at most +{row.most:g}, here {figure:+.2f}"
    if BEFORE in medians:
        before = statistics.median(values[0] / values[2] for values in found)
        cells.append(f" off/before {before:.3f}")
    print(f"{row.title:30}{''.join(cells)}  {allowed}", flush=True)
    return figure <= row.most


def main() -> None:
    parser = argparse.ArgumentParser(description="What takeover and recovery cost")
    parser.add_argument("--mode", choices=tuple(APPLICATIONS), default="eventlet")
    parser.add_argument("--seconds", type=float, default=2, help="of one measurement")
    parser.add_argument("--runs", type=int, default=7, help="of each measurement")
    parser.add_argument("--rows", nargs="+", choices=tuple(ROWS), default=list(ROWS))
    parser.add_argument("--before", type=Path, help="another checkout of this package")
    options = parser.parse_args()
    both = {"BENCH_TAKEOVER": "1", "BENCH_RECOVERY": "120"}
    environments = {OFF: dict.fromkeys(both, ""), ON: both}
    if options.before is not None:
        environments[BEFORE] = environments[OFF]
    print(f"{options.mode:30}" + "".join(f"{name:>9}" for name in environments) + "   on/off")

    def run(stack: contextlib.ExitStack) -> list[Server]:
        return [
            stack.enter_context(
                supervised_cluster(
                    environment={**variables, "BENCH_ASYNC_MODE": options.mode},
                    application=APPLICATIONS[options.mode],
                    mode=options.mode,
                    checkout=options.before if name == BEFORE else None,
                )
            )
            for name, variables in environments.items()
        ]

    met = []
    with contextlib.ExitStack() as stack:
        servers = run(stack)
        for row in (ROWS[name] for name in options.rows):
            with contextlib.ExitStack() as fresh:
                found = measure(row, run(fresh) if row.of_memory else servers, options)
            met.append(is_met(row, list(environments), found))
    if not all(met):
        sys.exit("a bar is missed")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    main()
