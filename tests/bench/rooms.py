"""What an emit to a small room costs all processes together, by the number of workers.

    python tests/bench/rooms.py [--workers 2 4 8 16] [--sizes 1 10] [--times 50 1] [--pm2]

A number of clients, in rooms of one and of ten, spread over the workers as they came. Some of them
have their workers emit to a room each, so many times in a row; the next ones do so when all events
have come. CPU is user and system time of all processes but supervisord, divided by the emits.
Each run measures all sides in turn; then come medians of all runs, and how they compare: ours by
the number of workers, and with the other sides. `--checkout` adds another version of this package.
Ends with 1 if an event does not come.

A client of @socket.io/pm2 connects again when it gets no answer, as a browser does: while pm2's
daemon passes a connection on to a worker, it goes on reading from it, so a request that follows
the first answer quickly is lost. A busy machine shows that in a tenth of all clients.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections import Counter
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Callable

from client import Session
from frames import Failure
from pm2 import pm2_cluster
from servers import HOST, Server, supervised_cluster

PAYLOAD = "x" * 60
PATIENCE = 60.0
#: Emitting clients in a measurement, as the system counts hundredths of a second for each process;
#: and those of them that do so at a time: what idle workers use meanwhile is to be little.
ROUNDS = 500
IN_FLIGHT = 10
#: Clients that connect at a time.
AT_ONCE = 10
#: Seconds after which a client of pm2 that gets no answer connects again, and how often it tries.
NO_ANSWER = 3.0
TRIES = 20
PM2 = "@socket.io/pm2"

Start = Callable[[int], AbstractContextManager[Server]]


async def connect(port: int, rooms: list[str], tries: int) -> Session:
    while True:
        session = Session(HOST, port)
        try:
            await asyncio.wait_for(join(session, rooms), NO_ANSWER if tries > 1 else PATIENCE)
            return session
        except (Failure, asyncio.TimeoutError):
            session.close()
            tries -= 1
            if not tries:
                raise


async def join(session: Session, rooms: list[str]) -> None:
    await session.connect_polling()
    await session.upgrade()
    for room in rooms:
        session.send("421" + json.dumps(["join", room]))
        while not (await session.receive()).startswith("431"):
            pass


async def receive(session: Session, events: int) -> None:
    while events:
        events -= (await session.receive()).startswith('42["news",')


async def emit(sessions: list[Session], size: int, times: int, rounds: int) -> None:
    """From some clients after others, each to a room with others in it."""
    for first in range(0, rounds, IN_FLIGHT):
        expected: Counter[int] = Counter()
        for number in range(first, min(first + IN_FLIGHT, rounds)):
            room = (7 * number + 1) % (len(sessions) // size)
            emitter = sessions[(number * 13) % len(sessions)]
            emitter.send("42" + json.dumps(["emit_to", f"{size}:{room}", times, PAYLOAD]))
            expected.update({member: times for member in range(room * size, (room + 1) * size)})
        receiving = [receive(sessions[member], events) for member, events in expected.items()]
        await asyncio.wait_for(asyncio.gather(*receiving), PATIENCE)


async def measure(
    server: Server, clients: int, sizes: list[int], bursts: list[int], tries: int
) -> dict[tuple[int, int], float]:
    """Microseconds of CPU for an emit, by the size of the room and the emits in a row.

    :param tries: how often a client may try to connect.
    """
    sessions: list[Session] = []
    for first in range(0, clients, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, clients))
        coming = [
            connect(server.port, [f"{size}:{number // size}" for size in sizes], tries)
            for number in numbers
        ]
        sessions += await asyncio.gather(*coming)
    used = {}
    for size in sizes:
        for times in bursts:
            await emit(sessions, size, times, 4)
            rounds = ROUNDS * (5 if times == 1 else 1)
            before = server.counted_cpu()
            await emit(sessions, size, times, rounds)
            used[size, times] = (server.counted_cpu() - before) / (rounds * times) * 1e6
    for session in sessions:
        session.close()
    return used


def main() -> None:
    parser = argparse.ArgumentParser(description="Emits to small rooms")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--times", type=int, nargs="+", default=[50, 1])
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--pm2", action="store_true", help="beside socket.io under @socket.io/pm2")
    parser.add_argument("--checkout", type=Path, help="beside another version of this package")
    parser.add_argument("--mode", default="", help="of the workers, if not the default")
    options = parser.parse_args()
    sides: dict[str, Start] = {"supervisor-sio": partial(supervised_cluster, mode=options.mode)}
    if options.checkout:
        other = partial(supervised_cluster, mode=options.mode, checkout=options.checkout)
        sides[str(options.checkout)] = other
    if options.pm2:
        sides[PM2] = pm2_cluster
    columns = [(size, times) for size in options.sizes for times in options.times]
    heads = [f"room of {size}, {times} in a row" for size, times in columns]
    print("CPU of all processes, µs for an emit")
    print(f"{'':20}{'workers':>8}" + "".join(f"{head:>25}" for head in heads))
    rows: dict[tuple[str, int], list[list[float]]] = {}
    for _ in range(options.runs):
        for workers in options.workers:
            for name, start in sides.items():
                try:
                    with start(workers) as server:
                        numbers = options.clients, options.sizes, options.times
                        used = asyncio.run(measure(server, *numbers, TRIES if name == PM2 else 1))
                except (Failure, asyncio.TimeoutError) as failure:
                    sys.exit(f"{name}: {failure or 'not all events have come'}")
                row = [used[column] for column in columns]
                rows.setdefault((name, workers), []).append(row)
                show(name, workers, row)
    if options.runs > 1:
        print("medians")
    medians = {
        side: [statistics.median(values) for values in zip(*measured)]
        for side, measured in rows.items()
    }
    if options.runs > 1:
        for (name, workers), row in medians.items():
            show(name, workers, row)
    ours, *others = sides
    fewest = min(options.workers)
    for workers in options.workers:
        row = medians[ours, workers]
        if workers > fewest:
            show(f"/ with {fewest} workers", workers, ratio(row, medians[ours, fewest]), 2)
        for name in others:
            show(f"/ {name}", workers, ratio(row, medians[name, workers]), 2)


def ratio(row: list[float], other: list[float]) -> list[float]:
    return [one / another for one, another in zip(row, other)]


def show(name: str, workers: int, row: list[float], digits: int = 1) -> None:
    values = "".join(f"{value:25.{digits}f}" for value in row)
    print(f"{name[-20:]:20}{workers:>8}{values}", flush=True)


if __name__ == "__main__":
    main()
