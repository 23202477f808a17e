"""All that strangers can do at once, and what it costs the others."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
from cluster.harness import Cluster
from cluster.raw import open_websocket

from .attackers import TEXT, frame
from .victim import PeakMemory, log_lines

HERE = Path(__file__).parent
LOAD = HERE.parent / "bench" / "load.py"

STRANGERS = 5
IN_FLIGHT = 16
LOGS = ("supervisord", "router")


@dataclass
class Damage:
    """What others have noticed.

    :ivar set_ups: how many sessions were set up meanwhile.
    :ivar failures: those that were not, by reason.
    :ivar latencies: of echoes over websockets, at every worker, in seconds, ordered.
    :ivar echo_error: why there were no more echoes, if there were not.
    :ivar memory: the most resident bytes of any worker.
    :ivar lines: in all logs.
    :ivar attacks: bytes that were sent in each attack.
    :ivar same: whether the workers and the router are the same processes as before.
    """

    set_ups: int
    failures: dict[str, int]
    latencies: list[float]
    echo_error: str
    memory: int
    lines: int
    attacks: Counter[str]
    same: bool

    def percentile(self, part: float) -> float:
        return self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * part))]


class Echoes:
    """Asks every worker for an echo, over a websocket each, all the time."""

    def __init__(self, cluster: Cluster) -> None:
        self.latencies: list[float] = []
        self._socks: dict[str, socket.socket] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.error = ""
        while len(self._socks) < cluster.numprocs:
            sock = open_websocket(cluster.port)
            sock.sendall(frame(TEXT, b"40"))
            self._read(sock, b"40{")
            sock.sendall(frame(TEXT, b'420["whoami"]'))
            worker = self._read(sock, b"430[")
            if worker in self._socks:
                sock.close()
            else:
                self._socks[worker] = sock

    def _read(self, sock: socket.socket, start: bytes) -> str:
        """Read until a packet has come that starts like this; it is short."""
        data = b""
        while start not in data or not data.endswith((b"]", b"}")):
            more = sock.recv(65536)
            if not more:
                raise ConnectionError("a worker has ended the websocket of somebody else")
            if more == b"\x81\x012":
                sock.sendall(frame(TEXT, b"3"))
            data += more
        return data[data.index(start) :].decode()

    def __enter__(self) -> Echoes:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(30)
        for sock in self._socks.values():
            sock.close()

    def _run(self) -> None:
        began = time.monotonic()
        try:
            while not self._ended.wait(0.005):
                for sock in self._socks.values():
                    began = time.monotonic()
                    sock.sendall(frame(TEXT, b'421["echo","there"]'))
                    self._read(sock, b"431[")
                    self.latencies.append(time.monotonic() - began)
        except OSError as error:
            self.latencies.append(time.monotonic() - began)
            self.error = repr(error)


def pids(cluster: Cluster) -> set[int]:
    return {cluster.router_pid, *(int(row["pid"]) for row in cluster.workers())}


def attack_from_everywhere(cluster: Cluster, seed: int, seconds: float) -> Damage:
    """Set-ups, echoes and five strangers at the same time.

    :raises AssertionError: when an attack has not taken place.
    """
    before = pids(cluster)
    names = [f"workers_{number:02}" for number in range(cluster.numprocs)]
    load = [sys.executable, str(LOAD), "127.0.0.1", str(cluster.port)]
    load += [f"--seconds={seconds}", f"--in-flight={IN_FLIGHT}", "--timeout=30"]
    attackers = [
        [sys.executable, str(HERE / "attackers.py"), str(cluster.port), str(seed + n), str(seconds)]
        for n in range(STRANGERS)
    ]
    with ExitStack() as stack:
        lines = stack.enter_context(log_lines(cluster, *LOGS, *names))
        peaks = [stack.enter_context(PeakMemory(int(row["pid"]))) for row in cluster.workers()]
        echoes = stack.enter_context(Echoes(cluster))
        running = [
            stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            for command in (load, *attackers)
        ]
        try:
            outputs = [
                json.loads(process.communicate(timeout=seconds + 60)[0]) for process in running
            ]
        finally:
            for process in running:
                process.kill()
    made, *sent = outputs
    attacks = sum((Counter[str](each) for each in sent), Counter[str]())
    return Damage(
        int(made["completed"]),
        dict(made["failures"]),
        sorted(echoes.latencies),
        echoes.error,
        max(peak.peak for peak in peaks),
        lines(),
        attacks,
        pids(cluster) == before,
    )


def describe(damage: Damage) -> str:
    share = psutil.cpu_count() or 1
    echoes = damage.latencies
    return "\n".join(
        [
            f"set-ups                  {damage.set_ups}",
            f"failed                   {sum(damage.failures.values())} {damage.failures or ''}",
            f"echoes                   {len(echoes)} {damage.echo_error}",
            f"… median                 {damage.percentile(0.5) * 1000:.1f} ms",
            f"… 99th percentile        {damage.percentile(0.99) * 1000:.1f} ms",
            f"… longest                {echoes[-1] * 1000:.1f} ms",
            f"memory of a worker       {damage.memory / 1e6:.0f} MB at most",
            f"lines in all logs        {damage.lines}",
            f"same processes           {damage.same}",
            "attacks, MB              "
            + ", ".join(f"{k} {v / 1e6:.1f}" for k, v in sorted(damage.attacks.items())),
            f"on {share} cores",
        ]
    )
