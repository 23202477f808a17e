"""Format the answers of ``sio.*`` as the lines that ``supervisorctl sio`` prints. Pure."""

from __future__ import annotations

from typing import Any, Iterable, Optional, Sequence

from ..common import figures
from ..common.clusters import CLUSTER, USUAL
from ..common.figures import Figure, Section, Unit
from .tables import Column, fold, table
from .versions import format_versions

#: States of a worker that is configured to serve and does not.
STOPPED = {"stopped", "exited", "fatal", "backoff", "unknown"}

#: States of a worker that was started and ended without being stopped.
FAILED = STOPPED - {"stopped"} | {"failing"}

#: A worker with so many failures in a row counts as not well, even while it is ready.
_MANY_FAILURES = 3

#: Supervisor's states of a process that ended by itself.
_ENDED = {"BACKOFF", "EXITED", "FATAL"}

#: Seconds after which a worker that is still starting gets a remark: most applications are imported
#: within a few.
_LONG_START = 30

#: Width of the labels ``listen``, ``router``, ``relay`` and so on.
INDENT = 9

#: Clients that ``sio sockets`` shows at most.
MOST_SOCKETS = 10_000

NO_RPCINTERFACE = """\
supervisord runs without the sio plugin: add to its configuration

[rpcinterface:sio]
supervisor.rpcinterface_factory = supervisor_sio.rpcinterface:make_rpcinterface

and run: supervisorctl reload"""

_NO_LISTENER = """\
no router: add to supervisord's configuration, and run: supervisorctl update

[eventlistener:{cluster}]
command = supervisor-sio router
events = PROCESS_STATE"""

_ENVIRONMENT = '\nenvironment = {variable}="{cluster}"'

_NO_WORKERS = "no workers: add a [program:x] with command = supervisor-sio worker module:app"

_STATUS = (Column("worker", gives="middle"), Column("tag"), Column("pid"), Column("state"))
_WORKERS = (Column("worker", gives="middle"), Column("state"))
_SOCKETS = (
    Column("sid"),
    Column("worker", gives="middle"),
    Column("transport"),
    Column("address", gives="end"),
    Column("rooms", gives="end"),
)
_ROOMS = (Column("room", gives="end"), Column("sockets", right=True))


def is_well(status: dict[str, Any]) -> bool:
    """Whether all configured parts are serving."""
    router = status["router"]
    return (
        router["state"] == "running"
        and not router["faults"]
        and workers_are_well(status["workers"])
    )


def workers_are_well(workers: list[dict[str, Any]]) -> bool:
    """Whether all workers are well; starting or draining is well if another worker is ready."""
    if workers and not any(worker["state"] == "ready" for worker in workers):
        return False
    return not any(
        worker["state"] in STOPPED | {"hung", "failing"} or worker["failures"] >= _MANY_FAILURES
        for worker in workers
    )


def split_by_readiness(workers: list[dict[str, Any]]) -> dict[str, Any]:
    """The names of the ready workers, and the other workers with their states."""
    return {
        "ready": [worker["name"] for worker in workers if worker["state"] == "ready"],
        "not_ready": [
            {"name": worker["name"], "state": worker["state"]}
            for worker in workers
            if worker["state"] != "ready"
        ],
    }


def readiness(workers: list[dict[str, Any]]) -> str:
    """The ready and the other workers, as one line."""
    split = split_by_readiness(workers)
    count = f"{len(split['ready'])} of {len(workers)} worker{'s' if len(workers) > 1 else ''}"
    if not split["not_ready"]:
        return f"ready: {count}"
    others = ", ".join(f"{worker['name']} ({worker['state']})" for worker in split["not_ready"])
    return f"not ready: {others}; ready: {count}"


def format_status(status: dict[str, Any], width: Optional[int] = None) -> Iterable[str]:
    """The lines that ``sio status`` prints."""
    for line in _parts(status):
        yield from fold(line, width, INDENT)
    yield ""
    if status["workers"]:
        shown = [(figure, figure.status) for figure in figures.WORKER if figure.status]
        heads = [
            Column(column.head, gives="end" if figure.unit is Unit.SECONDS else "")
            for figure, column in shown
        ]
        rows = [_status_row(worker, shown) for worker in status["workers"]]
        yield from table([*_STATUS, *heads], rows, width)
        yield from _remarks(status, width)
    else:
        yield from fold(_NO_WORKERS, width, 0)


