"""What each part of an emit's way costs: the constants of docs/design.md, "What it costs".

    python tests/bench/parts.py [--parts relay bridge redis local] [--runs 3]

CPU time of single processes, so that other load changes little; the least of all runs. A message
has one event of 100 bytes. In the part "relay" a message is sent every 2 ms, or 20 at once every
40, to two workers and to others that only take it. One worker passes it over, as it has no client
in the room; the other looks at it, and has nothing to deliver. "bridge" and "redis" start a
redis-server of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import select
import signal
import socket
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import redis
import zmq
from relay_throughput import FIELDS, TOPIC, listening
from servers import HOST, free_port, own_cpu

from supervisor_sio.bridge import bridge as bridge_module
from supervisor_sio.bridge.bridge import Bridge
from supervisor_sio.cluster.members import Members
from supervisor_sio.cluster.rooms import IndexedManager
from supervisor_sio.common import memory_file
from supervisor_sio.common.rundir import ClusterInfo, RunDir
from supervisor_sio.relay.looped import LoopSubscriber
from supervisor_sio.relay.message import RelayMessage
from supervisor_sio.relay.methods import BRIDGE
from supervisor_sio.relay.proxy import Relay
from supervisor_sio.relay.publisher import Publisher
from supervisor_sio.relay.threaded import ThreadSubscriber
from supervisor_sio.router.membership import Membership

SECONDS = 1.5
#: Processes that take what the relay sends, beside the two workers.
CROWDS = (0, 30)
#: Messages at once, and seconds between.
PACES = ((1, 0.002), (20, 0.04))
RECEIVERS = (1, 10, 50)
PACKET = json.dumps(["news", "x" * 88], separators=(",", ":")).replace("[", "2[", 1)
TAGS = [f"{number:08x}" for number in range(3200)]

Report = Callable[[str, float], None]
Process = Any


# --- the relay: each process says how much CPU time it took ---------------------------


def timed(told: Any, name: str, started: Any) -> None:
    """Wait for the time that is measured, and tell of it."""
    started.wait()
    before = time.process_time()
    time.sleep(SECONDS + 1)
    told.put((name, time.process_time() - before))


def relaying(run_dir: RunDir, started: Any, told: Any) -> None:
    xsub, xpub = listening(run_dir.xsub), listening(run_dir.xpub)
    relay = Relay(run_dir.xsub, xsub.detach(), run_dir.xpub, xpub.detach())
    timed(told, "relay", started)
    while relay.alive:
        time.sleep(1)


def publishing(run_dir: RunDir, started: Any, told: Any, at_once: int, pause: float) -> None:
    publisher = Publisher(run_dir, ClusterInfo(), "publisher")
    ThreadSubscriber(publisher, run_dir, hears_all=False).start()
    calls: list[Callable[[], None]] = []
    if at_once > 1:
        publisher.turn = lambda: calls.append

    def emit() -> None:
        for _ in range(at_once):
            publisher.publish(None, FIELDS, (PACKET,))
        while calls:
            calls.pop()()

    while not started.is_set():
        emit()
        time.sleep(pause)
    rounds = int(SECONDS / pause)
    used = []
    for do in (emit, lambda: None):  # the second: what waiting costs
        before = time.process_time()
        for _ in range(rounds):
            do()
            time.sleep(pause)
        used.append(time.process_time() - before)
        if do is emit:
            told.put(("messages", rounds * at_once))
    told.put(("emit", used[0] - used[1]))
    time.sleep(60)


def receiving(
    run_dir: RunDir, started: Any, told: Any, name: str, rooms: Container[int] | None
) -> None:
    publisher = Publisher(run_dir, ClusterInfo(), name)

    async def main() -> None:
        subscriber = LoopSubscriber(publisher, run_dir, since=time.monotonic())
        subscriber.rooms = rooms
        subscriber.start(lambda message: None, lambda error: None)
        while not started.is_set():
            await asyncio.sleep(0.02)
        received, used = subscriber.received, []
        for seconds in (SECONDS + 1, SECONDS):  # the second: while nothing comes
            before = time.process_time()
            await asyncio.sleep(seconds)
            used.append((time.process_time() - before) / seconds)
        told.put((f"{name} messages", subscriber.received - received))
        told.put((name, (used[0] - used[1]) * (SECONDS + 1)))
        await asyncio.sleep(60)

    asyncio.run(main())


def taking(run_dir: RunDir, size: int) -> None:
    context, poller = zmq.Context(), zmq.Poller()
    for _ in range(size):
        sock = context.socket(zmq.SUB)
        sock.setsockopt(zmq.SUBSCRIBE, TOPIC)
        sock.connect(f"ipc://{run_dir.xpub}")
        poller.register(sock, zmq.POLLIN)
    while True:
        for sock, _ in poller.poll():
            sock.recv(copy=False)


def relay_once(at_once: int, pause: float, crowd: int) -> dict[str, float]:
    context = multiprocessing.get_context("fork")
    started, told = context.Event(), context.Queue()
    with tempfile.TemporaryDirectory(prefix="sio-") as directory:
        run_dir = RunDir(directory)
        targets: list[tuple[Any, ...]] = [
            (relaying, started, told),
            (publishing, started, told, at_once, pause),
            (receiving, started, told, "passed over", frozenset()),
            (receiving, started, told, "looked at", None),
        ]
        targets += [(taking, crowd)] if crowd else []
        processes: list[Process] = []
        try:
            for target, *args in targets:
                process = context.Process(target=target, args=(run_dir, *args), daemon=True)
                process.start()
                processes.append(process)
                time.sleep(0.3)
            time.sleep(1)
            started.set()
            found = dict(told.get(timeout=60) for _ in range(7))
        finally:
            for process in processes:
                process.kill()
                process.join()
    messages = found["messages"]
    assert found["passed over messages"] > 0.9 * messages, found
    assert found["looked at messages"] > 0.9 * messages, found
    names = ("emit", "relay", "passed over", "looked at")
    return {name: found[name] / messages * 1e6 for name in names}


def relay_part(report: Report) -> None:
    for at_once, pause in PACES:
        for crowd in CROWDS:
            for name, value in relay_once(at_once, pause, crowd).items():
                report(f"{name}, {at_once} at once, {crowd + 2} workers", value)


# --- the bridge --------------------------------------------------------------------


def redis_server(directory: str) -> tuple[Any, int]:
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", HOST, "--save", ""]
    process = psutil.Popen([*command, "--logfile", str(Path(directory) / "log")])
    client = redis.Redis(port=port)
    for _ in range(100):
        try:
            client.ping()
            return process, port
        except redis.ConnectionError:
            time.sleep(0.05)
    process.kill()
    sys.exit("redis-server does not start")


def a_bridge(run_dir: RunDir, port: int) -> Bridge:
    """Without threads."""
    files = [memory_file.write(name, b"") for name in memory_file.HOST_FILES]
    with mock.patch.object(bridge_module, "ThreadSubscriber"):
        bridge = Bridge(f"redis://{HOST}:{port}/0", run_dir, ClusterInfo(), files, lambda _: None)
    bridge.set_members([[tag, False, ["socketio"], False] for tag in TAGS[:32]])
    bridge._resumed = True
    return bridge


def each(count: int, do: Callable[[int], object]) -> float:
    """Microseconds."""
    before = time.process_time()
    for number in range(count):
        do(number)
    return (time.process_time() - before) / count * 1e6


def bridge_part(report: Report) -> None:
    count = 5000
    with tempfile.TemporaryDirectory(prefix="sio-") as directory:
        process, port = redis_server(directory)
        try:
            here, there = (a_bridge(RunDir(directory), port) for _ in range(2))
            raw = RelayMessage(TAGS[0], 1, FIELDS, (PACKET,)).pack()

            def take(number: int) -> None:
                message = RelayMessage.unpack(raw)
                message.sequence = number + 1
                here._from_relay(message)

            report("bridge, sent: read and kept", each(count, take))
            broker = here._queue._broker
            messages: list[bytes] = []
            while len(messages) < count:
                messages += here._stream.take(100)
            report("bridge, message in Redis, bytes", len(messages[-1]))
            one = each(1000, lambda number: broker.publish(messages[number : number + 1]))
            report("bridge, sent: to Redis, one by one", one)
            many = each(
                50, lambda number: broker.publish(messages[number * 100 : number * 100 + 100])
            )
            report("bridge, sent: to Redis, 100 at once", many / 100)
            subscription = there._queue._broker.subscribe()
            assert subscription.get_message(timeout=1)
            broker.publish(messages[:2000])
            time.sleep(0.3)
            get = each(2000, lambda _: subscription.get_message(timeout=1))
            report("bridge, received: from Redis", get)
            subscription.close()
            passed = each(count, lambda number: there._from_queue(messages[number]))
            assert there.received == count, there.received
            report("bridge, received: read and passed on", passed)
            own = each(count, lambda number: here._from_queue(messages[number]))
            report("bridge, received: its own", own)
            fields = {**FIELDS, "request": 1, "to": TAGS[100]}
            for number in range(count):
                alone = RelayMessage(TAGS[1], number + 1, fields, (PACKET,))
                alone.stream = BRIDGE
                here._from_relay(alone)
            messages = []
            while len(messages) < count:
                messages += here._stream.take(100)
            there._take_members("bridge-3", [[TAGS[100], True, ["socketio"]]], [])
            skipped = each(count, lambda number: there._from_queue(messages[number]))
            assert there.received == count, there.received
            report("bridge, received: for another host", skipped)
            said: list[bytes] = []
            here._queue.say = said.append  # type: ignore[method-assign]
            report(
                "bridge, beat of 32 workers: sent",
                each(500, lambda _: here._send_members(here._here)),
            )
            report("bridge, beat of 32 workers, bytes", len(said[-1]))
            beats = each(500, lambda number: there._from_queue(said[number]))
            report("bridge, beat of 32 workers: received", beats)
            for bridge in (here, there):
                bridge._publisher.close()
        finally:
            process.kill()
            process.wait()


# --- Redis -------------------------------------------------------------------------


def draining(port: int, channel: str, receivers: int, ready: Any) -> None:
    poll = select.epoll()
    socks: dict[int, socket.socket] = {}
    for _ in range(receivers):
        sock = socket.create_connection((HOST, port))
        sock.sendall(f"SUBSCRIBE {channel}\r\n".encode())
        sock.recv(1000)
        sock.setblocking(False)
        socks[sock.fileno()] = sock
        poll.register(sock, select.EPOLLIN)
    ready.set()
    while True:
        for descriptor, _ in poll.poll():
            socks[descriptor].recv(1 << 18)


def redis_part(report: Report) -> None:
    context = multiprocessing.get_context("fork")
    data = b"x" * 400
    with tempfile.TemporaryDirectory(prefix="sio-") as directory:
        process, port = redis_server(directory)
        client = redis.Redis(port=port)
        try:
            for receivers in RECEIVERS:
                for at_once in (1, 100):
                    ready = context.Event()
                    args = (port, "bench", receivers, ready)
                    drain = context.Process(target=draining, args=args, daemon=True)
                    drain.start()
                    ready.wait(20)
                    before, count, until = own_cpu(process), 0, time.monotonic() + SECONDS
                    while time.monotonic() < until:
                        pipeline = client.pipeline(transaction=False)
                        for _ in range(at_once):
                            pipeline.publish("bench", data)
                        pipeline.execute()
                        count += at_once
                    used = own_cpu(process) - before
                    drain.kill()
                    drain.join()
                    name = f"Redis, {at_once} at once, {receivers} receivers"
                    report(name, used / count * 1e6)
        finally:
            process.kill()
            process.wait()


# --- what takes place in one process -------------------------------------------------


def local_part(report: Report) -> None:
    manager = IndexedManager()
    for number in range(1000):
        manager.basic_enter_room(f"sid{number}", "/", None, eio_sid=f"eio{number}")

    def join(number: int) -> None:
        manager.basic_enter_room(f"sid{number % 1000}", "/", f"room{number}")
        manager.basic_leave_room(f"sid{number % 1000}", "/", f"room{number}")

    report("a room entered and left", each(20000, join))
    rows = [[tag, True, ["socketio"], False] for tag in TAGS]
    membership, members = Membership(), Members()
    membership.set(rows)
    names = dict.fromkeys(TAGS, True)

    def change(number: int) -> None:
        rows[0] = [f"{number:08x}x", *rows[0][1:]]
        membership.set(rows)
        membership.since(membership.version - 1)

    report("3,200 workers, one changes: router", each(200, change))
    report("3,200 workers, one changes: each worker", each(200, lambda _: members.set(names)))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    copy = Members()
    copy.set({f"{tag} "[:8]: True for tag in TAGS})
    report(
        "a worker that another knows of, bytes",
        (tracemalloc.get_traced_memory()[0] - before) / 3200,
    )
    tracemalloc.stop()


PARTS: dict[str, Callable[[Report], None]] = {
    "relay": relay_part,
    "bridge": bridge_part,
    "redis": redis_part,
    "local": local_part,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="What each part of an emit's way costs")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started ends, too
    for part in options.parts:
        found: dict[str, list[float]] = {}
        for _ in range(options.runs):
            measured: dict[str, float] = {}
            PARTS[part](measured.__setitem__)
            for name, value in measured.items():
                found.setdefault(name, []).append(value)
        for name, values in found.items():
            print(f"{name:50}{min(values):10.1f}", flush=True)


if __name__ == "__main__":
    main()
