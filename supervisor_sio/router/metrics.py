"""The figures of the cluster as Prometheus has them.

The router's loop counts, and makes a snapshot at least once a second; the thread of
:mod:`.exporter` turns the latest into metrics.

What a worker counts is a metric of that worker: it starts anew when the worker
does, and goes on, unlike a sum, when the router is restarted.
"""

from __future__ import annotations

import platform
import time
from typing import Any, Callable, Iterable, Mapping, Optional

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from .._version import __version__
from ..common.processes import process_memory
from .health import Snapshot
from .pool import Member

PREFIX = "supervisor_sio_"

#: What :attr:`Member.state` can be.
_STATES = ("starting", "ready", "hung", "drained", "draining")

#: Seconds from 100 µs, of a connection that is passed on at once, to ``hold_timeout``.
_HANDOVER_BUCKETS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
_LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics(Collector):
    """Everything that is exported. The loop calls the methods, a thread collects."""

    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self.registry = CollectorRegistry(auto_describe=True)
        self._started = time.time()
        self._handover = Histogram(
            f"{PREFIX}handover_seconds",
            "From accepting a connection, or getting it back, to its having been sent to a worker.",
            buckets=_HANDOVER_BUCKETS,
            registry=self.registry,
        )
        self._lag = Histogram(
            f"{PREFIX}worker_hub_lag_seconds",
            "Worst delay of the worker's hub, of each second.",
            ["worker"],
            buckets=_LAG_BUCKETS,
            registry=self.registry,
        )
        #: The worst lag that each worker has reported since the last tick, in ms.
        self._worst: dict[str, int] = {}
        self._lag_of: set[str] = set()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def handed_over(self, seconds: float) -> None:
        """A connection took so long to get to its worker."""
        self._handover.observe(seconds)

    def reported(self, member: Member) -> None:
        """A worker has sent its figures."""
        worst = self._worst.get(member.name, 0)
        self._worst[member.name] = max(worst, member.hub_lag_ms)

    def update(self, snapshot: Snapshot) -> None:
        """Once a second, and when workers come, go, or are drained."""
        self.snapshot = snapshot
        names = {member.name for member in snapshot.members}
        for name in self._lag_of - names:
            self._lag.remove(name)
        self._lag_of &= names
        self._worst = {name: worst for name, worst in self._worst.items() if name in names}

    def tick(self) -> None:
        """Once a second, after :meth:`update`."""
        for name, worst in self._worst.items():
            self._lag.labels(name).observe(worst / 1000)
        self._lag_of |= self._worst.keys()
        self._worst = {}

    def collect(self) -> Iterable[Metric]:
        snapshot = self.snapshot
        yield InfoMetricFamily(
            f"{PREFIX}build",
            "Version of supervisor-sio and of Python.",
            {"version": __version__, "python": platform.python_version()},
        )
        yield _gauge(
            "start_time_seconds", "When the router started, since the epoch.", self._started
        )
        yield from _of_router(snapshot)
        yield from _of_relay(snapshot)
        yield from _of_queue(snapshot.queue)
        # By name, as a series must be there once.
        workers = {member.name: member for member in snapshot.members}
        yield from _of_workers(list(workers.values()))


def _of_router(snapshot: Snapshot) -> Iterable[Metric]:
    yield _counter(
        "connections_handed_over", "Connections passed to a worker.", snapshot.handed_over
    )
    yield _counter(
        "connections_handed_back",
        "Connections that a worker gave back, to be passed to another.",
        snapshot.handed_back,
    )
    yield _gauge("connections_waiting", "Connections that no worker has yet.", snapshot.waiting)
    refused = CounterMetricFamily(
        f"{PREFIX}connections_refused", "Connections turned away.", labels=["reason"]
    )
    for reason, count in snapshot.refused.items():
        refused.add_metric([reason], count)
    yield refused


def _of_relay(snapshot: Snapshot) -> Iterable[Metric]:
    yield _gauge("relay_up", "Whether the relay runs.", snapshot.relay_alive)
    yield _counter("relay_messages", "Messages that the relay carried.", snapshot.relay_messages)


def _of_queue(figures: Mapping[str, Any]) -> Iterable[Metric]:
    """Nothing is known of the queue of a host that has none."""
    get = figures.get
    yield _gauge("queue_connected", "Whether message_queue can be reached.", get("connected"))
    yield _gauge("queue_hosts", "Other hosts that have been heard of lately.", get("hosts"))
    yield _gauge("queue_waiting", "Messages that wait for message_queue.", get("waiting"))
    yield _counter("queue_sent", "Messages to other hosts.", get("sent"))
    yield _counter("queue_received", "Messages of other hosts.", get("received"))
    yield _counter("queue_unsent", "Messages there was no room for.", get("unsent"))
    yield _counter("queue_missed", "Messages of other hosts that did not come.", get("missed"))
    yield _counter("queue_malformed", "Messages not understood.", get("malformed"))


def _of_workers(members: list[Member]) -> Iterable[Metric]:
    def each(family: Any, figure: Callable[[Member], float]) -> Metric:
        for member in members:
            family.add_metric([member.name], figure(member))
        metric: Metric = family
        return metric

    def counter(name: str, documentation: str, figure: Callable[[Member], float]) -> Metric:
        family = CounterMetricFamily(f"{PREFIX}{name}", documentation, labels=["worker"])
        return each(family, figure)

    def gauge(name: str, documentation: str, figure: Callable[[Member], float]) -> Metric:
        family = GaugeMetricFamily(f"{PREFIX}{name}", documentation, labels=["worker"])
        return each(family, figure)

    state = GaugeMetricFamily(
        f"{PREFIX}worker_state", "1 for the worker's present state.", labels=["worker", "state"]
    )
    for member in members:
        for name in _STATES:
            state.add_metric([member.name, name], member.state == name)
    yield state
    yield gauge("worker_sessions", "Sessions that are open.", lambda m: m.sessions)
    yield gauge("worker_connections", "Connections that are open.", lambda m: m.connections)
    yield gauge(
        "worker_resident_memory_bytes",
        "Resident memory of the worker's process.",
        lambda m: process_memory(m.pid) * 1024,
    )
    yield counter(
        "sessions_placed",
        "Handshakes that this router passed to the worker.",
        lambda m: m.handshakes,
    )
    yield counter("worker_sessions_opened", "Sessions opened.", lambda m: m.opened)
    yield counter("worker_events_received", "Messages from clients.", lambda m: m.events_in)
    yield counter("worker_events_sent", "Messages to clients.", lambda m: m.events_out)
    yield counter(
        "worker_cpu_seconds", "User and system CPU time of the worker.", lambda m: m.cpu_ms / 1000
    )
    yield counter(
        "worker_protocol_errors",
        "Websockets ended because the client broke the protocol.",
        lambda m: m.protocol_errors,
    )
    yield counter(
        "worker_slow_clients",
        "Websockets ended because the client did not read.",
        lambda m: m.slow_clients,
    )
    yield counter("relay_delivered", "Messages the worker got of the relay.", lambda m: m.received)
    yield counter(
        "relay_sent_again",
        "Messages the worker sent to those who missed them.",
        lambda m: m.sent_again,
    )
    yield counter("relay_dropped", "Messages the worker missed for good.", lambda m: m.dropped)
    yield counter(
        "relay_malformed", "Messages the worker did not understand.", lambda m: m.malformed
    )


def _counter(name: str, documentation: str, value: Optional[float]) -> Metric:
    return CounterMetricFamily(f"{PREFIX}{name}", documentation, value)


def _gauge(name: str, documentation: str, value: Optional[float]) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}{name}", documentation, value)
