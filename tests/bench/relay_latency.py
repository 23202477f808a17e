"""How long an emit takes to a client of another worker, at a steady rate.

    python tests/bench/relay_latency.py [--rate 1000] [--seconds 10]

A worker emits to a room with one client on each of two workers; each event carries the
time of its emit, by the clock that all processes of a host share. "Written" is when the
worker of the client has written the event to its websocket; "at the client" is when the
client, in this process, has read it, which takes its wake-up and its turn along. What
the relay adds is the difference between the two workers. Ends with 1 if an event does
not come exactly once and in order to both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time

from client import Session
from frames import Failure
from load import percentile
from relay import ROOM, one_on_each_worker
from servers import Server, supervised_cluster

WARM_UP_SECONDS = 0.5
#: Seconds that events may take to come, beyond those of emitting.
PATIENCE = 30.0

EMITTING, OTHER = "emitting worker", "other worker"


async def receive(session: Session, event: str, messages: int) -> list[tuple[int, float]]:
    """The number of each of these events, and the seconds since its emit."""
    start = f'42["{event}",'
    came: list[tuple[int, float]] = []
    while not came or came[-1][0] != messages - 1:
        packet = await session.receive()
        now = time.monotonic()
        if packet.startswith(start):
            _, number, emitted = json.loads(packet[2:])
            came.append((number, now - emitted))
    return came


async def emit(
    sessions: dict[str, Session], event: str, rate: float, seconds: float
) -> dict[str, list[tuple[int, float]]]:
    """What comes to the client of each worker."""
    messages = int(rate * seconds)
    await sessions[EMITTING].ask("emit_steadily", ROOM, event, messages, rate)
    came = asyncio.gather(*(receive(each, event, messages) for each in sessions.values()))
    return dict(zip(sessions, await asyncio.wait_for(came, seconds + PATIENCE)))


async def measure(server: Server, rate: float, seconds: float) -> None:
    receivers = await one_on_each_worker(server.port, 2)
    sessions = dict(zip((EMITTING, OTHER), (receiver.session for receiver in receivers)))
    try:
        await emit(sessions, "warm-up", rate, WARM_UP_SECONDS)
        before = server.cpu()
        at_client = await emit(sessions, "tick", rate, seconds)
        cpu = {part: used - before[part] for part, used in server.cpu().items()}
        achieved = await sessions[EMITTING].ask("achieved")
        written = {name: await session.ask("written") for name, session in sessions.items()}
    finally:
        for session in sessions.values():
            session.close()

    print(f"{achieved:.0f} emits/s for {seconds:g} s; CPU ", end="")
    print(", ".join(f"{part} {used / seconds:.0%}" for part, used in cpu.items()))
    print(f"{'':34}{'messages':>9}{'median':>9}{'99th %':>9}{'max':>9}  ms")
    for what, figures in (("written", written), ("at the client", at_client)):
        medians = {}
        for name in (OTHER, EMITTING):
            took = [latency * 1000 for _, latency in figures[name]]
            medians[name] = statistics.median(took)
            print(
                f"{name + ', ' + what:34}{len(took):9}{medians[name]:9.2f}"
                f"{percentile(took, 0.99):9.2f}{max(took):9.2f}"
            )
        added = medians[OTHER] - medians[EMITTING]
        print(f"{'the relay adds to the median':43}{added:9.2f}")
    expected = list(range(int(rate * seconds)))
    for figures in (written, at_client):
        for name, came in figures.items():
            if [number for number, _ in came] != expected:
                sys.exit(f"{name}: not all events once and in order")


def main() -> None:
    parser = argparse.ArgumentParser(description="Latency of emits through the relay")
    parser.add_argument("--rate", type=float, default=1000, help="emits a second")
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    if options.rate <= 0 or options.rate * min(options.seconds, WARM_UP_SECONDS) < 1:
        parser.error("too few emits")
    with supervised_cluster(workers=2, application="latency_app:app") as server:
        try:
            asyncio.run(measure(server, options.rate, options.seconds))
        except (Failure, asyncio.TimeoutError) as failure:
            sys.exit(f"failed: {failure or 'not all events have come'}")


if __name__ == "__main__":
    main()
