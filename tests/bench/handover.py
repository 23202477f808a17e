"""CPU of the router for each session set-up: from accept to the hand-over.

    python tests/bench/handover.py [--against CHECKOUT] [--runs 7] [--set-ups 2000]

A set-up is two connections here, as a browser opens them: one whose first request is the
handshake, and one for a request of that session. Behind the router are workers that
only answer, see ``silent_worker.py``. With ``--against`` another checkout of this package
is measured in turn; the figures are medians, and of CPU time, so that other load on the machine
changes little.

The rows: 16 or one at a time; the request is there when the connection is accepted, or
comes later.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import socket
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

from servers import HERE, HOST, Server, supervised_cluster

TAG = re.compile(rb"X-Tag: (\S+)")
REQUEST = b"GET /socket.io/?EIO=4&transport=%b HTTP/1.1\r\nHost: bench\r\n" + b"".join(
    b"%b: %b\r\n" % header
    for header in (
        (b"Connection", b"keep-alive"),
        (b"User-Agent", b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"),
        (b"Accept", b"*/*"),
        (b"Accept-Encoding", b"gzip, deflate, br"),
        (b"Accept-Language", b"en-US,en;q=0.9"),
        (b"Referer", b"http://bench/index.html"),
    )
)


class Cost(NamedTuple):
    """Seconds of CPU. The kernel counts the sum in ns, and which part of it is of the
    user by ticks: that says something only of many runs together."""

    total: float
    user_ticks: int
    system_ticks: int

    @classmethod
    def of(cls, pid: int) -> Cost:
        """Of the main thread, so far; see proc(5)."""
        task = Path(f"/proc/{pid}/task/{pid}")
        times = (task / "stat").read_text().rpartition(")")[2].split()
        total = int((task / "schedstat").read_text().split()[0]) / 1e9
        return cls(total, int(times[11]), int(times[12]))


def exchange(port: int, requests: list[bytes], late: bool) -> list[bytes]:
    """The answers to requests that are all sent at the same time."""
    socks = []
    answers = []
    for request in requests:
        sock = socket.create_connection((HOST, port), 10)
        socks.append(sock)
        if not late:
            sock.sendall(request + b"\r\n")
    for sock, request in zip(socks, requests):
        if late:
            sock.sendall(request + b"\r\n")
    for sock in socks:
        with sock:
            answers.append(sock.recv(4096))
    return answers


def set_up(port: int, count: int, late: bool) -> None:
    """As many at a time."""
    answers = exchange(port, [REQUEST % b"polling"] * count, late)
    tags = [TAG.search(answer)[1] for answer in answers]  # type: ignore[index]
    request = REQUEST % b"websocket&sid=%b.0123456789abcdefABCD"
    exchange(port, [request % tag for tag in tags], late)


def measure(server: Server, set_ups: int, count: int, late: bool) -> Cost:
    router = server.parts["router"][0].pid
    before = Cost.of(router)
    for _ in range(set_ups // count):
        set_up(server.port, count, late)
    return Cost(*(new - old for new, old in zip(Cost.of(router), before)))


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU of the router for a session set-up")
    parser.add_argument("--against", type=Path, help="another checkout, measured in turn")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--set-ups", type=int, default=2000, help="in each run")
    parser.add_argument("--settings", default="", help="more options of the cluster")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        routers: dict[str, Server] = {}
        for checkout in (None, options.against):
            if checkout is None or options.against is not None:
                here = HERE if checkout is None else checkout.resolve() / "tests" / "bench"
                server = supervised_cluster(
                    command=f"{sys.executable} {here / 'silent_worker.py'}",
                    settings=options.settings,
                    checkout=checkout and checkout.resolve(),
                )
                routers["there" if checkout else "here"] = stack.enter_context(server)
        costs: dict[tuple[int, bool, str], list[Cost]] = {}
        for run in range(options.runs + 1):
            for count, late in ((16, False), (16, True), (1, False), (1, True)):
                for name, server in routers.items():
                    cost = measure(server, options.set_ups, count, late)
                    if run:  # the first warms up
                        costs.setdefault((count, late, name), []).append(cost)
    print(f"{'µs of CPU for each set-up':50}{'user':>8}{'system':>8}{'sum':>8}")
    for (count, late, name), measured in costs.items():
        total = statistics.median(cost.total for cost in measured) / options.set_ups * 1e6
        user = sum(cost.user_ticks for cost in measured)
        user_share = user / max(1, user + sum(cost.system_ticks for cost in measured))
        what = f"{name}, {count} at a time, requests come {'later' if late else 'at once'}"
        print(f"{what:50}{total * user_share:8.1f}{total * (1 - user_share):8.1f}{total:8.1f}")


if __name__ == "__main__":
    main()
