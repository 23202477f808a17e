"""How compare.py measures: each gets a server, and makes what measures it again and again."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Callable, ContextManager

import relay_latency
import session_setup
from generators import ANSWER_TIMEOUT, BROWSER, crowd, generator, swarm
from load import percentile
from relay import one_on_each_worker
from servers import Server

#: What one measurement finds, by the key of a figure.
Sample = Mapping[str, float]
Measuring = Callable[[Server, float], ContextManager[Callable[[], Sample]]]

WARM_UP_SECONDS = 2.0
#: Clients that come and go before the memory of a server without clients is read, and
#: seconds until memory is: V8 gives back what a burst of new clients has left after 15 to 30.
MEMORY_WARM_UP_CLIENTS = 100
MEMORY_SETTLE_SECONDS = 40.0
MEMORY_CLIENTS = 2000
IN_FLIGHT = 16
#: Of set-ups with an upgrade, in which the client's poll waits for 0.1 s: as many as keep every
#: server busy. One that is idle in between pays for each wake-up.
UPGRADING = 256

MOST_CLIENTS = 10_000
#: Descriptors of a process that are not clients.
SPARE_DESCRIPTORS = 256
#: Emits to the many clients in a measurement, and seconds in which only newcomers connect.
EMITS = 10
EMIT_PAUSE_SECONDS = 0.2

#: Processes with clients that come back, and the set-ups at a time in each at first: Node's
#: upgrade waits for a timer of 100 ms.
GENERATORS = 2
UPGRADES_IN_FLIGHT = 32
#: Seconds without anything before each restart, and that the slowest client may take.
RESTART_SETTLE_SECONDS = 5.0
COME_BACK_SECONDS = 180.0

RATE = 1000.0


#: Set when the bench is about to end: what is measured in threads ends as well.
ending = threading.Event()


def settle(seconds: float = MEMORY_SETTLE_SECONDS) -> None:
    """:raises RuntimeError: when the bench is about to end."""
    if ending.wait(seconds):
        raise RuntimeError("the bench is ending")


# --- clients that come and go ---------------------------------------------------------


def visits(what: str, query: str = BROWSER) -> Measuring:
    """Measures what clients of load.py do."""
    in_flight = UPGRADING if what == "set-up" else IN_FLIGHT

    @contextlib.contextmanager
    def measuring(server: Server, seconds: float) -> Iterator[Callable[[], Sample]]:
        def measure(seconds: float = seconds) -> Sample:
            run = session_setup.measure(server, seconds, in_flight, what, query)
            if run.failures:
                print(f"  failed: {dict(run.failures)}", file=sys.stderr)
            return {
                "cpu": run.counted_ms,
                "failed": sum(run.failures.values()),
                "completed": run.completed,
                "generator": run.generator_cpu * 1000 / max(run.completed, 1),
            }

        measure(min(seconds, WARM_UP_SECONDS))
        yield measure

    return measuring


# --- traffic on websockets ------------------------------------------------------------


def traffic(command: str, clients: int, query: str = BROWSER, **options: Any) -> Measuring:
    """Measures a command of swarm.py."""

    @contextlib.contextmanager
    def measuring(server: Server, seconds: float) -> Iterator[Callable[[], Sample]]:
        with swarm(server.port, clients, query=query) as (websockets, _):
            websockets.ask(command, min(seconds, WARM_UP_SECONDS), **options)

            def measure() -> Sample:
                before = server.counted_cpu()
                answer = websockets.ask(command, seconds, **options)
                used = server.counted_cpu() - before
                return {
                    "cpu": used * 1e6 / answer["count"],
                    "rate": answer["count"] / answer["elapsed"],
                    "generator": answer["generator_cpu"] * 1e6 / answer["count"],
                }

            yield measure

    return measuring


# --- idle clients ---------------------------------------------------------------------


def idle(
    transport: str, query: str = BROWSER, settle_seconds: float = MEMORY_SETTLE_SECONDS
) -> Measuring:
    """Measures memory with clients of crowd.py."""

    @contextlib.contextmanager
    def measuring(server: Server, seconds: float) -> Iterator[Callable[[], Sample]]:
        def settled_memory(clients: int) -> float:
            with crowd(server.port, clients, transport, IN_FLIGHT, query):
                settle(settle_seconds)
                return server.memory()

        with crowd(server.port, MEMORY_WARM_UP_CLIENTS, transport, IN_FLIGHT, query):
            pass
        settle(settle_seconds)
        before = server.memory()
        yield lambda: {"memory": (settled_memory(MEMORY_CLIENTS) - before) / MEMORY_CLIENTS / 1024}

    return measuring


# --- many clients ---------------------------------------------------------------------


def descriptors() -> int:
    """Those that a process may have for clients."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return hard - SPARE_DESCRIPTORS


