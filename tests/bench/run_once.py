"""A task that one of four workers runs, 20 times a second, while workers and routers go.

    python tests/bench/run_once.py [--minutes 2] [--seed N] [--mode eventlet]

Again and again, at random: workers are reloaded, also with one more meanwhile; the program gets one
process more, and one less; the worker that runs the task is killed, or stopped for longer than its
lease, or for less; the router is killed or restarted, or both are killed at once. Each step of the
task writes its fencing number into a file. Ends with 1 unless the numbers only grow, each is that
of one process, and no gap between two steps is longer than it may be.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cluster.harness import Cluster, wait_until

from supervisor_sio.common.limits import RUN_ONCE_LEASE

WORKERS = 4

#: Seconds that another worker may take to begin, beyond what its reason takes; and a bound for what
#: moves the task by itself.
GRACE, PROMPT = 2.0, 2.0

#: Seconds for which the worker is stopped that loses the task.
STOPPED = RUN_ONCE_LEASE + 3

#: For less than that: it goes on with it.
PAUSED = 3.0


class Task:
    """What it has written."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "ticks"

    def steps(self) -> list[dict[str, Any]]:
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        steps = map(json.loads, lines)
        return [step for step in steps if step["task"] == "ticker" and "ended" not in step]

    @property
    def holder(self) -> int:
        """The pid of the worker that runs it."""
        return int(wait_until(self.steps, 30, "it runs")[-1]["pid"])

    def wait_for_another(self, than: int) -> None:
        wait_until(lambda: self.holder != than, 60, "another worker runs it")


@dataclass
class Fault:
    """One kind."""

    name: str
    bring: Callable[[Cluster, Task], None]
    #: Seconds between two steps, at most.
    bound: float
    gaps: list[float] = field(default_factory=list)


def kill(cluster: Cluster, task: Task) -> None:
    holder = task.holder
    os.kill(holder, signal.SIGKILL)
    task.wait_for_another(holder)


def kill_both(cluster: Cluster, task: Task) -> None:
    holder, router = task.holder, cluster.router_pid
    os.kill(router, signal.SIGKILL)
    os.kill(holder, signal.SIGKILL)
    cluster.wait_new_router(router)
    task.wait_for_another(holder)


def stop(cluster: Cluster, task: Task) -> None:
    holder = task.holder
    os.kill(holder, signal.SIGSTOP)
    time.sleep(STOPPED)
    task.wait_for_another(holder)
    os.kill(holder, signal.SIGCONT)


def pause(cluster: Cluster, task: Task) -> None:
    holder = task.holder
    os.kill(holder, signal.SIGSTOP)
    time.sleep(PAUSED)
    os.kill(holder, signal.SIGCONT)


def control(*commands: str) -> Callable[[Cluster, Task], None]:
    def bring(cluster: Cluster, task: Task) -> None:
        for command in commands:
            answer = cluster.ctl(*command.split())
            assert answer.returncode == 0, answer.stdout
            cluster.wait_ready(WORKERS + 1 if command.endswith(f" {WORKERS + 1}") else None)

    return bring


def faults() -> list[Fault]:
    lost = RUN_ONCE_LEASE + GRACE
    return [
        Fault("kill -9 of the worker that runs it", kill, GRACE),
        Fault("that worker is stopped for 9 s (SIGSTOP)", stop, lost),
        Fault("that worker is stopped for 3 s", pause, PAUSED + PROMPT),
        Fault("sio reload", control("sio reload"), PROMPT),
        Fault("sio reload --surge", control("sio reload --surge"), PROMPT),
        Fault(
            "sio scale, one more and one less",
            control(f"sio scale workers {WORKERS + 1}", f"sio scale workers {WORKERS}"),
            PROMPT,
        ),
        Fault("restart workers:*", control("restart workers:*"), 30.0),
        Fault("kill -9 of the router", lambda c, t: _end_router(c, "kill"), PROMPT),
        Fault("restart of the router", lambda c, t: _end_router(c, "restart"), PROMPT),
        Fault("kill -9 of that worker and of the router", kill_both, lost),
    ]


def _end_router(cluster: Cluster, how: str) -> None:
    cluster.end_router(how)


def run(cluster: Cluster, task: Task, seconds: float, dice: random.Random) -> list[Fault]:
    kinds = faults()
    until = time.monotonic() + seconds
    left: list[Fault] = []
    while time.monotonic() < until:
        if not left:  # each kind in its turn, in any order
            left = dice.sample(kinds, len(kinds))
        fault = left.pop()
        began = time.monotonic()
        fault.bring(cluster, task)
        cluster.wait_ready()
        wait_until(lambda: not cluster.workers("hung"), 60, "no worker hangs")
        count = len(task.steps())
        wait_until(lambda c=count: len(task.steps()) > c + 10, 60, "it goes on")  # type: ignore[misc]
        times = [step["at"] for step in task.steps() if step["at"] >= began - 1]
        fault.gaps.append(longest_gap(times))
        print(f"  {fault.name}: {fault.gaps[-1]:.2f} s", flush=True)
    return kinds


def longest_gap(times: Iterable[float]) -> float:
    inner = sorted(times)
    return max((later - earlier for earlier, later in zip(inner, inner[1:])), default=0.0)


def two_at_a_time(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The steps under a number that is not the process's, or smaller than one before."""
    wrong: list[dict[str, Any]] = []
    owners: dict[int, int] = {}
    largest = 0
    for step in steps:
        if owners.setdefault(step["number"], step["pid"]) != step["pid"]:
            wrong.append(step)
        elif step["number"] < largest:
            wrong.append(step)
        largest = max(largest, step["number"])
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--mode", default="eventlet", choices=["eventlet", "asyncio", "threading"])
    options = parser.parse_args()
    print(f"mode {options.mode}, seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        os.environ["TICKS"] = directory
        task = Task(Path(directory))
        command = "supervisor-sio worker once_app:app"
        cluster = Cluster(Path(directory), workers=WORKERS, command=command, mode=options.mode)
        try:
            cluster.start()
            dice = random.Random(options.seed)
            kinds = run(cluster, task, options.minutes * 60, dice)
            steps = task.steps()
        finally:
            cluster.clean_up()
    wrong = two_at_a_time(steps)
    print(f"\n{'':44}  times  longest gap  at most")
    for kind in kinds:
        if kind.gaps:
            row = f"{len(kind.gaps):5}  {max(kind.gaps):9.2f} s  {kind.bound:5.1f} s"
            print(f"{kind.name:44}  {row}")
    workers, numbers = (len({step[key] for step in steps}) for key in ("pid", "number"))
    print(f"\n{len(steps)} steps of {workers} processes under {numbers} numbers")
    print(f"steps while another worker had it: {len(wrong)}")
    late = [kind.name for kind in kinds if kind.gaps and max(kind.gaps) > kind.bound]
    return 1 if wrong or late else 0


if __name__ == "__main__":
    raise SystemExit(main())
