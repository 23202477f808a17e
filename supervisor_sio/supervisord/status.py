"""Build the answer of ``sio.getStatus`` from what supervisord and the router know. Pure."""

from __future__ import annotations

import operator
from typing import Any, Callable, Iterable, NamedTuple, Optional

from .._version import __version__
from ..common import figures as table
from ..common.commands import subcommand_of
from ..common.figures import Section

_LARGEST_XMLRPC_INT = 2**31 - 1


class ProcessInfo(NamedTuple):
    """What supervisord knows of a process."""

    name: str  # as in supervisorctl: group:process, or just the name
    pid: int  # 0 when it does not run
    state: str  # Supervisor's state, in capitals
    started: float  # seconds of the host's monotonic clock
    command: str
    #: Failures in a row, see :class:`.lives.Failures`.
    failures: int = 0
    #: The argument of ``supervisorctl tail`` that shows its errors.
    tail: str = ""
    #: The last line of its log at its last failure.
    last_line: str = ""
    #: Why supervisord could not start it.
    spawn_error: str = ""
    #: Seconds until it is started again, if it is held back after failures.
    pause: float = 0.0


class RouterInfo(NamedTuple):
    """A router with an open channel to supervisord."""

    pid: int
    since: float  # seconds of the host's monotonic clock
    figures: dict[str, Any]


def build_status(
    *,
    listen: list[str],
    router: Optional[RouterInfo],
    processes: Iterable[ProcessInfo],
    known_workers: Iterable[str],
    memory: dict[int, int],
    now: float,
    belongs: Callable[[int, int], bool] = operator.eq,
    queue: str = "",
    errors: int = 0,
    recycling: Optional[dict[str, Any]] = None,
) -> dict[str, Any]:
    """The status of the cluster as an XML-RPC struct.

    :param queue: the URL of ``message_queue`` without a password.
    :param errors: number of caught exceptions of supervisor-sio in supervisord.
    :param recycling: the struct about recycling.
    :param known_workers: names of processes that were workers before; they are listed also while
        they are stopped.
    :param memory: resident KiB by pid.
    :param now: seconds of the host's monotonic clock.
    :param belongs: whether a process is another one or its descendant, by their pids.
    """
    processes = list(processes)
    figures = router.figures if router else {}
    members: list[dict[str, Any]] = figures.get("workers", [])
    known = set(known_workers)

    workers = []
    by_name: dict[str, list[dict[str, Any]]] = {}
    for each in members:
        by_name.setdefault(each["name"], []).append(each)
    for process in processes:
        named = by_name.get(process.name, [])
        own = [member for member in named if process.pid and belongs(member["pid"], process.pid)]
        if named or process.name in known or subcommand_of(process.command) == "worker":
            member = own[-1] if own else None
            workers.append(_worker(process, member, router is not None, memory, now))
            # Workers that a start script without exec left running.
            left = [other for other in named if other is not member and _runs(other, memory)]
            workers += [_stranger(other, memory, now) for other in left]
    ours = {process.name for process in processes}
    others = [member for member in members if member["name"] not in ours and _runs(member, memory)]
    workers += [_stranger(member, memory, now) for member in others]

    routers = (process for process in processes if subcommand_of(process.command) == "router")
    listener = next(routers, None)
    return {
        "listen": listen,
        "supervisord": {"errors": errors, "version": __version__},
        "router": {
            "state": "running" if router else "down",
            "process": listener.name if listener else "",
            "statename": listener.state if listener else "",
            "tail": listener.tail if listener else "",
            "last_line": listener.last_line if listener else "",
            "spawn_error": listener.spawn_error if listener else "",
            "pid": router.pid if router else 0,
            "version": figures.get("version", ""),
            "uptime": int(now - router.since) if router else 0,
            "memory": memory.get(router.pid, 0) if router else 0,
            "cpu": figures.get("cpu_ms", 0) / 1000,
            "handed_over": _number(figures.get("handed_over", 0)),
            "handed_back": _number(figures.get("handed_back", 0)),
            "waiting": figures.get("waiting", 0),
            "refused": _by_reason(figures.get("refused", {})),
            "faults": figures.get("faults", []),
        },
        "relay": {
            "state": "running" if figures.get("relay_alive") else "down",
            "messages": _number(figures.get("messages", 0)),
            **_totals(Section.RELAY, figures),
        },
        "clients": _totals(Section.CLIENTS, figures),
        "takeover": {
            "state": "on" if figures.get("takes") else "off",
            **_totals(Section.TAKEOVER, figures),
            "held": _number(figures.get("held", 0)),
            "not_moved": _by_reason(figures.get("not_moved", {})),
        },
        "recovery": {
            "state": "on" if figures.get("recovers") else "off",
            **_totals(Section.RECOVERY, figures),
            "not_recovered": _by_reason(figures.get("not_recovered", {})),
        },
        "queue": {
            "url": queue,
            "state": _queue_state(figures.get("queue", {})) if queue else "none",
            **{row.key: _number(figures.get("queue", {}).get(row.key, 0)) for row in table.QUEUE},
        },
        "recycling": recycling or {},
        # Empty without a router, and of one of an older version.
        "rebalancing": figures.get("rebalancing", {}),
        "tasks": [_task(row, members) for row in figures.get("tasks", [])],
        "workers": workers,
    }


