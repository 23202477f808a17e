"""Messages from one publisher to two subscribers: the relay beside a bare zmq.proxy.

    python tests/bench/relay_throughput.py [--messages 60000] [--runs 3]

The same bytes in all. The bare sides number, keep, check and decode nothing, and have
no high-water mark. The first sends three frames (topic, header, body) as applications
of pyzmq do, with send_multipart and recv_multipart; the second sends one frame, which
is the fastest that pyzmq can do. Ours is what a worker does with an emit that is already
encoded: it is numbered, kept, sent in one frame, received, checked and put in order.
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
from typing import Any

import zmq

from supervisor_sio.relay.proxy import Relay
from supervisor_sio.relay.publisher import Publisher
from supervisor_sio.rundir import ClusterInfo, RunDir

SUBSCRIBERS = 2
PACKET = '2["news",' + "x" * 90 + "]"
FIELDS = {"method": "emit", "namespace": "/", "packet": "socketio.packet.Packet", "room": "red"}
TOPIC = b"socketio\0*"
HEAD, BODY = b"h" * 110, b"b" * 104
TIMEOUT = 120.0

Queue = Any


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
    done.put(("publisher", began, time.process_time()))
    time.sleep(TIMEOUT)


def frame_subscriber(run_dir: RunDir, messages: int, ready: Any, done: Queue) -> None:
    sock = bare_socket(zmq.Context(), zmq.SUB)
    sock.setsockopt(zmq.SUBSCRIBE, TOPIC)
    sock.connect(f"ipc://{run_dir.xpub}")
    sock.recv()
    ready.release()
    count = 0
    while count < messages:
        count += len(sock.recv()) > len(TOPIC)
    done.put(("subscriber", time.monotonic(), time.process_time()))


def bare_publisher(run_dir: RunDir, messages: int, started: Any, done: Queue) -> None:
    sock = bare_socket(zmq.Context(), zmq.PUB)
    sock.connect(f"ipc://{run_dir.xsub}")
    while not started.wait(0.02):
        sock.send_multipart((TOPIC, b"probe", b""))
    began = time.monotonic()
    for _ in range(messages):
        sock.send_multipart((TOPIC, HEAD, BODY), zmq.NOBLOCK)
    done.put(("publisher", began, time.process_time()))
    time.sleep(TIMEOUT)


def bare_subscriber(run_dir: RunDir, messages: int, ready: Any, done: Queue) -> None:
    sock = bare_socket(zmq.Context(), zmq.SUB)
    sock.setsockopt(zmq.SUBSCRIBE, TOPIC)
    sock.connect(f"ipc://{run_dir.xpub}")
    sock.recv_multipart()
    ready.release()
    count = 0
    while count < messages:
        count += sock.recv_multipart()[1] != b"probe"
    done.put(("subscriber", time.monotonic(), time.process_time()))


# --- ours ---------------------------------------------------------------------------


def our_proxy(run_dir: RunDir) -> None:
    xsub, xpub = listening(run_dir.xsub), listening(run_dir.xpub)
    relay = Relay(run_dir.xsub, xsub.detach(), run_dir.xpub, xpub.detach())
    while relay.alive:
        time.sleep(1)


def our_publisher(run_dir: RunDir, messages: int, started: Any, done: Queue) -> None:
    from supervisor_sio.relay.subscriber import ThreadSubscriber

    publisher = Publisher(run_dir, ClusterInfo(), "publisher")
    ThreadSubscriber(publisher, run_dir, hears_all=False).start()
    while not started.wait(0.02):
        publisher.publish(None, {"method": "probe"})
    began = time.monotonic()
    for _ in range(messages):
        publisher.publish(None, FIELDS, (PACKET,))
    done.put(("publisher", began, time.process_time()))
    time.sleep(TIMEOUT)


def our_subscriber(run_dir: RunDir, messages: int, ready: Any, done: Queue) -> None:
    from supervisor_sio.relay.subscriber import GreenSubscriber

    publisher = Publisher(run_dir, ClusterInfo(), f"subscriber{os.getpid()}")
    subscriber = GreenSubscriber(publisher, run_dir, since=time.monotonic())
    count = 0
    for message in subscriber.messages():
        if not count:
            ready.release()
            count = 1
        if message.fields["method"] == "emit":
            assert message.packets == [PACKET]
            count += 1
            if count > messages:
                break
    again = f"{subscriber.dropped} dropped"
    done.put((again, time.monotonic(), time.process_time()))


def measure(parts: tuple[Any, Any, Any], messages: int) -> tuple[float, dict[str, float]]:
    """Messages a second, and microseconds of CPU per message of each process."""
    proxy, publisher, subscriber = parts
    context = multiprocessing.get_context("fork")
    started, ready, done = context.Event(), context.Semaphore(0), context.Queue()
    processes = []
    with tempfile.TemporaryDirectory(prefix="sio-") as directory:
        run_dir = RunDir(directory)

        def start(target: Any, *args: Any) -> None:
            process = context.Process(target=target, args=(run_dir, *args), daemon=True)
            process.start()
            processes.append(process)

        start(proxy)
        for _ in range(SUBSCRIBERS):
            start(subscriber, messages, ready, done)
        start(publisher, messages, started, done)
        try:
            for _ in range(SUBSCRIBERS):
                if not ready.acquire(timeout=20):
                    sys.exit("a subscriber hears nothing")
            started.set()
            results = [done.get(timeout=TIMEOUT) for _ in range(SUBSCRIBERS + 1)]
        finally:
            for process in processes:
                process.kill()
                process.join()
    cpu = {"publisher": 0.0, "subscriber": 0.0}
    began = ended = 0.0
    for name, at, seconds in results:
        if name == "publisher":
            began = at
            cpu["publisher"] = seconds / messages * 1e6
        else:
            ended = max(ended, at)
            cpu["subscriber"] = max(cpu["subscriber"], seconds / messages * 1e6)
            assert "dropped" not in name or name == "0 dropped", name
    return messages / (ended - began), cpu


def main() -> None:
    parser = argparse.ArgumentParser(description="The relay beside a bare zmq.proxy")
    parser.add_argument("--messages", type=int, default=60000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    sides = {
        "bare, 3 frames": (bare_proxy, bare_publisher, bare_subscriber),
        "bare, 1 frame": (bare_proxy, frame_publisher, frame_subscriber),
        "relay": (our_proxy, our_publisher, our_subscriber),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    print(f"{'':16}{'messages/s':>12}{'publisher µs':>14}{'subscriber µs':>15}")
    for _ in range(options.runs):
        for name, parts in sides.items():
            rate, cpu = measure(parts, options.messages)
            rates[name].append(rate)
            print(f"{name:16}{rate:12.0f}{cpu['publisher']:14.1f}{cpu['subscriber']:15.1f}")
    relay = statistics.median(rates.pop("relay"))
    for name, values in rates.items():
        median = statistics.median(values)
        print(f"median: relay {relay:.0f}, {name} {median:.0f}, ratio {relay / median:.2f}")


if __name__ == "__main__":
    main()
