"""Messages from one publisher to two subscribers: the relay beside a bare zmq.proxy.

    python tests/bench/relay_throughput.py [--messages 60000] [--runs 3]

The same bytes in all, as fast as the publisher can. The bare sides number, keep, check
and decode nothing, and have no high-water mark. The first sends three frames (topic,
header, body) as applications of pyzmq do, with send_multipart and recv_multipart; the
second sends one frame, which is the fastest that pyzmq can do. Ours is what a worker
does with an emit that is already encoded: it is numbered, kept, sent in one frame,
received, checked and put in order; in bursts, as a worker emits in one turn of its loop
after another. What the relay drops at its high-water mark is sent
once more, within the time measured; the last column counts that. It cannot be more
messages than a publisher keeps.

CPU is user and system time of the process per message, from the first to the last, with
libzmq's threads; that of the subscriber that needs more. With fewer cores than the four
processes they slow each other down: on the bare sides, too.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
import time
import warnings
from functools import partial
from queue import Empty
from typing import Any, Callable

import psutil
import zmq
from servers import own_cpu

from supervisor_sio.common.rundir import ClusterInfo, RunDir
from supervisor_sio.relay.message import RelayMessage, topic_for_all
from supervisor_sio.relay.proxy import Relay
from supervisor_sio.relay.publisher import Publisher
from supervisor_sio.relay.rooms import hashes_of

SUBSCRIBERS = 2
PACKET = '2["news",' + "x" * 90 + "]"
FIELDS = {"method": "emit", "namespace": "/", "packet": "socketio.packet.Packet", "room": "red"}
HASHES = set(hashes_of(FIELDS))
TOPIC = topic_for_all(ClusterInfo().channel)
WHOLE = RelayMessage("publisher", 1, FIELDS, (PACKET,)).pack()
HEAD, BODY = WHOLE[: -len(PACKET)], WHOLE[-len(PACKET) :]
TIMEOUT = 120.0

Queue = Any


def stay() -> None:
    """Until the parent has seen how much CPU time this process took."""
    time.sleep(TIMEOUT)


def listening(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen(16)
    return sock


# --- bare ---------------------------------------------------------------------------


def bare_socket(context: Any, kind: int) -> Any:
    sock = context.socket(kind)
    sock.setsockopt(zmq.SNDHWM, 0)
    sock.setsockopt(zmq.RCVHWM, 0)
    return sock


def bare_proxy(run_dir: RunDir) -> None:
    context = zmq.Context()
    frontend, backend = bare_socket(context, zmq.XSUB), bare_socket(context, zmq.XPUB)
    frontend.bind(f"ipc://{run_dir.xsub}")
    backend.bind(f"ipc://{run_dir.xpub}")
    zmq.proxy(frontend, backend)


def frame_publisher(run_dir: RunDir, messages: int, started: Any, done: Queue) -> None:
    sock = bare_socket(zmq.Context(), zmq.PUB)
    sock.connect(f"ipc://{run_dir.xsub}")
    while not started.wait(0.02):
        sock.send(TOPIC)
    began = time.monotonic()
    for _ in range(messages):
        sock.send(TOPIC + HEAD + BODY, zmq.NOBLOCK)
    done.put(("publisher", began))
    stay()


def frame_subscriber(run_dir: RunDir, messages: int, ready: Any, done: Queue) -> None:
    sock = bare_socket(zmq.Context(), zmq.SUB)
    sock.setsockopt(zmq.SUBSCRIBE, TOPIC)
    sock.connect(f"ipc://{run_dir.xpub}")
    sock.recv()
    ready.release()
    count = 0
    while count < messages:
        count += len(sock.recv()) > len(TOPIC)
    done.put(("subscriber", time.monotonic()))
    stay()


def bare_publisher(run_dir: RunDir, messages: int, started: Any, done: Queue) -> None:
    sock = bare_socket(zmq.Context(), zmq.PUB)
    sock.connect(f"ipc://{run_dir.xsub}")
    while not started.wait(0.02):
        sock.send_multipart((TOPIC, b"probe", b""))
    began = time.monotonic()
    for _ in range(messages):
        sock.send_multipart((TOPIC, HEAD, BODY), zmq.NOBLOCK)
    done.put(("publisher", began))
    stay()


def bare_subscriber(run_dir: RunDir, messages: int, ready: Any, done: Queue) -> None:
    sock = bare_socket(zmq.Context(), zmq.SUB)
    sock.setsockopt(zmq.SUBSCRIBE, TOPIC)
    sock.connect(f"ipc://{run_dir.xpub}")
    sock.recv_multipart()
    ready.release()
    count = 0
    while count < messages:
        count += sock.recv_multipart()[1] != b"probe"
    done.put(("subscriber", time.monotonic()))
    stay()


# --- ours ---------------------------------------------------------------------------


def our_proxy(run_dir: RunDir) -> None:
    xsub, xpub = listening(run_dir.xsub), listening(run_dir.xpub)
    relay = Relay(run_dir.xsub, xsub.detach(), run_dir.xpub, xpub.detach())
    while relay.alive:
        time.sleep(1)


def our_publisher(
    run_dir: RunDir, messages: int, started: Any, done: Queue, at_once: int = 1
) -> None:
    from supervisor_sio.relay.threaded import ThreadSubscriber

    publisher = Publisher(run_dir, ClusterInfo(), "publisher")
    ThreadSubscriber(publisher, run_dir, hears_all=False).start()
    while not started.wait(0.02):
        publisher.publish(None, {"method": "probe"})
    calls: list[Callable[[], None]] = []
    if at_once > 1:
        publisher.turn = lambda: calls.append
    began = time.monotonic()
    for first in range(0, messages, at_once):
        for _ in range(first, min(first + at_once, messages)):
            publisher.publish(None, FIELDS, (PACKET,))
        while calls:
            calls.pop()()
    done.put(("publisher", began))
    while started.is_set():  # until the parent has seen how much CPU time it took
        time.sleep(0.02)
    done.put(("again", publisher.sent_again))
    stay()


our_bursts = partial(our_publisher, at_once=50)


def our_subscriber(run_dir: RunDir, messages: int, ready: Any, done: Queue) -> None:
    from supervisor_sio.relay.green import GreenSubscriber

    publisher = Publisher(run_dir, ClusterInfo(), f"subscriber{os.getpid()}")
    subscriber = GreenSubscriber(publisher, run_dir, since=time.monotonic())
    # As a worker that has a client in the room: it takes the events of a burst together.
    subscriber.rooms, subscriber.packet = HASHES, FIELDS["packet"]
    count = 0

    def deliver(message: RelayMessage) -> None:
        nonlocal count
        if not count:
            ready.release()
            count = 1
        if message.fields["method"] == "emit":
            assert set(message.packets) == {PACKET}
            count += len(message.packets)
            if count > messages:
                subscriber.close()

    subscriber.run(deliver)
    ended = time.monotonic()
    assert not subscriber.dropped, f"{subscriber.dropped} dropped"
    done.put(("subscriber", ended))
    stay()


class Failure(Exception):
    """A process ended, or waits for ever."""


class Measurement:
    """One run: the processes, and what they tell."""

    def __init__(self, directory: str) -> None:
        self._run_dir = RunDir(directory)
        self._context = multiprocessing.get_context("fork")
        self.processes: list[Any] = []
        self.started = self._context.Event()
        self.ready = self._context.Semaphore(0)
        self.done: Queue = self._context.Queue()

    def start(self, target: Any, *args: Any) -> None:
        process = self._context.Process(target=target, args=(self._run_dir, *args), daemon=True)
        process.start()
        self.processes.append(process)

    def hear(self) -> tuple[str, Any]:
        """What the next process has to tell."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            if any(process.exitcode is not None for process in self.processes):
                raise Failure("a process has ended")
            try:
                name, value = self.done.get(timeout=0.5)
                return name, value
            except Empty:
                pass
        raise Failure("not all messages have come")

    def wait_ready(self) -> None:
        for _ in range(SUBSCRIBERS):
            if not self.ready.acquire(timeout=20):
                raise Failure("a subscriber hears nothing")

    def cpu(self) -> list[float]:
        return [own_cpu(psutil.Process(process.pid)) for process in self.processes]

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


