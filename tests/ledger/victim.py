"""What an attack costs its victim: memory, descriptors, log lines, the latency of others."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from typing import Iterator

import psutil
from cluster.harness import Cluster, wait_until
from cluster.raw import Poller

MB = 1024 * 1024


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    return int(psutil.Process(pid).memory_info().rss)


def descriptors(pid: int) -> int:
    return int(psutil.Process(pid).num_fds())


def wait_idle(*pids: int) -> None:
    """Wait for half a second in which each of these processes sleeps most of the time.

    They may have something to do yet, or again. A busy loop runs, or waits for a CPU to run on, as
    long as one looks; how much it gets of that depends on what else the machine does.
    """
    processes = [psutil.Process(pid) for pid in pids]

    def idle() -> bool:
        running = Counter[int]()
        for _ in range(25):
            time.sleep(0.02)
            running.update(p.pid for p in processes if p.status() == psutil.STATUS_RUNNING)
        return all(count < 10 for count in running.values())

    wait_until(idle, 20, "it waits for something")


class PeakMemory:
    """The highest resident memory of a process while the block runs, looked at all the time."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.before = memory(pid)
        self.peak = self.before
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def grown(self) -> int:
        """In bytes."""
        return self.peak - self.before

    def _watch(self) -> None:
        while not self._ended.wait(0.01):
            try:
                self.peak = max(self.peak, memory(self._pid))
            except psutil.Error:
                return


@contextmanager
def log_lines(cluster: Cluster, *names: str) -> Iterator[Callable[[], int]]:
    """How many lines the logs of these names have got since the block began."""
    before = {name: cluster.log(name).count("\n") for name in names}
    yield lambda: sum(cluster.log(name).count("\n") - before[name] for name in names)


#: Seconds for an echo by polling, on a machine that does nothing else.
USUAL_ECHO = 0.005


class Echoes:
    """A client that asks for an echo all the time, and how long each took, in seconds.

    It polls: its requests pass the same HTTP as the strangers'.

    :ivar busy: how many times longer one took before the block, than on a machine that does
        nothing else; 1 at least.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.latencies: list[float] = []
        self.error: BaseException | None = None
        self.busy = 1.0

    def __enter__(self) -> Echoes:
        self._thread.start()
        wait_until(lambda: len(self.latencies) >= 11 or self.error, 30, "the first echoes")
        if self.latencies:
            self.busy = max(1.0, self.percentile(0.5) / USUAL_ECHO)
            self.latencies.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(30)
        if self.error is not None:
            raise self.error

    def percentile(self, part: float) -> float:
        """In seconds, less by as much as the machine is busy."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * part))] / self.busy

    def _run(self) -> None:
        try:
            poller = Poller(self._port)
            poller.open()
            poller.join()
            while not self._ended.is_set():
                began = time.monotonic()
                poller.call("echo", "there")
                self.latencies.append(time.monotonic() - began)
        except BaseException as error:
            self.error = error