def _parts(status: dict[str, Any]) -> Iterable[str]:
    router, relay = status["router"], status["relay"]
    yield f"listen   {', '.join(status['listen'])}"
    yield from format_versions(status)
    errors = status["supervisord"]["errors"]
    if errors:
        yield f"errors   {errors} of supervisor-sio inside supervisord, see its log"
    if router["state"] != "running":
        yield from router_down(status)
        if router["process"]:
            yield "relay    down"
        return
    yield (
        f"router   pid {router['pid']}, uptime {_duration(router['uptime'])}, "
        f"handed over {router['handed_over']:.0f}, handed back {router['handed_back']:.0f}, "
        f"waiting {router['waiting']}, refused {_by_reason(router['refused'])}"
    )
    for fault in router["faults"]:
        yield f"fault    {fault}"
    yield (
        f"relay    {relay['state']}, messages {relay['messages']:.0f}, "
        f"{_totals(Section.RELAY, relay)}"
    )
    yield f"clients  {_totals(Section.CLIENTS, status['clients'])}"
    yield from _takeover(status.get("takeover", {}))
    yield from _recovery(status.get("recovery", {}))
    if status["queue"]["state"] != "none":
        yield _queue(status["queue"])
    yield from _recycled(status.get("recycling", {}))
    yield from _rebalancing(status.get("rebalancing", {}))
    yield from map(_task, status.get("tasks", ()))


def _recycled(recycling: dict[str, Any]) -> Iterable[str]:
    """The line about recycling, if the workers have limits."""
    if recycling.get("state") == "on":
        yield f"recycled {_by_reason(recycling['recycled'])}"


def _rebalancing(rebalancing: dict[str, Any]) -> Iterable[str]:
    """Nothing while there is none."""
    if rebalancing.get("state", "idle") != "idle":
        yield f"rebalance {how_far(rebalancing)}"


def how_far(rebalancing: dict[str, Any]) -> str:
    """Of one that is under way."""
    closed, left, away = rebalancing["closed"], rebalancing["left"], rebalancing["away"]
    if rebalancing["state"] == "closing":
        not_back = f", {away} have not reconnected yet" if away else ""
        return f"{closed} of {closed + left} clients disconnected{not_back}"
    return f"waiting for {away} {'client' if away == 1 else 'clients'} to reconnect"


def disconnected(closed: int) -> str:
    """How many clients a rebalance has disconnected."""
    return "1 client was disconnected" if closed == 1 else f"{closed} clients were disconnected"


def spread(workers: list[dict[str, Any]]) -> str:
    """How many clients each of those that are ready has."""
    counts = [worker["sessions"] for worker in workers if worker["state"] == "ready"]
    if not counts:
        return "no worker is ready"
    least, most = min(counts), max(counts)
    return f"{least} clients each" if least == most else f"{least} to {most} clients each"


def _totals(section: Section, sums: dict[str, float]) -> str:
    return ", ".join(
        f"{total.label} {sums.get(total.key, 0):.0f}" for _, total in figures.totals(section)
    )


def _takeover(takeover: dict[str, Any]) -> Iterable[str]:
    """The line about takeover, if it is on or has moved sessions before."""
    not_moved = takeover.get("not_moved", {})
    counted = takeover.get("passed_on") or takeover.get("held") or not_moved
    if takeover.get("state") == "on" or counted:
        yield (
            f"takeover {_totals(Section.TAKEOVER, takeover)}, held {takeover['held']:.0f}, "
            f"not moved {_by_reason(not_moved)}"
        )


def _recovery(recovery: dict[str, Any]) -> Iterable[str]:
    """The line about recovery, if it is on or has recovered sessions before."""
    not_recovered = recovery.get("not_recovered", {})
    counted = recovery.get("recovered") or recovery.get("lost") or not_recovered
    if recovery.get("state") == "on" or counted:
        yield (
            f"recovery {_totals(Section.RECOVERY, recovery)}, "
            f"not recovered {_by_reason(not_recovered)}"
        )