def measure(parts: tuple[Any, Any, Any], messages: int) -> tuple[float, list[float], int]:
    """Messages a second; microseconds of CPU per message of publisher, proxy and
    subscriber; how many messages were sent again."""
    proxy, publisher, subscriber = parts
    with tempfile.TemporaryDirectory(prefix="sio-") as directory:
        run = Measurement(directory)
        try:
            run.start(publisher, messages, run.started, run.done)
            run.start(proxy)
            for _ in range(SUBSCRIBERS):
                run.start(subscriber, messages, run.ready, run.done)
            run.wait_ready()
            before = run.cpu()
            run.started.set()
            told = [run.hear() for _ in range(SUBSCRIBERS + 1)]
            used = [after - sooner for after, sooner in zip(run.cpu(), before)]
            again = 0
            if publisher in (our_publisher, our_bursts):
                run.started.clear()
                again = run.hear()[1]
        finally:
            run.kill()
    (began,) = [value for name, value in told if name == "publisher"]
    ended = max(value for name, value in told if name == "subscriber")
    cpu = [seconds / messages * 1e6 for seconds in (*used[:2], max(used[2:]))]
    return messages / (ended - began), cpu, again


def main() -> None:
    parser = argparse.ArgumentParser(description="The relay beside a bare zmq.proxy")
    parser.add_argument("--messages", type=int, default=60000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    most = ClusterInfo().buffer_messages
    if not 0 < options.messages <= most:
        parser.error(f"--messages is from 1 to {most}, which is what a publisher keeps")
    warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")  # in all: they fork
    sides = {
        "bare, 3 frames": (bare_proxy, bare_publisher, bare_subscriber),
        "bare, 1 frame": (bare_proxy, frame_publisher, frame_subscriber),
        "relay": (our_proxy, our_publisher, our_subscriber),
        "relay, 50 a turn": (our_proxy, our_bursts, our_subscriber),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    print(
        f"{'':16}{'messages/s':>12}{'CPU µs: publisher':>19}{'proxy':>7}{'subscriber':>12}  again"
    )
    for _ in range(options.runs):
        for name, parts in sides.items():
            try:
                rate, cpu, again = measure(parts, options.messages)
            except Failure as failure:
                sys.exit(f"{name}: {failure}")
            rates[name].append(rate)
            print(f"{name:16}{rate:12.0f}{cpu[0]:19.1f}{cpu[1]:7.1f}{cpu[2]:12.1f}{again:7}")
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, median in medians.items():
        print(f"median: {name} {median:.0f}, relay / {name} {medians['relay'] / median:.2f}")


if __name__ == "__main__":
    main()
