"""Hosts that emit to each other, while everything between them is killed and stopped.

    python tests/bench/hosts.py [--hosts 2] [--kills 20] [--stops 10] [--routers 10] [--failovers 1]
                                [--rate 1000] [--gap 2 8] [--silence 0] [--seed N]

Each host is a supervisord with two workers, and one of its workers emits numbers to all, so many
a second. Between them is a redis-server, or with failovers two of them and a Sentinel, all on
loopback. Redis is killed and started again, stopped for nine seconds, and fails over; routers of
all hosts are killed, in random order. Ends with 1 unless every client has every number once and in
order, and no host counts one as missed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from string import ascii_lowercase
from typing import Any, Callable

import psutil
import redis

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "cluster")]

from cluster.harness import Cluster, free_port, wait_until  # noqa: E402
from cluster.pyclient import InOrder  # noqa: E402

#: Seconds that Redis is stopped: longer than anybody waits for an answer of it.
STOP = 9.0

#: Seconds for what is late after the last fault.
REST = 120.0


class Server:
    """A redis-server, or a Sentinel."""

    def __init__(self, directory: Path, *options: str) -> None:
        directory.mkdir()
        self.port = free_port()
        self._directory = directory
        self._command = ["redis-server"]
        if options and options[0] == "sentinel":
            config = directory / "sentinel.conf"
            config.write_text(f"port {self.port}\nbind 127.0.0.1\n" + "\n".join(options[1:]) + "\n")
            self._command += [str(config), "--sentinel"]
        else:
            words = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *options]
            self._command += words
        self.process: psutil.Popen

    def start(self) -> Server:
        with open(self._directory / "log", "ab") as log:
            self.process = psutil.Popen(self._command, stdout=log, cwd=self._directory)
        client = redis.Redis(port=self.port)

        def answers() -> bool:
            try:
                return bool(client.ping())
            except redis.BusyLoadingError:
                return True
            except redis.RedisError:
                return False

        wait_until(answers, 10, "redis")
        client.close()
        return self

    def kill(self) -> None:
        if self.process.is_running():
            self.process.resume()
            self.process.kill()
        self.process.wait(10)


class Between:
    """What is between the hosts; ``url`` is for their ``message_queue``."""

    def __init__(self, directory: Path, failovers: bool) -> None:
        self.servers = [Server(directory / "one")]
        if failovers:
            one = self.servers[0].port
            self.servers.append(Server(directory / "two", "--replicaof", "127.0.0.1", str(one)))
            self.sentinel = Server(
                directory / "sentinel",
                "sentinel",
                f"sentinel monitor hosts 127.0.0.1 {one} 1",
                "sentinel down-after-milliseconds hosts 1000",
                "sentinel failover-timeout hosts 4000",
            )
            self.servers.append(self.sentinel)
            self.url = f"redis+sentinel://127.0.0.1:{self.sentinel.port}/0/hosts"
        else:
            self.url = f"redis://127.0.0.1:{self.servers[0].port}/0"
        for server in self.servers:
            server.start()
        self.failovers = failovers

    @property
    def master(self) -> Server:
        if not self.failovers:
            return self.servers[0]
        client = redis.Redis(port=self.sentinel.port)
        _, port = client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", "hosts")
        client.close()
        return next(server for server in self.servers if server.port == int(port))

    def kill(self, down: float) -> None:
        master = self.master
        master.kill()
        time.sleep(down)
        master.start()

    def stop(self) -> None:
        master = self.master
        master.process.suspend()
        time.sleep(STOP)
        master.process.resume()

    def fail_over(self) -> None:
        before = self.master
        before.kill()
        wait_until(lambda: self.master is not before, 60, "the failover")
        before.start()

    def close(self) -> None:
        for server in self.servers:
            server.kill()


class Host:
    """One supervisord, and a client that counts what it gets."""

    def __init__(self, name: str, names: str, directory: Path, url: str) -> None:
        self.name = name
        directory.mkdir()
        command = "supervisor-sio worker counting_app:app"
        self.cluster = Cluster(directory, message_queue=url, command=command).start()
        self.got: dict[str, list[int]] = {each: [] for each in names}
        self.client = InOrder(reconnection=False)
        for event, numbers in self.got.items():
            self.client.on(event, numbers.append)
        self.client.connect(self.cluster.url, transports=["websocket"])

    def emit(self, numbers: int, seconds: float) -> None:
        self.client.emit("count_slowly", (self.name, numbers, seconds))

    @property
    def queue(self) -> dict[str, Any]:
        figures: dict[str, Any] = self.cluster.status()["queue"]
        return figures

    def kill_router(self) -> None:
        old = self.cluster.router_pid
        os.kill(old, signal.SIGKILL)
        self.cluster.wait_new_router(old)


def faults_of(numbers: list[int], count: int) -> str:
    """Empty when each number is there once and in order."""
    lost, doubled = count - len(set(numbers)), len(numbers) - len(set(numbers))
    swapped = sum(b < a for a, b in zip(numbers, numbers[1:]))
    if not (lost or doubled or swapped):
        return ""
    missing = sorted(set(range(count)) - set(numbers))[:5]
    return f"{lost} lost ({missing} …), {doubled} doubled, {swapped} out of order"


def run(options: argparse.Namespace, directory: Path) -> bool:
    hosts: list[Host] = []
    between = Between(directory, options.failovers > 0)
    try:
        names = ascii_lowercase[: options.hosts]
        for name in names:
            hosts.append(Host(name, names, directory / name, between.url))
        return judge(options, between, hosts)
    finally:
        for host in hosts:
            if host.client.connected:
                host.client.disconnect()
            host.cluster.clean_up()
        between.close()


def judge(options: argparse.Namespace, between: Between, hosts: list[Host]) -> bool:
    choice = random.Random(options.seed)
    others = len(hosts) - 1
    for host in hosts:
        wait_until(lambda host=host: host.queue["hosts"] == others, 20, "the other hosts")
    faults: list[tuple[str, Callable[[], object]]] = [
        *[("redis is killed", lambda: between.kill(choice.uniform(0.1, 3)))] * options.kills,
        *[("redis is stopped for 9 s", between.stop)] * options.stops,
        *[
            (f"the router of {host.name} is killed", host.kill_router)
            for host in hosts
            for _ in range(options.routers)
        ],
        *[("failover", between.fail_over)] * options.failovers,
    ]
    if options.silence:
        faults.append((f"silence of {options.silence:g} s", lambda: between.kill(options.silence)))
    choice.shuffle(faults)
    seconds = options.kills * 2 + options.stops * STOP + options.routers * 3 * len(hosts) + 10
    seconds += options.failovers * 5 + options.silence + len(faults) * sum(options.gap) / 2
    numbers = int(options.rate * seconds)
    began = time.monotonic()
    for host in hosts:
        host.emit(numbers, seconds)
    for what, fault in faults:
        time.sleep(choice.uniform(*options.gap))
        print(f"{time.monotonic() - began:6.1f} s {what}, got", end=" ")
        print(*(f"{h.name}: {'+'.join(str(len(n)) for n in h.got.values())}" for h in hosts))
        sys.stdout.flush()
        fault()
    deadline = time.monotonic() + REST + max(0.0, seconds - (time.monotonic() - began))
    while time.monotonic() < deadline:
        if all(len(got) >= numbers for host in hosts for got in host.got.values()):
            break
        time.sleep(0.2)
    took = time.monotonic() - began
    well = True
    print(f"{numbers} numbers of each host in {took:.0f} s, {numbers / took:.0f}/s of each")
    for host in hosts:
        for event, got in host.got.items():
            fault_found = faults_of(got, numbers)
            print(f"client of {host.name}, emits of {event}: {fault_found or 'all, in order'}")
            well = well and not fault_found
        print(f"host {host.name}: {host.queue}")
        well = well and host.queue["missed"] == host.queue["unsent"] == 0
    for host in hosts:
        if options.logs or not well:
            print(host.cluster.log("router")[-20000:])
    return well


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, default in (("kills", 20), ("stops", 10), ("routers", 10), ("failovers", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--rate", type=float, default=1000, help="a second, of each host")
    parser.add_argument("--gap", type=float, nargs=2, default=(2, 8), help="seconds between faults")
    parser.add_argument("--silence", type=float, default=0, help="seconds without Redis, once")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--logs", action="store_true", help="of the routers, at the end")
    options = parser.parse_args()
    print("seed", options.seed)
    with tempfile.TemporaryDirectory(prefix="hosts-") as directory:
        return 0 if run(options, Path(directory)) else 1


if __name__ == "__main__":
    sys.exit(main())
