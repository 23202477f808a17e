"""Hundreds of workers: the router tells each of all, and supervisord of them, and goes on."""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import threading
import time
from typing import Any

import psutil
import pytest
from cluster.conftest import ClusterFactory
from cluster.harness import wait_until
from cluster.modes import NO_WORKER
from cluster.raw import Poller

from supervisor_sio.common import channel, figures, handover
from supervisor_sio.common.handover import Handover

pytestmark = [NO_WORKER, pytest.mark.long]

FIGURES = {"type": "load", **figures.report({})}
COUNT = 500


class Simulated:
    """Workers that do nothing but say how they are and hear of each other."""

    def __init__(self, path: str, count: int) -> None:
        self.socks = [self._join(path, number) for number in range(count)]
        self.known: list[dict[str, Any]] = [{} for _ in self.socks]
        self.bytes = 0
        self.packets = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _join(self, path: str, number: int) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        while True:  # the backlog may be full
            with contextlib.suppress(BlockingIOError):
                sock.connect(path)
                break
        tag = f"sim-{number:04}"
        channel.send(
            sock,
            {"type": "hello", "version": channel.VERSION, "tag": tag, "name": f"simulated:{tag}"},
        )
        channel.send(sock, FIGURES)
        channel.send(sock, {"type": "ready", "channels": [f"{tag}-0123456789abcdef"]})
        return sock

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for number, sock in enumerate(self.socks):
                selector.register(sock, selectors.EVENT_READ, number)
            report = time.monotonic() + 1
            while not self._ended.is_set():
                for key, _ in selector.select(0.1):
                    if not self._read(key.data):
                        selector.unregister(key.fileobj)
                if time.monotonic() > report:
                    report += 1
                    for sock in self.socks:
                        with contextlib.suppress(OSError):
                            channel.send(sock, FIGURES)

    def _read(self, number: int) -> bool:
        """Whether the router has left the channel open."""
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = handover.receive(self.socks[number])
                if packet is None:
                    return False
                message, descriptors = packet
                channel.close_all(descriptors)
                self.packets += 1
                if not isinstance(message, Handover) and message["type"] == "members":
                    self.bytes += len(json.dumps(message))
                    known = {} if message["first"] else dict(self.known[number])
                    known.update((row[0], row) for row in message["members"])
                    for tag in message["gone"]:
                        known.pop(tag, None)
                    self.known[number] = known
        return True

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        for sock in self.socks:
            sock.close()


def test_five_hundred_workers(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=1).start()
    (real,) = cluster.workers()
    poller = Poller(cluster.port)
    poller.open()
    poller.join()
    router = psutil.Process(cluster.router_pid)

    def cpu() -> float:
        times = router.cpu_times()
        return float(times.user + times.system)

    def figures() -> Any:
        return next(row for row in cluster.workers() if row["name"] == real["name"])

    before = cpu()
    simulated = Simulated(str(cluster.run_dir / "router.sock"), COUNT)
    try:
        wait_until(lambda: len(cluster.workers("ready")) == COUNT + 1, 30, "status shows all")
        wait_until(
            lambda: all(len(known) == COUNT + 1 for known in simulated.known), 30, "all know all"
        )
        joined = cpu() - before
        # Status moves on, and clients are served.
        wait_until(lambda: figures()["opened"] == 1, 10, "its session is in the figures")
        for _ in range(20):
            assert poller.call("echo", "there") == "there"
        wait_until(lambda: figures()["events_in"] >= 20, 5, "the figures are of this second")
        # One that leaves is a few bytes for each of the others, not a new list.
        told = simulated.bytes
        simulated.socks[0].shutdown(socket.SHUT_RDWR)
        simulated.known[0] = {}
        wait_until(
            lambda: all(len(known) == COUNT for known in simulated.known[1:]), 10, "it is gone"
        )
        assert simulated.bytes - told < COUNT * 200
        assert joined < 10

        def is_quiet() -> bool:
            began, start = cpu(), time.monotonic()
            time.sleep(3)
            idle = (cpu() - began) / (time.monotonic() - start)
            print(f"joined: {joined:.2f} s of CPU, then {idle:.1%} of one")
            return idle < 0.5

        wait_until(is_quiet, 20, "the router does little")
    finally:
        simulated.close()
    wait_until(lambda: len(cluster.workers("ready")) == 1, 20, "they are gone")