@contextlib.contextmanager
def many_clients(server: Server, seconds: float) -> Iterator[Callable[[], Sample]]:
    clients = min(MOST_CLIENTS, descriptors())
    with swarm(server.port, clients, in_flight=IN_FLIGHT) as (websockets, _):

        def measure() -> Sample:
            emits: list[tuple[float, float]] = []
            with generator("handshakes.py", server.port) as newcomers:
                for _ in range(EMITS):
                    time.sleep(EMIT_PAUSE_SECONDS)
                    emits += websockets.ask("broadcast", 0, in_a_row=1)["rounds"]
                came = newcomers.finish()
            if came["failures"]:
                raise RuntimeError(f"handshakes failed: {came['failures']}")
            meanwhile = [
                end - begin
                for begin, end in came["handshakes"]
                if any(begin < emit_end and emit_begin < end for emit_begin, emit_end in emits)
            ]
            return {
                "clients": clients,
                "emit": statistics.median(end - begin for begin, end in emits) * 1000,
                "slowest_emit": max(end - begin for begin, end in emits) * 1000,
                "handshakes": len(meanwhile),
                "handshake": statistics.median(meanwhile) * 1000,
                "slowest_handshake": max(meanwhile) * 1000,
            }

        measure()  # warm-up
        yield measure


# --- all come back --------------------------------------------------------------------


@contextlib.contextmanager
def coming_back(server: Server, seconds: float) -> Iterator[Callable[[], Sample]]:
    """Seconds from the first client that is cut off to the last that is back.

    The clients are browsers', with two connections each while they connect: one process has not
    enough descriptors for all.
    """
    assert server.restart is not None
    restart = server.restart
    clients = min(MOST_CLIENTS, GENERATORS * (descriptors() // 2))
    with contextlib.ExitStack() as stack:
        crowds = [
            stack.enter_context(
                crowd(server.port, clients // GENERATORS, "upgraded", UPGRADES_IN_FLIGHT)
            )
            for _ in range(GENERATORS)
        ]

        def measure() -> Sample:
            time.sleep(RESTART_SETTLE_SECONDS)
            before = server.whole_cpu()
            for each in crowds:
                each.begin("come-back", COME_BACK_SECONDS)
            restart()
            came = [each.answer(COME_BACK_SECONDS + ANSWER_TIMEOUT) for each in crowds]
            used = server.whole_cpu() - before
            losses = [each["first_loss"] for each in came if each["first_loss"]]
            if not losses:
                raise RuntimeError("the restart has cut off no client")
            failures: Counter[str] = sum((Counter(each["failures"]) for each in came), Counter())
            if failures:
                print(f"  failed: {dict(failures)}", file=sys.stderr)
            return {
                "clients": clients,
                "seconds": max(each["last_back"] for each in came) - min(losses),
                "cpu": used,
                "missing": sum(each["missing"] for each in came),
                "failed": sum(failures.values()),
            }

        yield measure


# --- emit to one client ---------------------------------------------------------------


async def emit_to_other_worker(port: int, seconds: float) -> Sample:
    sessions = [receiver.session for receiver in await one_on_each_worker(port, 2)]
    asking, receiving = sessions
    try:
        for event, length in (("warm-up", WARM_UP_SECONDS), ("tick", seconds)):
            messages = int(RATE * length)
            await asking.ask("emit_steadily", receiving.socket_sid, event, messages, RATE)
            coming = relay_latency.receive(receiving, event, messages)
            came = await asyncio.wait_for(coming, length + relay_latency.PATIENCE)
        achieved = await asking.ask("achieved")
    finally:
        for session in sessions:
            session.close()
    if [number for number, _ in came] != list(range(messages)):
        raise RuntimeError("not all events came once and in order")
    took = [latency * 1000 for _, latency in came]
    return {
        "rate": achieved,
        "median": statistics.median(took),
        "99th": percentile(took, 0.99),
    }


@contextlib.contextmanager
def emitting_to_one(server: Server, seconds: float) -> Iterator[Callable[[], Sample]]:
    yield lambda: asyncio.run(emit_to_other_worker(server.port, seconds))
