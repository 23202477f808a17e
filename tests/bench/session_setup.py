"""Session set-up under load: this package against a stock worker behind nginx, and pm2.

    python tests/bench/session_setup.py [--seconds 5] [--in-flight 16] [--runs 3]

All servers run side by side and are loaded in turn; figures are medians over the
runs, ratios are the medians of each run's ratio. CPU is user and system time per
completed set-up. Ends with 1 if a bar is missed: no failures, less CPU of router and
workers than nginx and its worker need, and at most 0.6 of what pm2 and its workers
need. pm2 is left out, and said to be, where npm is not installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from generators import BROWSER
from node import program
from pm2 import pm2_cluster
from servers import (
    HERE,
    HOST,
    NOT_COUNTED,
    Server,
    behind_nginx,
    stock_worker,
    supervised_cluster,
)

CLUSTER, NGINX, BARE = "router + 2 workers", "nginx + stock worker", "stock worker alone"
PM2 = "pm2 + 2 workers"
OF_PM2 = 0.6
SETTLE_SECONDS = 0.5
WARM_UP_SECONDS = 2.0
#: Seconds after which a set-up has failed; nearly all take a tenth of one at most.
SET_UP_TIMEOUT = 2.0


@dataclass
class Run:
    completed: int
    failures: Counter[str]
    elapsed: float
    p50_ms: float
    p99_ms: float
    generator_cpu: float
    cpu_ms: dict[str, float] = field(default_factory=dict)  # per set-up, by part

    @property
    def rate(self) -> float:
        return self.completed / self.elapsed

    @property
    def counted_ms(self) -> float:
        return sum(ms for part, ms in self.cpu_ms.items() if part not in NOT_COUNTED)


def load(
    port: int, seconds: float, in_flight: int, what: str = "set-up", query: str = BROWSER
) -> Run:
    """The load generator, in its own process."""
    command = [sys.executable, str(HERE / "load.py"), HOST, str(port)]
    command += ["--seconds", str(seconds), "--in-flight", str(in_flight)]
    command += ["--timeout", str(SET_UP_TIMEOUT), "--what", what, "--query", query]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, check=True, text=True, timeout=seconds + 60
    )
    figures = json.loads(done.stdout)
    return Run(**{**figures, "failures": Counter(figures["failures"])})


def measure(
    server: Server, seconds: float, in_flight: int, what: str = "set-up", query: str = BROWSER
) -> Run:
    before = server.cpu()
    run = load(server.port, seconds, in_flight, what, query)
    time.sleep(SETTLE_SECONDS)
    after = server.cpu()
    for part, seconds_used in after.items():
        run.cpu_ms[part] = (seconds_used - before[part]) * 1000 / max(run.completed, 1)
    return run


def median_cpu(runs: list[Run], part: str) -> float:
    return statistics.median(run.cpu_ms[part] for run in runs)


def cpu_ratio(runs: list[Run], reference: list[Run]) -> float:
    """Within each round, so that a machine that gets slower or faster does not show."""
    return statistics.median(
        run.counted_ms / other.counted_ms if other.counted_ms else float("inf")
        for run, other in zip(runs, reference)
    )


def print_table(results: dict[str, list[Run]]) -> None:
    print(
        f"{'':22}{'set-ups/s':>10}{'failed':>8}{'p50 ms':>8}{'p99 ms':>8}"
        f"{'CPU ms/set-up':>15}{'/ nginx':>9}{'/ pm2':>7}  parts"
    )
    for name, runs in results.items():
        to_nginx = f"{cpu_ratio(runs, results[NGINX]):.2f}"
        to_pm2 = f"{cpu_ratio(runs, results[PM2]):.2f}" if PM2 in results else ""
        cpu = statistics.median(run.counted_ms for run in runs)
        parts = ", ".join(
            f"{part} {median_cpu(runs, part):.3f}" + (" (not counted)" * (part in NOT_COUNTED))
            for part in runs[0].cpu_ms
        )
        print(
            f"{name:22}"
            f"{statistics.median(run.rate for run in runs):10.0f}"
            f"{sum(sum(run.failures.values()) for run in runs):8d}"
            f"{statistics.median(run.p50_ms for run in runs):8.1f}"
            f"{statistics.median(run.p99_ms for run in runs):8.1f}"
            f"{cpu:15.3f}{to_nginx:>9}{to_pm2:>7}  {parts}"
        )
    for name, runs in results.items():
        failures: Counter[str] = sum((run.failures for run in runs), Counter())
        for reason, count in failures.most_common():
            print(f"{name}: {count} × {reason}")


def bars_are_met(results: dict[str, list[Run]]) -> bool:
    ours = results[CLUSTER]
    clean = all(run.completed > 0 and not run.failures for run in ours)
    beats_pm2 = PM2 not in results or cpu_ratio(ours, results[PM2]) <= OF_PM2
    return clean and beats_pm2 and cpu_ratio(ours, results[NGINX]) < 1


def main() -> None:
    parser = argparse.ArgumentParser(description="Socket.IO session set-up under load")
    parser.add_argument("--seconds", type=float, default=5, help="of load per run")
    parser.add_argument("--in-flight", type=int, default=16, help="set-ups at a time")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=("cluster", "nginx"), help="measure one, no bar")
    options = parser.parse_args()

    with contextlib.ExitStack() as stack:
        servers: dict[str, Server] = {}
        if options.only != "nginx":
            servers[CLUSTER] = stack.enter_context(supervised_cluster(workers=2))
        worker = stack.enter_context(stock_worker())
        servers[NGINX] = stack.enter_context(behind_nginx(worker))
        servers[BARE] = worker
        if options.only is None:
            if program("npm") is None:
                print("npm is not installed: measured without pm2")
            else:
                servers[PM2] = stack.enter_context(pm2_cluster())

        results: dict[str, list[Run]] = {name: [] for name in servers}
        for server in servers.values():
            load(server.port, WARM_UP_SECONDS, options.in_flight)
        for number in range(options.runs):
            names = list(servers) if number % 2 == 0 else list(reversed(servers))
            for name in names:
                results[name].append(measure(servers[name], options.seconds, options.in_flight))

    print_table(results)
    if CLUSTER in results and not bars_are_met(results):
        sys.exit("a bar is missed")


if __name__ == "__main__":
    main()