def _task(task: dict[str, Any]) -> str:
    """The line about a task of ``run_once()``."""
    state, since = task["state"], _duration(task["seconds"])
    if state == "running":
        # The name of a worker that is not connected is unknown.
        text = f"runs in {task['worker'] or 'a worker that is away'}, since {since}"
    elif state == "done":
        text = f"is done, since {since}"
    elif state == "failed":
        times = f"{task['failures']:.0f} time{'s' if task['failures'] > 1 else ''}"
        text = f"failed {times} in a row, next try in {_duration(task['pause'])}"
    else:
        text = f"waits for a worker, since {since}"
    return f"task     {task['name']} {text}"


def router_down(status: dict[str, Any]) -> Iterable[str]:
    """The lines of a status without a router: why the cluster's state is unknown."""
    router = status["router"]
    # A supervisord of an older version has one cluster.
    cluster = status.get("cluster", USUAL)
    if router["process"]:
        yield f"router   down ({router['process']} is {router['statename']}), connections wait"
        # A sample of `top`, and a supervisord of an older version, have none of these.
        if router.get("spawn_error"):
            yield f"fault    supervisord cannot start {router['process']}: {router['spawn_error']}"
        elif router.get("tail") and router["statename"] in _ENDED:
            yield f"fault    {router['process']} ended, see: supervisorctl tail {router['tail']}"
            if router["last_line"]:
                yield f"fault    last line of its log: {router['last_line']}"
    else:
        text = _NO_LISTENER + ("" if cluster == USUAL else _ENVIRONMENT)
        yield from text.format(cluster=cluster, variable=CLUSTER).splitlines()


def _queue(queue: dict[str, Any]) -> str:
    counted = ", ".join(f"{row.label} {queue.get(row.key, 0):.0f}" for row in figures.QUEUE)
    return f"queue    {queue['url']} {queue['state']}, {counted}"


_Shown = Sequence[tuple[Figure, figures.Column]]


def _status_row(worker: dict[str, Any], shown: _Shown) -> list[str]:
    pid = str(worker["pid"] or "-")
    cells = [_cell(figure, column, worker) if worker["pid"] else "-" for figure, column in shown]
    return [worker["name"], worker["tag"] or "-", pid, worker["state"], *cells]


def _cell(figure: Figure, column: figures.Column, worker: dict[str, Any]) -> str:
    # A supervisord of an older version does not send new figures.
    value = worker.get(figure.key, 0)
    if figure.unit is Unit.SECONDS:
        return _duration(value)
    if figure.unit is Unit.KIBIBYTES:
        return mebibytes(value)
    return f"{value * column.times:.{column.digits}f}"


def format_workers(status: dict[str, Any], width: Optional[int] = None) -> Iterable[str]:
    """The lines that ``sio workers`` prints."""
    if status["workers"]:
        shown = [
            (figure, figure.workers)
            for figure in figures.WORKER
            if figure.workers
            and not (
                figure.workers.optional
                and not any(worker.get(figure.key) for worker in status["workers"])
            )
        ]
        heads = [Column(column.head, right=True) for _, column in shown]
        rows = [_workers_row(worker, shown) for worker in status["workers"]]
        yield from table([*_WORKERS, *heads], rows, width)
        yield from _remarks(status, width)
    else:
        yield from fold(_NO_WORKERS, width, 0)


def _remarks(status: dict[str, Any], width: Optional[int]) -> Iterable[str]:
    for line in _recycling(status.get("recycling", {})):
        yield from fold(line, width, 2)
    for worker in status["workers"]:
        # Every worker is starting for a router that has just started.
        uptime = min(worker["uptime"], status["router"]["uptime"])
        if worker["state"] == "starting" and uptime > _LONG_START:
            text = (
                f"{worker['name']} has been starting for {_duration(uptime)}, see: "
                f"supervisorctl tail {worker['tail']}; does its module start its own server?"
            )
            yield from fold(text, width, 0)
        if worker.get("silent"):
            yield from fold(
                f"{worker['name']} hangs: no report for {_duration(worker['silent'])}", width, 2
            )
        failures = worker["failures"]
        least = _MANY_FAILURES if worker["state"] == "ready" else 1
        if failures >= least and worker["state"] != "stopped":
            times = f"{failures} time{'s' if failures > 1 else ''}"
            # Without a process its log says nothing.
            error = worker.get("spawn_error")
            where = (
                f"supervisord cannot start it: {error}"
                if error
                else f"see: supervisorctl tail {worker['tail']}"
            )
            text = f"{worker['name']} failed {times}, {where}"
            yield from fold(text, width, 0)
            yield from _last_failure(worker, width)


