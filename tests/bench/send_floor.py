"""What a broadcast costs at least: nothing but a send() for each client.

    python tests/bench/send_floor.py [--clients 800] [--processes 2] [--runs 5] [--seconds 3]

Bare processes share the clients. For each broadcast each of them is woken through a pipe,
and sends the same frame to its own clients; those are of the same kind as in compare.py's
broadcasts. CPU is user and system time of these processes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import statistics
import time
from collections.abc import Iterator, Sequence

import psutil
from frames import server_frame
from servers import HOST, own_cpu
from swarm import PATIENCE, PAYLOAD, Swarm

MESSAGE = f'42["news","{PAYLOAD}"]'.encode()


def connections(count: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Pairs of both ends."""
    with socket.create_server((HOST, 0), backlog=count) as listener:
        for _ in range(count):
            client = socket.create_connection(listener.getsockname())
            server, _ = listener.accept()
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield client, server


def send_when_woken(woken: int, clients: Sequence[socket.socket]) -> None:
    frame = server_frame(MESSAGE)
    while os.read(woken, 1):
        for client in clients:
            client.send(frame)


@contextlib.contextmanager
def processes(shares: Sequence[Sequence[socket.socket]]) -> Iterator[dict[int, int]]:
    """A process for each share of the clients: what wakes it, and its id."""
    started: dict[int, int] = {}
    try:
        for share in shares:
            woken, wakes = os.pipe()
            pid = os.fork()
            if not pid:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                for other in (wakes, *started):
                    os.close(other)
                send_when_woken(woken, share)
                os._exit(0)
            os.close(woken)
            started[wakes] = pid
        yield started
    finally:
        for wakes, pid in started.items():
            os.close(wakes)
            os.waitpid(pid, 0)


def cpu(pids: Sequence[int]) -> float:
    return sum(own_cpu(psutil.Process(pid)) for pid in pids)


def measure(swarm: Swarm, senders: dict[int, int], seconds: float) -> tuple[float, float]:
    """Deliveries per second, and CPU seconds of the senders for each."""
    deliveries, used, began = 0, cpu(list(senders.values())), time.monotonic()
    while time.monotonic() < began + seconds:
        for wakes in senders:
            os.write(wakes, b".")
        missing = len(swarm.clients)
        while missing:
            missing -= sum(count for _, count in swarm.read(PATIENCE))
        deliveries += len(swarm.clients)
    elapsed = time.monotonic() - began
    return deliveries / elapsed, (cpu(list(senders.values())) - used) / deliveries


def main() -> None:
    parser = argparse.ArgumentParser(description="A send() for each client")
    parser.add_argument("--clients", type=int, default=800)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    options = parser.parse_args()
    pairs = list(connections(options.clients))
    servers = [server for _, server in pairs]
    shares = [servers[number :: options.processes] for number in range(options.processes)]
    with processes(shares) as senders:
        swarm = Swarm({client: b"" for client, _ in pairs})
        swarm.expect(MESSAGE)
        runs = [measure(swarm, senders, options.seconds) for _ in range(options.runs)]
    print(f"{options.clients} clients, {options.processes} processes, nothing but send()")
    print(f"  deliveries/s         {statistics.median(rate for rate, _ in runs):10,.0f}")
    print(f"  CPU µs per delivery  {statistics.median(used for _, used in runs) * 1e6:10.3g}")


if __name__ == "__main__":
    main()
