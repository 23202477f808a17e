"""The figures of a worker, in one table: a row defines one figure.

All code that reports, sums or shows figures uses the table: a worker's message ``load``, the
router's sums and metrics, ``sio.getStatus``, and the columns of ``sio status``, ``sio workers`` and
``sio top``. To add a figure, add a row here, and a line where it is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Mapping, Optional

from .reasons import TABLE as REASONS
from .reasons import Counted

#: Largest figure that a worker may report: the largest exact integer of a double, as in XML-RPC.
MOST = 2**53


class Source(Enum):
    """Where a figure comes from."""

    WORKER = auto()  # the worker counts it, and reports it in ``load``
    ROUTER = auto()  # the router counts it, as an attribute of its Member
    PROCESS = auto()  # supervisord and the router read it from the process


class Unit(Enum):
    """The unit of a figure in the status; decides how it is formatted."""

    NUMBER = auto()
    SECONDS = auto()
    KIBIBYTES = auto()


class Kind(Enum):
    """The type of a metric."""

    COUNTER = auto()
    GAUGE = auto()
    WORST = auto()  # a histogram of the worst value of each second


@dataclass(frozen=True)
class Metric:
    """A metric of Prometheus.

    :ivar name: without the prefix ``supervisor_sio_`` and the suffix ``_total`` of a counter.
    """

    kind: Kind
    name: str
    help: str


class Section(Enum):
    """A struct of ``sio.getStatus`` with sums over all workers."""

    RELAY = "relay"
    CLIENTS = "clients"
    REFUSED = "refused"  # by reason; the router adds its own counts
    TAKEOVER = "takeover"
    NOT_MOVED = "not_moved"  # by reason; the router adds its own counts
    RECOVERY = "recovery"
    NOT_RECOVERED = "not_recovered"  # by reason


@dataclass(frozen=True)
class Total:
    """A sum over all workers since the router's start, including workers that have left; for a
    gauge, over the present workers.

    :ivar key: its key in the section, and in the router's message to supervisord.
    :ivar label: its label in the section's line of ``sio status``; a reason is its own label.
    """

    section: Section
    key: str
    label: str = ""


@dataclass(frozen=True)
class Column:
    """A column of ``sio status`` or ``sio workers``.

    :ivar times: factor for the figure of the status.
    :ivar digits: number of decimals.
    :ivar optional: whether the column is left out while the figure is 0 for all workers.
    """

    head: str
    times: int = 1
    digits: int = 0
    optional: bool = False


class Sample(Enum):
    """What ``sio top`` computes from two statuses."""

    LEVEL = auto()  # the figure of the later status
    PER_SECOND = auto()
    PERCENT = auto()  # of seconds per second


@dataclass(frozen=True)
class TopColumn:
    """A column of ``sio top``.

    :ivar key: its key in the output of ``--json``.
    :ivar times: factor for a level.
    :ivar sum: its label in the line of the cluster; empty for no sum.
    :ivar last: whether the column comes after the others.
    """

    head: str
    key: str
    sample: Sample = Sample.LEVEL
    times: int = 1
    sum: str = ""
    last: bool = False


@dataclass(frozen=True)
class Figure:
    """One row of the table.

    :ivar name: its name in ``load``, and in the worker's row that the router sends to supervisord.
    :ivar key: its key in a worker's struct of ``sio.getStatus``; empty if it is not shown there.
    :ivar per: the status and the metric show the counted number divided by this.
    """

    name: str
    source: Source = Source.WORKER
    key: str = ""
    unit: Unit = Unit.NUMBER
    per: int = 1
    metric: Optional[Metric] = None
    total: Optional[Total] = None
    status: Optional[Column] = None
    workers: Optional[Column] = None
    top: Optional[TopColumn] = None

    @property
    def counted(self) -> bool:
        """Whether the router knows the figure, by itself or from the worker."""
        return self.source is not Source.PROCESS

    @property
    def lasts(self) -> bool:
        """Whether its total includes workers that have left."""
        return self.total is not None and not (self.metric and self.metric.kind is Kind.GAUGE)

    def shown(self, counted: float) -> float:
        """Convert a count to the unit of the status and the metric."""
        return counted / self.per if self.per > 1 else counted


#: In the order of the columns of ``sio status`` and ``sio workers``.
WORKER: tuple[Figure, ...] = (
    # --- clients ---
    Figure(
        "sessions",
        key="sessions",
        metric=Metric(Kind.GAUGE, "worker_sessions", "Sessions that are open."),
        status=Column("sessions"),
        workers=Column("sessions"),
        top=TopColumn("sessions", "sessions", sum="sessions"),
    ),
    Figure(
        "connections",
        key="connections",
        metric=Metric(Kind.GAUGE, "worker_connections", "Connections that are open."),
        status=Column("connections"),
    ),
    Figure(
        "protocol_errors",
        metric=Metric(
            Kind.COUNTER,
            "worker_protocol_errors",
            "What clients sent that breaks a protocol or a limit.",
        ),
        total=Total(Section.CLIENTS, "protocol_errors", "protocol errors"),
    ),
    Figure(
        "slow_clients",
        metric=Metric(
            Kind.COUNTER,
            "worker_slow_clients",
            "Clients ended because they did not send or read in time.",
        ),
        total=Total(Section.CLIENTS, "slow_clients", "too slow"),
    ),
    Figure("no_descriptor", total=Total(Section.REFUSED, "no-descriptor")),
    # --- the relay ---
    Figure(
        "received",
        key="received",
        metric=Metric(
            Kind.COUNTER, "relay_delivered", "Messages the worker received from the relay."
        ),
        total=Total(Section.RELAY, "delivered", "delivered"),
    ),
    Figure(
        "sent_again",
        metric=Metric(
            Kind.COUNTER, "relay_sent_again", "Messages the worker sent again on request."
        ),
        total=Total(Section.RELAY, "sent_again", "sent again"),
    ),
    Figure(
        "dropped",
        metric=Metric(Kind.COUNTER, "relay_dropped", "Messages the worker missed for good."),
        total=Total(Section.RELAY, "dropped", "dropped"),
    ),
    Figure(
        "malformed",
        metric=Metric(Kind.COUNTER, "relay_malformed", "Messages the worker could not decode."),
        total=Total(Section.RELAY, "malformed", "malformed"),
    ),
    # --- what it has done ---
    Figure(
        "handshakes",
        source=Source.ROUTER,
        metric=Metric(
            Kind.COUNTER, "sessions_placed", "Handshakes that this router passed to the worker."
        ),
    ),
    Figure("handshakes_seen"),  # how many of them ``sessions`` includes
    Figure(
        "opened",
        key="opened",
        metric=Metric(Kind.COUNTER, "worker_sessions_opened", "Sessions opened."),
        workers=Column("opened"),
        top=TopColumn("connects/s", "connects_per_second", Sample.PER_SECOND, sum="set-ups"),
    ),
    Figure(
        "taken_over",
        key="taken_over",
        metric=Metric(
            Kind.COUNTER,
            "worker_sessions_taken_over",
            "Sessions that the worker took over from another one.",
        ),
        total=Total(Section.TAKEOVER, "taken_over", "taken over"),
        workers=Column("taken over", optional=True),
    ),
    # A worker that counts this is about to end, so only the sum is shown.
    Figure("passed_on", total=Total(Section.TAKEOVER, "passed_on", "passed on")),
    *(
        Figure(reason.figure, total=Total(Section.NOT_MOVED, reason.name))
        for reason in REASONS.values()
        if reason.counted is Counted.NOT_MOVED
    ),
    Figure(
        "recovered",
        key="recovered",
        metric=Metric(
            Kind.COUNTER,
            "worker_clients_recovered",
            "Clients that came back to the worker and recovered their session.",
        ),
        total=Total(Section.RECOVERY, "recovered", "recovered"),
        workers=Column("recovered", optional=True),
    ),
    Figure(
        "lost",
        key="lost",
        metric=Metric(
            Kind.GAUGE, "worker_clients_lost", "Clients without a connection that may come back."
        ),
        total=Total(Section.RECOVERY, "lost", "lost"),
        workers=Column("lost", optional=True),
    ),
    Figure(
        "kept_bytes",
        key="kept_bytes",
        metric=Metric(
            Kind.GAUGE,
            "worker_recovery_kept_bytes",
            "Bytes that the worker keeps for clients that come back.",
        ),
        total=Total(Section.RECOVERY, "kept_bytes", "kept bytes"),
    ),
    *(
        Figure(reason.figure, total=Total(Section.NOT_RECOVERED, reason.name))
        for reason in REASONS.values()
        if reason.counted is Counted.NOT_RECOVERED
    ),
    Figure(
        "events_in",
        key="events_in",
        metric=Metric(Kind.COUNTER, "worker_events_received", "Messages from clients."),
        workers=Column("in"),
        top=TopColumn("in/s", "events_in_per_second", Sample.PER_SECOND, sum="events in"),
    ),
    Figure(
        "events_out",
        key="events_out",
        metric=Metric(Kind.COUNTER, "worker_events_sent", "Messages to clients."),
        workers=Column("out"),
        top=TopColumn("out/s", "events_out_per_second", Sample.PER_SECOND, sum="out"),
    ),
    # --- the process ---
    Figure("silent", source=Source.ROUTER, key="silent"),  # seconds without a report, if it hangs
    Figure(
        "cpu_ms",
        key="cpu",
        per=1000,
        metric=Metric(
            Kind.COUNTER, "worker_cpu_seconds", "User and system CPU time of the worker."
        ),
        workers=Column("CPU s", digits=1),
        top=TopColumn("CPU %", "cpu_percent", Sample.PERCENT),
    ),
    Figure(
        "hub_lag_ms",
        key="hub_lag",
        per=1000,
        metric=Metric(
            Kind.WORST,
            "worker_hub_lag_seconds",
            "Worst delay of the worker's loop in each second.",
        ),
        workers=Column("lag ms", times=1000),
        top=TopColumn("lag ms", "hub_lag_ms", times=1000, last=True),
    ),
    Figure(
        "uptime",
        source=Source.PROCESS,
        key="uptime",
        unit=Unit.SECONDS,
        status=Column("uptime"),
    ),
    Figure(
        "memory",
        source=Source.PROCESS,
        key="memory",
        unit=Unit.KIBIBYTES,
        metric=Metric(
            Kind.GAUGE, "worker_resident_memory_bytes", "Resident memory of the worker's process."
        ),
        status=Column("memory"),
        workers=Column("memory"),
        top=TopColumn("memory", "memory"),
    ),
)


@dataclass(frozen=True)
class QueueFigure:
    """One row of the table of the bridge to other hosts.

    :ivar key: its key in the bridge's counts, and in ``queue`` of ``sio.getStatus``.
    :ivar label: its label in the line ``queue`` of ``sio status``.
    """

    key: str
    label: str
    metric: Metric


#: In the order of ``sio status``.
QUEUE: tuple[QueueFigure, ...] = (
    QueueFigure(
        "hosts",
        "other hosts",
        Metric(Kind.GAUGE, "queue_hosts", "Other hosts whose heartbeats arrive."),
    ),
    QueueFigure("sent", "sent", Metric(Kind.COUNTER, "queue_sent", "Messages to other hosts.")),
    QueueFigure(
        "received",
        "received",
        Metric(Kind.COUNTER, "queue_received", "Messages from other hosts."),
    ),
    QueueFigure(
        "waiting",
        "waiting",
        Metric(Kind.GAUGE, "queue_waiting", "Messages that wait for message_queue."),
    ),
    QueueFigure(
        "unsent",
        "unsent",
        Metric(Kind.COUNTER, "queue_unsent", "Messages that were lost before they were sent."),
    ),
    QueueFigure(
        "refused",
        "refused",
        Metric(Kind.COUNTER, "queue_refused", "Messages that message_queue refused at first."),
    ),
    QueueFigure(
        "missed",
        "missed",
        Metric(Kind.COUNTER, "queue_missed", "Messages from other hosts that were lost."),
    ),
    QueueFigure(
        "malformed",
        "malformed",
        Metric(Kind.COUNTER, "queue_malformed", "Messages that could not be decoded."),
    ),
)


def reported() -> list[str]:
    """The names of the figures that a worker reports."""
    return [figure.name for figure in WORKER if figure.source is Source.WORKER]


def report(counted: Mapping[str, int]) -> dict[str, int]:
    """The figures of ``load``: 0 if not counted, and ``MOST`` at most."""
    return {name: min(counted.get(name, 0), MOST) for name in reported()}


def read_report(message: Mapping[str, Any]) -> dict[str, int]:
    """Read the figures of a ``load``; those that an older worker does not count are 0.

    :raises ValueError: when a figure is not a count; the text names it.
    """
    figures: dict[str, int] = {}
    for name in reported():
        figures[name] = figure = message.get(name, 0)
        if type(figure) is not int or not 0 <= figure <= MOST:
            raise ValueError(f"{name!r} is not a count")
    return figures


def totals(section: Section) -> list[tuple[Figure, Total]]:
    """The figures that are summed in a section."""
    rows = ((figure, figure.total) for figure in WORKER)
    return [(figure, total) for figure, total in rows if total and total.section is section]


def top_columns() -> list[tuple[Figure, TopColumn]]:
    """In the order of ``sio top``."""
    columns = [(figure, figure.top) for figure in WORKER if figure.top]
    return sorted(columns, key=lambda row: row[1].last)
