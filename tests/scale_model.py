"""What clusters of any size cost, on paper: the tables of docs/design.md, "What it costs".

    python tests/scale_model.py

Pure: constants that were measured, and formulas. A test compares the document with what this
prints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Cost(NamedTuple):
    """Microseconds of CPU: of a message that comes alone, and of one of many at once."""

    alone: float
    many: float


#: In the order of the document: symbol, value, what for, where from.
CONSTANTS: dict[str, tuple[Cost, str, str]] = {
    "t": (Cost(20, 20), "a worker: a client's event, with its handler", "`session_floor.py`"),
    "e": (Cost(64, 13), "a worker: an emit to a room, sent to the relay", "`parts.py`"),
    "p": (Cost(72, 10), "a worker: a message that it passes over", "`parts.py`"),
    "l": (Cost(72, 15), "a worker: a message that it looks at", "`parts.py`"),
    "d": (Cost(11.7, 3.5), "a worker: a delivery to one client", "`compare.py`"),
    "r0": (Cost(75, 4.2), "the relay: a message", "`parts.py`"),
    "r1": (Cost(2.8, 0.35), "the relay: for each worker, more", "`parts.py`"),
    "b_out": (Cost(134, 38), "a bridge: a message of its host, to Redis", "`parts.py`"),
    "b_own": (Cost(17, 17), "a bridge: the same, when it comes back", "`parts.py`"),
    "b_in": (Cost(38, 38), "a bridge: a message of another host", "`parts.py`"),
    "b_skip": (Cost(23, 23), "a bridge: the same, for a worker of a third one", "`parts.py`"),
    "q0": (Cost(15, 1.4), "Redis: a message", "`parts.py`"),
    "q1": (Cost(6.1, 0.33), "Redis: for each host, more", "`parts.py`"),
}

#: Microseconds for each worker of the cluster, when one of them comes or goes.
CHANGE_ROUTER, CHANGE_WORKER = 0.13, 0.17
#: Bytes of a message of 100 from Redis to a host, with what is around it.
WIRE = 400
#: Bytes: of a beat to other hosts, for each worker; in memory, for each worker that one knows of.
BEAT, KNOWN = 37, 90
#: KiB of an idle client, MiB of a worker, MiB that it keeps of its own emits at most.
CLIENT_KIB, WORKER_MIB, KEPT_MIB = 3, 50, 64
#: Bytes a second that a line of 1 Gbit/s takes.
LINE = 125_000_000

#: Seconds between two emits that a client causes, and the members of the room of each.
EVERY, MEMBERS = 10, 10


@dataclass(frozen=True)
class Cluster:
    hosts: int
    workers: int
    clients: int

    @property
    def name(self) -> str:
        return f"{self.hosts} × {self.workers} × {size(self.clients)}"

    @property
    def emits(self) -> float:
        """A second, of all clients."""
        return self.clients / EVERY

    def worker(self, many: bool) -> float:
        """Microseconds of CPU for an emit somewhere in the cluster."""
        one = 1 / self.hosts / self.workers
        used = one * (cost("t", many) + cost("e", many) + MEMBERS * cost("d", many))
        return used + (1 - one) * cost("p", many)

    def relay(self, many: bool) -> float:
        return cost("r0", many) + self.workers * cost("r1", many)

    def bridge(self, many: bool) -> float:
        if self.hosts == 1:
            return 0.0
        here = 1 / self.hosts
        own = cost("b_out", many) + cost("b_own", many)
        return here * own + (1 - here) * cost("b_in", many)

    def redis(self, many: bool) -> float:
        return 0.0 if self.hosts == 1 else cost("q0", many) + self.hosts * cost("q1", many)

    @property
    def wire(self) -> int:
        """Bytes that leave Redis for an emit."""
        return 0 if self.hosts == 1 else self.hosts * WIRE

    @property
    def of_bridge(self) -> str:
        there = f"{self.emits / self.hosts:,.0f}; {self.emits:,.0f}"
        return "none" if self.hosts == 1 else there

    @property
    def of_redis(self) -> str:
        there = f"{self.emits:,.0f}; {self.emits * self.hosts:,.0f}"
        return "none" if self.hosts == 1 else there

    @property
    def clients_of_worker(self) -> int:
        return round(self.clients / self.hosts / self.workers)

    @property
    def mib_of_worker(self) -> float:
        known = self.hosts * self.workers * KNOWN / 2**20
        return WORKER_MIB + self.clients_of_worker * CLIENT_KIB / 1024 + known

    def limits(self) -> dict[str, float]:
        """Emits a second of all clients at which each part is busy all the time."""
        found = {
            "worker": 1e6 / self.worker(True),
            "relay": 1e6 / self.relay(True),
        }
        if self.hosts > 1:
            found["bridge"] = 1e6 / self.bridge(True)
            found["Redis"] = 1e6 / self.redis(True)
            found["line of 1 Gbit/s"] = LINE / self.wire
        return found

    @property
    def answers(self) -> int:
        """Messages that answer a question to all workers."""
        return self.hosts * self.workers - 1


EXAMPLES = (Cluster(1, 8, 10_000), Cluster(10, 16, 100_000), Cluster(100, 32, 1_000_000))


def cost(symbol: str, many: bool) -> float:
    found = CONSTANTS[symbol][0]
    return found.many if many else found.alone


def size(number: float) -> str:
    """Of clients."""
    return f"{number / 1e6:g} M" if number >= 1e6 else f"{number / 1e3:g} k"


def rough(number: float) -> str:
    """Two digits: the constants have no more."""
    digits = len(str(int(number)))
    return f"{round(number, 2 - digits):,.0f}" if number >= 10 else f"{number:.2g}"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def constants() -> str:
    rows = [
        [f"`{symbol}`", f"{found.alone:g}", f"{found.many:g}", what, source]
        for symbol, (found, what, source) in CONSTANTS.items()
    ]
    return table(["", "alone, µs", "many, µs", "of CPU, in", "measured by"], rows)


def share(cluster: Cluster, part: str) -> str:
    """Of a core, if messages come alone, and if many come at once."""
    both = [getattr(cluster, part)(many) * cluster.emits / 1e4 for many in (False, True)]
    return "none" if not any(both) else " to ".join(f"{rough(one)} %" for one in reversed(both))


def shares() -> str:
    rows = [
        ["clients of a worker", *(f"{one.clients_of_worker:,}" for one in EXAMPLES)],
        ["emits a second, all hosts", *(f"{one.emits:,.0f}" for one in EXAMPLES)],
        ["messages a second: each relay; each worker", *(f"{one.emits:,.0f}" for one in EXAMPLES)],
        ["… each bridge: to Redis; from it", *(one.of_bridge for one in EXAMPLES)],
        ["… Redis: in; out", *(one.of_redis for one in EXAMPLES)],
        ["MB a second out of Redis", *(f"{one.emits * one.wire / 1e6:,.0f}" for one in EXAMPLES)],
        *(
            [what, *(share(one, part) for one in EXAMPLES)]
            for what, part in (
                ("a worker, of a core", "worker"),
                ("relay, of a core", "relay"),
                ("bridge, of a core", "bridge"),
                ("Redis, of a core", "redis"),
            )
        ),
        ["memory of a worker, MiB", *(f"{one.mib_of_worker:.0f}" for one in EXAMPLES)],
        [
            "… that keeps all it may of its emits",
            *(f"{one.mib_of_worker + KEPT_MIB:.0f}" for one in EXAMPLES),
        ],
        [
            "descriptors of clients: a worker; with TLS also the router",
            *(f"{o.clients_of_worker:,}; {2 * o.clients // o.hosts:,}" for o in EXAMPLES),
        ],
    ]
    return table(["hosts × workers × clients", *(one.name for one in EXAMPLES)], rows)


def bounds() -> str:
    names = [*EXAMPLES[-1].limits()]
    rows = [
        [one.name, *(rough(one.limits()[n]) if n in one.limits() else "" for n in names)]
        for one in EXAMPLES
    ]
    for row, one in zip(rows, EXAMPLES):
        part, least = first(one)
        row.append(f"{part}: an emit of each client every {rough(one.clients / least)} s")
    return table(["emits a second that fill", *names, "first"], rows)


def first(cluster: Cluster) -> tuple[str, float]:
    """What is busy first, and at how many emits a second."""
    return min(cluster.limits().items(), key=lambda found: found[1])


def others() -> str:
    """What is not for an emit."""
    rows = []
    for one in EXAMPLES:
        workers = one.hosts * one.workers
        asked = one.answers * one.redis(True) / 1e3
        heard = one.answers * cost("b_skip", True) / 1e3 if one.hosts > 1 else 0
        beats = 0 if one.hosts == 1 else one.hosts * one.redis(False) / 1e3
        wire = 0 if one.hosts == 1 else one.hosts**2 * one.workers * BEAT / 1e6
        rows.append(
            [
                one.name,
                f"{one.answers:,}",
                f"{rough(asked)} ms; {rough(heard)} ms" if asked else "none",
                f"{rough(workers * CHANGE_ROUTER)} µs; {rough(workers * CHANGE_WORKER)} µs",
                f"{rough(beats)} ms; {rough(wire)} MB" if wire else "none",
            ]
        )
    head = ["", "answers to a question", "… CPU of Redis; of each bridge"]
    head += ["a worker comes or goes: CPU of each router; of each worker"]
    return table([*head, "beats, each second: CPU of Redis; out of it"], rows)


TABLES = (constants, shares, bounds, others)

if __name__ == "__main__":
    for one in TABLES:
        print(one())
