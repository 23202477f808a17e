"""What compare.py measures: the rows of its table, each with its servers, figures and bars."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, ContextManager

import relay_latency
import session_setup
from generators import generator, swarm
from load import percentile
from pm2 import pm2_cluster
from relay import one_on_each_worker
from servers import Server, behind_nginx, stock_cluster, stock_worker, supervised_cluster

OURS, PM2, STOCK = "ours", "pm2", "stock"

#: What one measurement finds, by the key of a figure.
Sample = Mapping[str, float]

WARM_UP_SECONDS = 2.0
#: Clients that come and go before the memory of a server without clients is read, and
#: seconds until memory is: V8 gives back what a burst of new clients has left after 15 to 30.
MEMORY_WARM_UP_CLIENTS = 100
MEMORY_SETTLE_SECONDS = 40.0
MEMORY_CLIENTS = 2000
IN_FLIGHT = 16

MOST_CLIENTS = 10_000
#: Descriptors of a process that are not clients.
SPARE_DESCRIPTORS = 256
#: Emits to the many clients in a measurement, and seconds in which only newcomers connect.
EMITS = 10
EMIT_PAUSE_SECONDS = 0.2

RATE = 1000.0


@dataclass(frozen=True)
class Bar:
    """What our figure may be at most or has to be at least, as such or times a peer's."""

    limit: float
    peer: str | None = None
    at_least: bool = False

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        return f"{sign} {self.limit:g}" + (f" × {self.peer}" if self.peer else "")

    def is_met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    :ivar over: makes one number of those of all rounds.
    """

    key: str
    label: str
    bars: Sequence[Bar] = ()
    over: Callable[[list[float]], float] = statistics.median


@dataclass(frozen=True)
class Row:
    """A measurement.

    :ivar servers: by peer; ours can be started from another checkout, too.
    :ivar measuring: given a server and seconds, what measures it again and again.
    :ivar fresh: whether each measurement needs a server of its own. All peers are measured
        at a time then: nothing but waiting takes long, and they do not disturb each other.
    """

    title: str
    servers: Mapping[str, Callable[..., ContextManager[Server]]]
    measuring: Callable[[Server, float], ContextManager[Callable[[], Sample]]]
    figures: Sequence[Figure]
    fresh: bool = False


@contextlib.contextmanager
def one_stock_worker() -> Iterator[Server]:
    """For clients that poll: behind nginx these would not find a second worker's sessions."""
    with stock_worker() as worker, behind_nginx(worker) as proxied:
        yield proxied


# --- session set-up -------------------------------------------------------------------


@contextlib.contextmanager
def setting_up(server: Server, seconds: float) -> Iterator[Callable[[], Sample]]:
    def measure(seconds: float = seconds) -> Sample:
        run = session_setup.measure(server, seconds, IN_FLIGHT)
        return {
            "cpu": run.counted_ms,
            "failed": sum(run.failures.values()),
            "completed": run.completed,
        }

    measure(WARM_UP_SECONDS)
    yield measure


# --- traffic on websockets ------------------------------------------------------------


def traffic(
    command: str, clients: int, **options: Any
) -> Callable[[Server, float], ContextManager[Callable[[], Sample]]]:
    """Measures a command of swarm.py."""

    @contextlib.contextmanager
    def measuring(server: Server, seconds: float) -> Iterator[Callable[[], Sample]]:
        with swarm(server.port, clients) as (crowd, _):
            crowd.ask(command, WARM_UP_SECONDS, **options)

            def measure() -> Sample:
                before = server.counted_cpu()
                answer = crowd.ask(command, seconds, **options)
                used = server.counted_cpu() - before
                return {
                    "cpu": used * 1e6 / answer["count"],
                    "rate": answer["count"] / answer["elapsed"],
                    "generator": answer["generator_cpu"] * 1e6 / answer["count"],
                }

            yield measure

    return measuring


# --- idle clients ---------------------------------------------------------------------


def idle(upgraded: bool) -> Callable[[Server, float], ContextManager[Callable[[], Sample]]]:
    @contextlib.contextmanager
    def measuring(server: Server, seconds: float) -> Iterator[Callable[[], Sample]]:
        def settled_memory(clients: int) -> float:
            with swarm(server.port, clients, upgraded, IN_FLIGHT):
                time.sleep(MEMORY_SETTLE_SECONDS)
                return server.memory()

        with swarm(server.port, MEMORY_WARM_UP_CLIENTS, upgraded, IN_FLIGHT):
            pass
        time.sleep(MEMORY_SETTLE_SECONDS)
        before = server.memory()
        yield lambda: {"memory": (settled_memory(MEMORY_CLIENTS) - before) / MEMORY_CLIENTS / 1024}

    return measuring


