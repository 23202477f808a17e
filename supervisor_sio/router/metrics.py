"""The figures of the cluster as metrics for Prometheus.

The router's loop makes a snapshot at least once a second; the thread of :mod:`.exporter` turns the
latest one into metrics.

Figures that a worker counts are metrics of that worker: they start at zero with the worker, and,
unlike sums, do not change when the router restarts.
"""

from __future__ import annotations

import platform
import time
from typing import Any, Callable, Iterable, Mapping, Optional, Sequence

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from .._version import __version__
from ..common import figures
from ..common.event_figures import EventRow
from ..common.figures import Figure, Kind, Source
from ..common.figures import Metric as WorkerMetric
from ..common.processes import process_memory
from .health import Snapshot
from .pool import Member

PREFIX = "supervisor_sio_"

#: The values of :attr:`Member.state`.
_STATES = ("starting", "ready", "hung", "drained", "draining")

#: From 100 µs, for a connection that is passed on at once, to the default of ``hold_timeout``.
_HANDOVER_BUCKETS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
_WORST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

_FAMILIES: Mapping[Kind, Any] = {Kind.COUNTER: CounterMetricFamily, Kind.GAUGE: GaugeMetricFamily}

#: The metrics of an event: name, help, and value.
_EVENTS: Sequence[tuple[str, str, Callable[[EventRow], float]]] = (
    ("worker_event_handlers", "Calls of the event's handler.", lambda row: row.calls),
    (
        "worker_event_handler_seconds",
        "Total time of these calls, including the time that they waited.",
        lambda row: row.microseconds / 1e6,
    ),
    ("worker_event_handler_failures", "Calls that raised.", lambda row: row.failures),
)

#: Figures that are read from a worker's process by its pid, in the unit of the metric.
_OF_PROCESS: Mapping[str, Callable[[int], float]] = {
    "memory": lambda pid: process_memory(pid) * 1024
}


class Metrics(Collector):
    """All metrics. The router's loop calls the methods, the exporter's thread collects."""

    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self.registry = CollectorRegistry(auto_describe=True)
        self._started = time.time()
        self._handover = Histogram(
            f"{PREFIX}handover_seconds",
            "Time from accepting a connection, or getting it back, to sending it to a worker.",
            buckets=_HANDOVER_BUCKETS,
            registry=self.registry,
        )
        self._worst = [
            _Worst(figure, figure.metric, self.registry)
            for figure in figures.WORKER
            if figure.metric and figure.metric.kind is Kind.WORST
        ]
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def handed_over(self, seconds: float) -> None:
        """Count a connection that took this long to reach its worker."""
        self._handover.observe(seconds)

    def reported(self, member: Member) -> None:
        """A worker has sent its figures."""
        for worst in self._worst:
            worst.reported(member)

    def update(self, snapshot: Snapshot) -> None:
        """Called once a second, and when workers join, leave, or are drained."""
        self.snapshot = snapshot
        names = {member.name for member in snapshot.members}
        for worst in self._worst:
            worst.keep(names)

    def tick(self) -> None:
        """Called once a second, after :meth:`update`."""
        for worst in self._worst:
            worst.tick()

    def collect(self) -> Iterable[Metric]:
        snapshot = self.snapshot
        yield InfoMetricFamily(
            f"{PREFIX}build",
            "Versions of supervisor-sio and Python.",
            {"version": __version__, "python": platform.python_version()},
        )
        yield _gauge(
            "start_time_seconds", "When the router started, since the epoch.", self._started
        )
        yield from _of_router(snapshot)
        yield from _of_relay(snapshot)
        yield from _of_queue(snapshot.queue)
        yield from _of_tasks(snapshot)
        # One member for each name, because a series must be unique.
        workers = {member.name: member for member in snapshot.members}
        yield from _of_workers(list(workers.values()))
        yield from _of_events(list(workers.values()))


class _Worst:
    """A histogram of the worst value that each worker has reported in each second."""

    def __init__(self, figure: Figure, metric: WorkerMetric, registry: CollectorRegistry) -> None:
        self._figure = figure
        self._histogram = Histogram(
            f"{PREFIX}{metric.name}",
            metric.help,
            ["worker"],
            buckets=_WORST_BUCKETS,
            registry=registry,
        )
        #: Since the last tick, by the workers' names.
        self._worst: dict[str, int] = {}
        #: The workers that have a series.
        self._known: set[str] = set()

    def reported(self, member: Member) -> None:
        worst = self._worst.get(member.name, 0)
        self._worst[member.name] = max(worst, member.count(self._figure))

    def keep(self, names: set[str]) -> None:
        """Drop all other workers."""
        for name in self._known - names:
            self._histogram.remove(name)
        self._known &= names
        self._worst = {name: worst for name, worst in self._worst.items() if name in names}

    def tick(self) -> None:
        for name, worst in self._worst.items():
            self._histogram.labels(name).observe(self._figure.shown(worst))
        self._known |= self._worst.keys()
        self._worst = {}


