"""The rows of compare.py: each with its servers, figures and bars."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Callable, ContextManager

import session_setup
from gunicorn_peer import gunicorn
from measurements import (
    IN_FLIGHT,
    MEMORY_CLIENTS,
    MOST_CLIENTS,
    RATE,
    UPGRADING,
    Measuring,
    coming_back,
    emitting_to_one,
    idle,
    many_clients,
    traffic,
    visits,
)
from node import bare_node, bun
from pm2 import pm2_cluster
from servers import Server, behind_nginx, stock_cluster, stock_worker, supervised_cluster
from uvicorn_peer import uvicorn

#: This package, on eventlet unless it says otherwise; the last with orjson as its JSON module.
OURS, ASYNCIO, THREADING, ORJSON = "ours", "ours-asyncio", "ours-threading", "ours-orjson"
BEFORE = "before"
PM2, STOCK, NODE, BUN, UVICORN = "pm2", "stock", "node", "bun", "uvicorn"
GUNICORN = "gunicorn"


@dataclass(frozen=True)
class Bar:
    """What our figure may be at most or has to be at least, as such or times a peer's.

    :ivar of: which of ours.
    """

    limit: float
    peer: str | None = None
    at_least: bool = False
    of: str = OURS

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
    measuring: Measuring
    figures: Sequence[Figure]
    fresh: bool = False


@contextlib.contextmanager
def one_stock_worker() -> Iterator[Server]:
    """For clients that poll: behind nginx these would not find a second worker's sessions."""
    with stock_worker() as worker, behind_nginx(worker) as proxied:
        yield proxied


# --- the table ------------------------------------------------------------------------

#: With two workers.
CLUSTERS = {OURS: supervised_cluster, PM2: pm2_cluster, STOCK: stock_cluster}
POLLED = {OURS: supervised_cluster, PM2: pm2_cluster, STOCK: one_stock_worker}
RESTARTED = {OURS: supervised_cluster, PM2: pm2_cluster}
ONE_ASYNCIO = partial(supervised_cluster, workers=1, application="asgi.app:app", mode="asyncio")
ONE_WITH_THREADS = partial(
    supervised_cluster,
    workers=1,
    mode="threading",
    environment={"BENCH_ASYNC_MODE": "threading"},
)
#: One process each, ours with the router.
SINGLE: Mapping[str, Callable[..., ContextManager[Server]]] = {
    OURS: partial(supervised_cluster, workers=1),
    ASYNCIO: ONE_ASYNCIO,
    THREADING: ONE_WITH_THREADS,
    NODE: bare_node,
    BUN: bun,
    UVICORN: uvicorn,
}

GENERATOR_US = Figure("generator", "CPU µs of the generator")
GENERATOR_MS = Figure("generator", "CPU ms of the generator")
NONE_FAILED = Figure("failed", "failed, all rounds", [Bar(0)], sum)
COMPLETED = Figure("completed", "completed, all rounds", (), sum)


SIXTEEN_THREADS = "supervisor-sio worker --async-mode threading --threads 16 bench_app:app"

#: With handlers in threads.
IN_THREADS: Mapping[str, Callable[..., ContextManager[Server]]] = {
    THREADING: ONE_WITH_THREADS,
    GUNICORN: gunicorn,
}

#: Where JSON is much of what is done.
CODING = {**SINGLE, ORJSON: partial(ONE_ASYNCIO, environment={"BENCH_JSON": "orjson"})}


def of_asyncio(*bars: tuple[float, str | None]) -> list[Bar]:
    """Each at most so many times a peer's."""
    return [Bar(limit, peer, of=ASYNCIO) for limit, peer in bars]


def latency_cluster(checkout: Path | None = None) -> ContextManager[Server]:
    return supervised_cluster(application="latency_app:app", checkout=checkout)