def _task(row: dict[str, Any], members: list[dict[str, Any]]) -> dict[str, Any]:
    """A task of ``run_once()``, and the worker that runs it."""
    named = [member["name"] for member in members if row["tag"] and member["tag"] == row["tag"]]
    return {
        "name": row["name"],
        "state": row["state"],
        "worker": named[0] if named else "",
        **{
            key: _number(row[key])
            for key in ("number", "seconds", "pause", "failures", "given", "failed")
        },
    }


def _totals(section: Section, figures: dict[str, Any]) -> dict[str, float]:
    return {total.key: _number(figures.get(total.key, 0)) for _, total in table.totals(section)}


def _by_reason(counted: dict[str, float]) -> dict[str, float]:
    return {reason: _number(count) for reason, count in counted.items()}


def _queue_state(figures: dict[str, Any]) -> str:
    return "connected" if figures.get("connected") else "away"


def _runs(member: dict[str, Any], memory: dict[int, int]) -> bool:
    """Whether its process is there: the figures may still have one that has just ended."""
    return bool(memory.get(member["pid"]))


def _stranger(member: dict[str, Any], memory: dict[int, int], now: float) -> dict[str, Any]:
    """A worker that supervisord has not started, or that outlived its process."""
    process = ProcessInfo(member["name"], member["pid"], "RUNNING", now, "")
    return _worker(process, member, True, memory, now)


def _worker(
    process: ProcessInfo,
    member: Optional[dict[str, Any]],
    router_up: bool,
    memory: dict[int, int],
    now: float,
) -> dict[str, Any]:
    state = process.state.lower()
    if process.state in ("STARTING", "RUNNING") and router_up:
        state = "failing" if process.failures else "starting"
        if member:
            state = member["state"]
    elif process.state == "STOPPING" and member:
        state = "draining"
    if member is None or not process.pid:
        member = {}
    pid = member.get("pid", process.pid)
    known: dict[str, float] = {
        **member,
        "uptime": int(now - process.started) if process.pid else 0,
        "memory": memory.get(pid, 0),
    }
    return {
        "name": process.name,
        "tag": member.get("tag", ""),
        "pid": pid,
        "version": member.get("version", ""),
        "state": state,
        **{
            figure.key: _number(figure.shown(known.get(figure.name, 0)))
            for figure in table.WORKER
            if figure.key
        },
        # Whether its sessions move to another worker when it is stopped.
        "takeover": bool(member.get("takes")),
        # Whether its clients may come back to another worker when it dies.
        "recovery": bool(member.get("recovers")),
        "failures": process.failures,
        "tail": process.tail,
        "last_line": process.last_line,
        "spawn_error": process.spawn_error,
        "pause": round(process.pause, 1),
    }


def _number(value: float) -> float:
    """XML-RPC integers have 32 bits, so a larger count is sent as a double."""
    return value if value <= _LARGEST_XMLRPC_INT else float(value)
