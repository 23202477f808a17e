"""Emits from another process to the clients of two workers: rate and CPU per message.

    python tests/bench/relay.py [--messages 20000] [--rate 0]

A write-only ZmqManager emits to a room with one client on each worker; the clients
check that every message arrives once and in order. Meanwhile HTTP requests show
whether the workers still serve anything else. `--rate` is in messages a second, 0 for
as fast as it can.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import threading
import time
from dataclasses import dataclass, field

import psutil
from client import Session
from frames import Failure
from servers import HOST, START_TIMEOUT, Server, answers, own_cpu, supervised_cluster

ROOM = "bench"
RUN_DIR_VARIABLE = "SUPERVISOR_SIO_RUN_DIR"
PROBE_TIMEOUT = 30.0


def emit(messages: int, rate: float) -> None:
    """The emitting process. Says "ready", waits for a line, emits, waits for another line."""
    from supervisor_sio import ZmqManager

    manager = ZmqManager(write_only=True)
    manager.emit("tick", -1, namespace="/", room=ROOM)  # connects
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    for number in range(messages):
        manager.emit("tick", number, namespace="/", room=ROOM)
        if rate:
            ahead = began + number / rate - time.monotonic()
            if ahead > 0.001:
                time.sleep(ahead)
    elapsed = time.monotonic() - began
    sys.stdin.readline()  # what sends in the background needs the process to live
    print(elapsed, flush=True)


@dataclass
class Receiver:
    session: Session
    numbers: list[int] = field(default_factory=list)
    last: float = 0.0

    async def receive(self, messages: int) -> None:
        while not self.numbers or self.numbers[-1] != messages - 1:
            packet = await self.session.receive()
            if packet.startswith('42["tick",'):
                number = json.loads(packet[2:])[1]
                if number >= 0:
                    self.numbers.append(number)
                    self.last = time.monotonic()

    @property
    def in_order(self) -> bool:
        return all(a < b for a, b in zip(self.numbers, self.numbers[1:]))


async def connect(port: int) -> Receiver:
    session = Session(HOST, port)
    await session.connect_polling()
    await session.upgrade()
    session.send("421" + json.dumps(["join", ROOM]))
    while not (await session.receive()).startswith("431"):
        pass
    return Receiver(session)


async def one_on_each_worker(port: int, workers: int) -> list[Receiver]:
    """A sid starts with the tag of its worker."""
    receivers: dict[str, Receiver] = {}
    for _ in range(10 * workers):
        receiver = await connect(port)
        tag = receiver.session.sid.split(".")[0]
        if tag in receivers:
            receiver.session.close()
        receivers.setdefault(tag, receiver)
        if len(receivers) == workers:
            return list(receivers.values())
    raise Failure(f"clients on {len(receivers)} of {workers} workers")


class Prober(threading.Thread):
    """Asks for a page again and again, in a thread of its own; keeps the longest wait."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._done = threading.Event()
        self.longest = 0.0

    def run(self) -> None:
        while not self._done.wait(0.05):
            began = time.monotonic()
            answers(self._port, PROBE_TIMEOUT)
            self.longest = max(self.longest, time.monotonic() - began)

    def stop(self) -> None:
        self._done.set()
        self.join()


async def measure(server: Server, messages: int, rate: float, timeout: float) -> None:
    workers = server.parts["workers"]
    receivers = await one_on_each_worker(server.port, len(workers))
    emitter = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        *("--emit", "--messages", str(messages), "--rate", str(rate)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, RUN_DIR_VARIABLE: workers[0].environ()[RUN_DIR_VARIABLE]},
    )
    assert emitter.stdin is not None and emitter.stdout is not None
    try:
        await asyncio.wait_for(emitter.stdout.readline(), START_TIMEOUT)
        await asyncio.sleep(0.5)
        process = psutil.Process(emitter.pid)
        before, emitter_before = server.cpu(), own_cpu(process)
        began = time.monotonic()
        emitter.stdin.write(b"go\n")
        prober = Prober(server.port)
        prober.start()
        tasks = [asyncio.ensure_future(receiver.receive(messages)) for receiver in receivers]
        await asyncio.wait(tasks, timeout=timeout)
        for task in tasks:
            task.cancel()
        after = server.cpu()
        cpu = {part: after[part] - before[part] for part in after}
        cpu["emitter"] = own_cpu(process) - emitter_before
        emitter.stdin.write(b"end\n")
        line = await asyncio.wait_for(emitter.stdout.readline(), START_TIMEOUT)
        emitting = float(line)
        await asyncio.get_running_loop().run_in_executor(None, prober.stop)
    finally:
        if emitter.returncode is None:
            emitter.terminate()
        await emitter.wait()

    delivered = sum(len(receiver.numbers) for receiver in receivers)
    if not delivered:
        sys.exit("nothing was delivered")
    elapsed = max(receiver.last for receiver in receivers) - began
    print(f"emitted   {messages} in {emitting:.2f} s")
    print(
        f"delivered {delivered} of {messages * len(receivers)} in {elapsed:.2f} s, "
        f"{delivered / elapsed:.0f}/s, "
        + ("in order" if all(receiver.in_order for receiver in receivers) else "NOT in order")
    )
    print(f"longest wait for a page meanwhile: {prober.longest:.2f} s")
    for part, seconds in cpu.items():
        print(f"{part:12}{seconds * 1e6 / messages:8.1f} µs of CPU per emit")
    for receiver in receivers:
        receiver.session.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Emits through the relay")
    parser.add_argument("--messages", type=int, default=20000)
    parser.add_argument("--rate", type=float, default=0, help="emits a second, 0: no limit")
    parser.add_argument("--timeout", type=float, default=60, help="seconds to wait for all")
    parser.add_argument("--emit", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.emit:
        emit(options.messages, options.rate)
        return
    with supervised_cluster(workers=2) as server:
        asyncio.run(measure(server, options.messages, options.rate, options.timeout))


if __name__ == "__main__":
    main()