ROWS = {
    "set-up": Row(
        f"session set-up, {UPGRADING} in flight, 2 workers",
        POLLED,
        visits("set-up"),
        [
            Figure("cpu", "CPU ms per set-up", [Bar(session_setup.OF_PM2, PM2)]),
            NONE_FAILED,
            COMPLETED,
            GENERATOR_MS,
        ],
    ),
    "broadcast-200": Row(
        "broadcast to 200 clients, 10 in a row, 2 workers",
        CLUSTERS,
        traffic("broadcast", 200, in_a_row=10),
        [
            Figure("cpu", "CPU µs per delivery", [Bar(0.4, PM2)]),
            Figure("rate", "deliveries/s", [Bar(1.5, PM2, at_least=True)]),
            GENERATOR_US,
        ],
    ),
    "broadcast-800": Row(
        "broadcast to 800 clients, one at a time, 2 workers",
        CLUSTERS,
        traffic("broadcast", 800, in_a_row=1),
        [
            Figure("cpu", "CPU µs per delivery", [Bar(0.5, PM2)]),
            Figure("rate", "deliveries/s", [Bar(1.5, PM2, at_least=True)]),
            GENERATOR_US,
        ],
    ),
    "echo": Row(
        "echo with ack, 100 clients, one event after another each, 2 workers",
        CLUSTERS,
        traffic("echo", 100),
        [
            Figure("cpu", "CPU µs per echo", [Bar(2, PM2), Bar(0.27, STOCK)]),
            Figure("rate", "echoes/s"),
            GENERATOR_US,
        ],
    ),
    "memory-websocket": Row(
        f"{MEMORY_CLIENTS} idle clients, websocket alone, 2 workers",
        CLUSTERS,
        idle("websocket"),
        [Figure("memory", "KiB per client", [Bar(0.6, PM2)])],
        fresh=True,
    ),
    "memory-upgraded": Row(
        f"{MEMORY_CLIENTS} idle clients, polling first, 2 workers",
        POLLED,
        idle("browser"),
        [Figure("memory", "KiB per client", [Bar(0.6, PM2)])],
        fresh=True,
    ),
    "come-back": Row(
        f"{MOST_CLIENTS:,} clients come back after a restart of 2 workers",
        RESTARTED,
        coming_back,
        [
            Figure("clients", "clients"),
            Figure("seconds", "seconds until the last is back", [Bar(0.4, PM2)]),
            Figure("cpu", "CPU seconds", [Bar(0.4, PM2)]),
            Figure("missing", "not back in time, all rounds", [Bar(0)], sum),
            Figure("failed", "failed tries, all rounds", (), sum),
        ],
    ),
    "many-clients": Row(
        "idle clients, an emit to all, and newcomers meanwhile, 2 workers",
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
    "single-set-up": Row(
        f"session set-up (poll, post, poll, upgrade), {UPGRADING} in flight, 1 worker",
        SINGLE,
        visits("set-up"),
        [
            Figure(
                "cpu",
                "CPU ms per set-up",
                [
                    *(Bar(0.4, BEFORE), Bar(0.7, NODE), Bar(1.5, BUN)),
                    *of_asyncio((0.35, UVICORN), (1.2, BUN)),
                ],
            ),
            NONE_FAILED,
            COMPLETED,
            GENERATOR_MS,
        ],
    ),
    "single-websocket": Row(
        f"websocket-only set-up, {IN_FLIGHT} in flight, 1 worker",
        SINGLE,
        visits("websocket"),
        [
            Figure("cpu", "CPU ms per set-up", [Bar(0.5, BEFORE)]),
            NONE_FAILED,
            COMPLETED,
            GENERATOR_MS,
        ],
    ),
    "single-polling": Row(
        f"polling requests on {IN_FLIGHT} kept connections, 1 worker",
        SINGLE,
        visits("polling"),
        [
            Figure("cpu", "CPU ms per request", [Bar(0.5, BEFORE)]),
            NONE_FAILED,
            COMPLETED,
            GENERATOR_MS,
        ],
    ),
    "single-echo": Row(
        "echo with ack, 100 clients, one event after another each, 1 worker",
        CODING,
        traffic("echo", 100),
        [
            Figure(
                "cpu",
                "CPU µs per echo",
                [
                    *(Bar(0.75, BEFORE), Bar(0.75, NODE)),
                    *of_asyncio((0.35, UVICORN), (0.8, NODE), (1.6, BUN)),
                    Bar(1.2, BUN, of=ORJSON),
                ],
            ),
            Figure("rate", "echoes/s"),
            GENERATOR_US,
        ],
    ),
    "single-broadcast-200": Row(
        "broadcast to 200 clients, 10 in a row, 1 worker",
        SINGLE,
        traffic("broadcast", 200, in_a_row=10),
        [
            Figure("cpu", "CPU µs per delivery", [Bar(0.25, BUN), *of_asyncio((0.2, BUN))]),
            Figure("rate", "deliveries/s"),
            GENERATOR_US,
        ],
    ),
    "single-broadcast-800": Row(
        "broadcast to 800 clients, one at a time, 1 worker",
        SINGLE,
        traffic("broadcast", 800, in_a_row=1),
        [
            Figure("cpu", "CPU µs per delivery", [Bar(0.8, BUN), *of_asyncio((0.9, BUN))]),
            Figure("rate", "deliveries/s"),
            GENERATOR_US,
        ],
    ),
    "single-memory-websocket": Row(
        f"{MEMORY_CLIENTS} idle clients, websocket alone, 1 worker",
        SINGLE,
        idle("websocket"),
        [Figure("memory", "KiB per client", [Bar(4), *of_asyncio((5, None))])],
        fresh=True,
    ),
    "threads-echo": Row(
        "echo with ack, 100 clients, one event after another each, handlers in threads",
        IN_THREADS,
        traffic("echo", 100),
        [
            Figure("cpu", "CPU µs per echo", [Bar(0.5, GUNICORN, of=THREADING)]),
            Figure("rate", "echoes/s"),
            GENERATOR_US,
        ],
    ),
    "threads-500": Row(
        "echo with ack, 500 clients on 16 threads",
        {THREADING: partial(ONE_WITH_THREADS, command=SIXTEEN_THREADS), GUNICORN: gunicorn},
        traffic("echo", 500),
        [
            Figure("cpu", "CPU µs per echo", [Bar(0.5, GUNICORN, of=THREADING)]),
            Figure("rate", "echoes/s"),
            GENERATOR_US,
        ],
    ),
    "threads-memory": Row(
        f"{MEMORY_CLIENTS} idle clients, websocket alone, handlers in threads",
        IN_THREADS,
        idle("websocket"),
        [Figure("memory", "KiB per client", [Bar(0.1, GUNICORN, of=THREADING)])],
        fresh=True,
    ),
    "single-memory-polling": Row(
        f"{MEMORY_CLIENTS} idle clients that poll, 1 worker",
        SINGLE,
        idle("polling"),
        [Figure("memory", "KiB per client", [Bar(12), *of_asyncio((5, None))])],
        fresh=True,
    ),
}


def beside_a_checkout(row: Row, checkout: Path) -> Row:
    """This row with another checkout of this package as a peer.

    A figure without a bar for that may be 5 % worse than there.
    """
    ours = row.servers[OURS]

    def with_bar(figure: Figure) -> Figure:
        compared = figure.over is statistics.median and figure.key not in ("generator", "clients")
        if not compared or any(bar.peer == BEFORE for bar in figure.bars):
            return figure
        at_least = figure.key == "rate"
        bar = Bar(0.95 if at_least else 1.05, BEFORE, at_least)
        return replace(figure, bars=[*figure.bars, bar])

    return replace(
        row,
        servers={**row.servers, BEFORE: partial(ours, checkout=checkout)},
        figures=list(map(with_bar, row.figures)),
    )
