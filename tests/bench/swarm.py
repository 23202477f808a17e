"""Many clients in one process that costs little: raw sockets, epoll, whole reads.

    python tests/bench/swarm.py HOST PORT --clients 200 [--in-flight 8]

Connects the clients, with a websocket each, and says so in a line of JSON, then takes
commands from standard input, a line of JSON for a line:

    {"do": "broadcast", "in_a_row": 10, "seconds": 3}
        one client asks for so many events to all, the next does when all have them
    {"do": "echo", "seconds": 3}
        each client sends an event, and the next one when it has the ack

Pings are answered all the time. The end of standard input ends it. With ``--query`` they ask as
other clients do: those of Python have the transport first, and get no offsets.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Callable

from client import Session
from frames import PING, PONG, TEXT, Failure, first_frame, frame

READ_SIZE = 16384
#: Reads of which it is remembered what was in them: clients of one worker get the same.
MOST_KNOWN = 1000
#: Seconds that one set-up may take, and the share of the clients that may fail it.
SET_UP_TIMEOUT = 2.0
SET_UP_FAILURES = 0.5
#: Clients that have two descriptors each until asyncio has had a turn to close its own.
DETACHED_AT_A_TIME = 100
#: Seconds without anything to read after which a command has failed.
PATIENCE = 30.0

#: With which a text frame begins.
TEXT_HEAD = b"\x81"

PAYLOAD = "x" * 64
PONG_FRAME = frame(TEXT, b"3")


def event(name: str, *args: Any, ack: str = "") -> bytes:
    """What a client sends to emit."""
    return frame(TEXT, f"42{ack}{json.dumps([name, *args])}".encode())


class Swarm:
    """The connected clients; each is known by the descriptor of its websocket."""

    def __init__(self, websockets: dict[socket.socket, bytes]) -> None:
        """:param websockets: with what was read from each already."""
        self._websockets = {sock.fileno(): sock for sock in websockets}
        self.clients = list(self._websockets)
        self._epoll = select.epoll()
        for sock in websockets:
            sock.setblocking(False)
            self._epoll.register(sock, select.EPOLLIN)
        #: By client, the beginning of a frame.
        self._rest: dict[int, bytes] = {}
        self.expect(b"nothing")
        for sock, data in websockets.items():
            if data:
                self._take_apart(sock.fileno(), data)

    def expect(self, message: bytes) -> None:
        """Count this message from now on, with an offset at its end or without."""
        self._message, self._with_offset = message, message[:-1] + b',"'
        #: Nearly all reads are one of these, and cost no more than the look.
        self._known: dict[bytes, int] = {}

    def send(self, client: int, data: bytes) -> None:
        if os.write(client, data) != len(data):
            raise Failure("a client could not send")

    def read(self, timeout: float) -> Iterator[tuple[int, int]]:
        """Wait, and read once from each: clients with how many of the messages came."""
        ready = self._epoll.poll(timeout)
        if not ready:
            raise Failure(f"nothing came for {timeout:g} s")
        known, rest, read = self._known, self._rest, os.read
        for fd, _ in ready:
            data = read(fd, READ_SIZE)
            count = known.get(data)
            if count is None or fd in rest:
                whole = fd not in rest
                count = self._take_apart(fd, data)
                if count and whole and fd not in rest and data.count(TEXT_HEAD) == count:
                    if len(known) > MOST_KNOWN:
                        known.clear()
                    known[data] = count  # nothing else was in it
            if count:
                yield fd, count

    def _take_apart(self, fd: int, data: bytes) -> int:
        """Answer pings; how many of the messages there were."""
        if not data:
            raise Failure("a client was cut off")
        data = self._rest.pop(fd, b"") + data
        count = 0
        while (found := first_frame(data)) is not None:
            opcode, payload, size = found
            data = data[size:]
            if payload == self._message or payload.startswith(self._with_offset):
                count += 1
            elif opcode == TEXT and payload == b"2":
                self.send(fd, PONG_FRAME)
            elif opcode == PING:
                self.send(fd, frame(PONG, payload))
            elif opcode != TEXT or not payload.startswith((b"4", b"6")):
                raise Failure(f"unexpected {payload[:40]!r} with opcode {opcode}")
        if data:
            self._rest[fd] = data
        return count

    def wait_for_command(self) -> str:
        """The next line of standard input, empty at its end; pings are answered meanwhile."""
        waiting = select.poll()
        waiting.register(sys.stdin, select.POLLIN)
        waiting.register(self._epoll, select.POLLIN)
        while True:
            for fd, _ in waiting.poll():
                if fd == sys.stdin.fileno():
                    return sys.stdin.readline()
                for _ in self.read(0):
                    pass


def broadcast(swarm: Swarm, in_a_row: int, seconds: float) -> dict[str, Any]:
    swarm.expect(f'42["news","{PAYLOAD}"]'.encode())
    asking = event("broadcast", in_a_row, PAYLOAD)
    rounds: list[tuple[float, float]] = []
    began = now = time.monotonic()
    while not rounds or now < began + seconds:
        round_began = now
        swarm.send(swarm.clients[len(rounds) % len(swarm.clients)], asking)
        missing = in_a_row * len(swarm.clients)
        while missing > 0:
            for _, count in swarm.read(PATIENCE):
                missing -= count
        if missing:
            raise Failure(f"{-missing} deliveries too many")
        now = time.monotonic()
        rounds.append((round_began, now))
    deliveries = len(rounds) * in_a_row * len(swarm.clients)
    return {"count": deliveries, "elapsed": now - began, "rounds": rounds}


def echo(swarm: Swarm, seconds: float) -> dict[str, Any]:
    swarm.expect(b'431["hello"]')
    sending = event("echo", "hello", ack="1")
    for client in swarm.clients:
        swarm.send(client, sending)
    echoes, waiting = 0, len(swarm.clients)
    began = now = time.monotonic()
    while waiting:
        for client, _ in swarm.read(PATIENCE):
            echoes += 1
            if now < began + seconds:
                swarm.send(client, sending)
            else:
                waiting -= 1
        now = time.monotonic()
    return {"count": echoes, "elapsed": now - began}


COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {"broadcast": broadcast, "echo": echo}


async def set_up(host: str, port: int, query: str) -> tuple[Session, int]:
    """A connected client, and the process that has it."""
    session = Session(host, port, query=query)

    async def steps() -> int:
        await session.connect_websocket()
        return int(await session.ask("worker"))

    try:
        return session, await asyncio.wait_for(steps(), SET_UP_TIMEOUT)
    except BaseException:
        session.close()
        raise


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def connect(
    host: str, port: int, clients: int, in_flight: int, query: str
) -> tuple[Swarm, dict[str, Any]]:
    """The swarm, and what there is to say about it."""
    connected: dict[Session, asyncio.Task[str]] = {}
    by_worker: Counter[int] = Counter()
    failures: Counter[str] = Counter()
    places = iter(range(clients))

    async def fill() -> None:
        for _ in places:
            while True:
                try:
                    session, worker = await set_up(host, port, query)
                    break
                except (Failure, OSError, asyncio.TimeoutError) as error:
                    failures[str(error) or type(error).__name__] += 1
                    if sum(failures.values()) > clients * SET_UP_FAILURES:
                        raise Failure(f"clients cannot connect: {dict(failures)}") from error
            connected[session] = asyncio.create_task(session.receive())  # answers pings
            by_worker[worker] += 1

    filling = [asyncio.create_task(fill()) for _ in range(in_flight)]
    try:
        await asyncio.gather(*filling)
    finally:
        await end(filling)
    await end(connected.values())
    websockets: dict[socket.socket, bytes] = {}
    for session in connected:
        websockets.update([session.websocket.detach()])
        if len(websockets) % DETACHED_AT_A_TIME == 0:
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    report = {"by_worker": dict(by_worker), "failures": dict(failures)}
    return Swarm(websockets), report


def main() -> None:
    parser = argparse.ArgumentParser(description="Many cheap Socket.IO clients")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--in-flight", type=int, default=8, help="set-ups at a time")
    parser.add_argument("--query", default="EIO=4&transport={}", help="of their requests")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        swarm, report = asyncio.run(connect(**vars(options)))
        print(json.dumps(report), flush=True)
        while line := swarm.wait_for_command():
            command = json.loads(line)
            cpu = time.process_time()
            answer = COMMANDS[command.pop("do")](swarm, **command)
            answer["generator_cpu"] = time.process_time() - cpu
            print(json.dumps(answer), flush=True)
    except (Failure, OSError) as error:
        sys.exit(f"swarm: {error}")


if __name__ == "__main__":
    main()