def _recycling(recycling: dict[str, Any]) -> Iterable[str]:
    if recycling.get("worker"):
        yield (
            f"{recycling['worker']} recycling, {recycling['text']}: {recycling['step']}, "
            f"{recycling['seconds']:.0f} s"
        )
    for row in recycling.get("waiting", ()):
        yield f"{row['worker']} {row['text']}"


def _last_failure(worker: dict[str, Any], width: Optional[int]) -> Iterable[str]:
    # A supervisord of an older version sends none of these.
    if worker.get("last_line") and not worker.get("spawn_error"):
        yield from fold(f"  last line of its log: {worker['last_line']}", width, 4)
    if worker.get("pause"):
        yield f"  starts again in {worker['pause']:.0f} s"


def _workers_row(worker: dict[str, Any], shown: _Shown) -> list[str]:
    cells = [
        _cell(figure, column, worker) if worker["tag" if figure.counted else "pid"] else "-"
        for figure, column in shown
    ]
    return [worker["name"], worker["state"], *cells]


def format_sockets(answer: dict[str, Any], width: Optional[int] = None) -> Iterable[str]:
    """The lines that ``sio sockets`` prints, for an answer of ``getSockets``."""
    sockets = answer["sockets"]
    if sockets:
        yield from table(_SOCKETS, [_socket_row(socket) for socket in sockets], width)
    elif not answer["total"]:
        yield "no clients"
    if answer["total"] > len(sockets):
        more = f"{len(sockets)} of {answer['total']} clients"
        if answer["total"] <= MOST_SOCKETS:
            more += f", --limit {answer['total']} shows all"
        elif len(sockets) < MOST_SOCKETS:
            more += f", --limit {MOST_SOCKETS} is the maximum"
        yield from fold(more, width, 0)
    yield from _missing(answer["missing"])


def _socket_row(socket: dict[str, Any]) -> list[str]:
    rooms = ", ".join(socket["rooms"]) or "-"
    return [socket["sid"], socket["worker"], socket["transport"], socket["address"] or "-", rooms]


def format_rooms(answer: dict[str, Any], width: Optional[int] = None) -> Iterable[str]:
    """The lines that ``sio rooms`` prints, for an answer of ``getRooms``."""
    rows = [[room["room"], str(room["sockets"])] for room in answer["rooms"]]
    if rows:
        yield from table(_ROOMS, rows, width)
    else:
        yield "no rooms"
    if answer["total"] > len(rows):
        yield from fold(f"{len(rows)} of {answer['total']} rooms", width, 0)
    yield from _missing(answer["missing"])


def format_reached(clients: Optional[int], missing: int) -> str:
    """How many clients an emit was sent to, if known.

    :param missing: the number of workers that did not answer.
    """
    if clients is None:
        return ""
    count = f"{clients} client{'' if clients == 1 else 's'}"
    return f" ({', '.join([count, *_missing(missing)])})"


def _missing(workers: int) -> Iterable[str]:
    if workers:
        yield f"{workers} worker{'s' if workers > 1 else ''} did not answer"


def mebibytes(kibibytes: float) -> str:
    return f"{kibibytes / 1024:.0f} MiB"


def _by_reason(reasons: dict[str, float]) -> str:
    counted = {reason: count for reason, count in reasons.items() if count}
    if not counted:
        return "0"
    detail = ", ".join(f"{reason} {count:.0f}" for reason, count in sorted(counted.items()))
    return f"{sum(reasons.values()):.0f} ({detail})"


def _duration(seconds: float) -> str:
    """As ``supervisorctl status`` writes it: ``1 day, 2:03:04``."""
    days, rest = divmod(int(seconds), 86400)
    clock = f"{rest // 3600}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days} day{'s' if days > 1 else ''}, {clock}" if days else clock