def _of_router(snapshot: Snapshot) -> Iterable[Metric]:
    yield _counter(
        "connections_handed_over", "Connections passed to a worker.", snapshot.handed_over
    )
    yield _counter(
        "connections_handed_back",
        "Connections that a worker handed back, to be passed to another.",
        snapshot.handed_back,
    )
    yield _gauge("connections_waiting", "Connections that wait for a worker.", snapshot.waiting)
    yield _by_reason("connections_refused", "Connections refused.", snapshot.refused)
    yield _counter(
        "sessions_passed_on", "Sessions that workers passed on when they ended.", snapshot.passed_on
    )
    yield _gauge("sessions_held", "Sessions that wait to be adopted.", snapshot.held)
    yield _by_reason(
        "sessions_not_moved",
        "Sessions closed because they could not be moved to another worker.",
        snapshot.not_moved,
    )
    yield _by_reason(
        "clients_not_recovered",
        "Clients that came back and got a new session.",
        snapshot.not_recovered,
    )
    if snapshot.recycled:
        yield _by_reason(
            "workers_recycled",
            "Workers that supervisord restarted, or killed, because of a limit.",
            snapshot.recycled,
        )


def _by_reason(name: str, help: str, counted: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"{PREFIX}{name}", help, labels=["reason"])
    for reason, count in counted.items():
        family.add_metric([reason], count)
    return family


def _of_relay(snapshot: Snapshot) -> Iterable[Metric]:
    yield _gauge("relay_up", "Whether the relay runs.", snapshot.relay_alive)
    yield _counter("relay_messages", "Messages that the relay carried.", snapshot.relay_messages)


def _of_queue(counted: Mapping[str, Any]) -> Iterable[Metric]:
    """The metrics of the queue; without ``message_queue``, they have no values."""
    connected = counted.get("connected")
    yield _gauge("queue_connected", "Whether message_queue can be reached.", connected)
    for figure in figures.QUEUE:
        metric = figure.metric
        make = _gauge if metric.kind is Kind.GAUGE else _counter
        yield make(metric.name, metric.help, counted.get(figure.key))


def _of_tasks(snapshot: Snapshot) -> Iterable[Metric]:
    """The metrics of tasks, if there are any."""
    if not snapshot.tasks:
        return
    names = {member.tag: member.name for member in snapshot.members}
    running = GaugeMetricFamily(
        f"{PREFIX}task_running", "1 for the worker that runs a task.", labels=["task", "worker"]
    )
    for task in snapshot.tasks:
        if task.state == "running":
            running.add_metric([task.name, names.get(task.tag, "")], 1)
    yield running
    yield _of_each_task("task_given", "How often a worker began to run it.", snapshot, "given")
    yield _of_each_task("task_failures", "How often its function failed.", snapshot, "failed")


def _of_each_task(name: str, help: str, snapshot: Snapshot, count: str) -> Metric:
    family = CounterMetricFamily(f"{PREFIX}{name}", help, labels=["task"])
    for task in snapshot.tasks:
        family.add_metric([task.name], getattr(task, count))
    return family


def _of_workers(members: list[Member]) -> Iterable[Metric]:
    state = GaugeMetricFamily(
        f"{PREFIX}worker_state", "1 for the worker's present state.", labels=["worker", "state"]
    )
    for member in members:
        for name in _STATES:
            state.add_metric([member.name, name], member.state == name)
    yield state
    for figure in figures.WORKER:
        if figure.metric and figure.metric.kind is not Kind.WORST:
            yield _of_each(figure, figure.metric, members)


def _of_events(members: list[Member]) -> Iterable[Metric]:
    """The metrics of events, with ``event_metrics``."""
    if not any(member.events for member in members):
        return
    for name, help, value in _EVENTS:
        family = CounterMetricFamily(
            f"{PREFIX}{name}", help, labels=["worker", "namespace", "event"]
        )
        for member in members:
            for row in member.events:
                family.add_metric([member.name, row.namespace, row.event], value(row))
        yield family


def _of_each(figure: Figure, metric: WorkerMetric, members: list[Member]) -> Metric:
    """The metric of a figure, with a value for each worker."""
    family: Any = _FAMILIES[metric.kind](f"{PREFIX}{metric.name}", metric.help, labels=["worker"])
    for member in members:
        if figure.source is Source.PROCESS:
            value: float = _OF_PROCESS[figure.name](member.pid)
        else:
            value = figure.shown(member.count(figure))
        family.add_metric([member.name], value)
    found: Metric = family
    return found


def _counter(name: str, documentation: str, value: Optional[float]) -> Metric:
    return CounterMetricFamily(f"{PREFIX}{name}", documentation, value)


def _gauge(name: str, documentation: str, value: Optional[float]) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}{name}", documentation, value)