# --- many clients ---------------------------------------------------------------------


def clients_possible() -> int:
    """A generator and two workers hold them; a worker has less than the generator."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(MOST_CLIENTS, hard - SPARE_DESCRIPTORS)


@contextlib.contextmanager
def many_clients(server: Server, seconds: float) -> Iterator[Callable[[], Sample]]:
    clients = clients_possible()
    with swarm(server.port, clients, in_flight=IN_FLIGHT) as (crowd, _):

        def measure() -> Sample:
            emits: list[tuple[float, float]] = []
            with generator("handshakes.py", server.port) as newcomers:
                for _ in range(EMITS):
                    time.sleep(EMIT_PAUSE_SECONDS)
                    emits += crowd.ask("broadcast", 0, in_a_row=1)["rounds"]
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


# --- emit to one client ---------------------------------------------------------------


def latency_cluster(checkout: Path | None = None) -> ContextManager[Server]:
    return supervised_cluster(application="latency_app:app", checkout=checkout)


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


# --- the table ------------------------------------------------------------------------

CLUSTERS = {OURS: supervised_cluster, PM2: pm2_cluster, STOCK: stock_cluster}
POLLED = {OURS: supervised_cluster, PM2: pm2_cluster, STOCK: one_stock_worker}

ROWS = {
    "set-up": Row(
        f"session set-up, {IN_FLIGHT} in flight",
        POLLED,
        setting_up,
        [
            Figure("cpu", "CPU ms per set-up", [Bar(session_setup.OF_PM2, PM2)]),
            Figure("failed", "failed, all rounds", [Bar(0)], sum),
            Figure("completed", "completed, all rounds", (), sum),
        ],
    ),
    "broadcast-200": Row(
        "broadcast to 200 clients, 10 in a row",
        CLUSTERS,
        traffic("broadcast", 200, in_a_row=10),
        [
            Figure("cpu", "CPU µs per delivery", [Bar(0.4, PM2)]),
            Figure("rate", "deliveries/s", [Bar(1.5, PM2, at_least=True)]),
            Figure("generator", "CPU µs of the generator"),
        ],
    ),
    "broadcast-800": Row(
        "broadcast to 800 clients, one at a time",
        CLUSTERS,
        traffic("broadcast", 800, in_a_row=1),
        [
            Figure("cpu", "CPU µs per delivery", [Bar(0.5, PM2)]),
            Figure("rate", "deliveries/s", [Bar(1.5, PM2, at_least=True)]),
            Figure("generator", "CPU µs of the generator"),
        ],
    ),
    "echo": Row(
        "echo with ack, 100 clients, one event after another each",
        CLUSTERS,
        traffic("echo", 100),
        [
            Figure("cpu", "CPU µs per echo", [Bar(2, PM2), Bar(0.27, STOCK)]),
            Figure("rate", "echoes/s"),
            Figure("generator", "CPU µs of the generator"),
        ],
    ),
    "memory-websocket": Row(
        f"{MEMORY_CLIENTS} idle clients, websocket alone",
        CLUSTERS,
        idle(upgraded=False),
        [Figure("memory", "KiB per client", [Bar(0.6, PM2)])],
        fresh=True,
    ),
    "memory-upgraded": Row(
        f"{MEMORY_CLIENTS} idle clients, polling first",
        POLLED,
        idle(upgraded=True),
        [Figure("memory", "KiB per client", [Bar(0.6, PM2)])],
        fresh=True,
    ),
    "many-clients": Row(
        "idle clients, an emit to all, and newcomers meanwhile",
        {OURS: supervised_cluster},
        many_clients,
        [
            Figure("clients", "clients"),
            Figure("emit", "emit until all have it, ms"),
            Figure("slowest_emit", "  slowest, ms", (), max),
            Figure("handshakes", "handshakes meanwhile", (), sum),
            Figure("handshake", "handshake, median, ms"),
            Figure("slowest_handshake", "  slowest, ms", [Bar(100)], max),
        ],
    ),
    "emit-to-one": Row(
        f"emit to one client of the other worker, {RATE:.0f}/s",
        {OURS: latency_cluster},
        emitting_to_one,
        [
            Figure("rate", "emits/s"),
            Figure("median", "until the client has it, ms", [Bar(1)]),
            Figure("99th", "  99th percentile, ms"),
        ],
    ),
}
