"""Compute what ``sio top`` shows from two statuses and the time between them. Pure."""

from __future__ import annotations

from typing import Any, Iterable, Mapping, Optional

from ..common import figures
from ..common.clusters import USUAL
from ..common.figures import Figure, Sample, TopColumn

_NOTHING: Mapping[str, float] = {}


def make_sample(before: dict[str, Any], after: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Figures of the later status, and rates; ``None`` for unknown ones."""
    earlier = {(worker["name"], worker["pid"]): worker for worker in before["workers"]}
    workers = [
        _worker(earlier.get((worker["name"], worker["pid"])), worker, seconds)
        for worker in after["workers"]
    ]
    router, relay = after["router"], after["relay"]
    running = router["state"] == "running"
    # A new router counts from zero, so its figures are not compared with its predecessor's.
    same = before["router"]["pid"] == router["pid"]
    base = before if same else {"router": {}, "relay": {}}
    refused = sum(router["refused"].values())
    refused_before = sum(base["router"].get("refused", {}).values())
    return {
        # A supervisord of an older version has one cluster.
        "cluster": after.get("cluster", USUAL),
        "seconds": round(seconds, 3),
        **{
            column.key: _sum(worker[column.key] for worker in workers) if running else None
            for _, column in figures.top_columns()
            if column.sum
        },
        "relay_messages_per_second": _rate(
            base["relay"].get("messages", 0), relay["messages"], seconds
        )
        if running
        else None,
        "waiting": router["waiting"] if running else None,
        "refused": refused if running else None,
        "held": after.get("takeover", {}).get("held", 0) if running else None,
        "lost": after.get("recovery", {}).get("lost", 0) if running else None,
        "refused_per_second": _rate(refused_before, refused, seconds) if running else None,
        "listen": after["listen"],
        "router": {
            "state": router["state"],
            "process": router["process"],
            "statename": router["statename"],
            "pid": router["pid"],
            "cpu_percent": _percent("cpu", base["router"], router, seconds) if running else None,
            "memory": router["memory"],
        },
        "workers": workers,
    }


def _worker(
    before: Optional[dict[str, Any]], after: dict[str, Any], seconds: float
) -> dict[str, Any]:
    known = _reports(after)
    base: Optional[Mapping[str, Any]] = None
    if known:
        if before is None or before["pid"] != after["pid"]:
            base = _NOTHING  # it started in between
        elif _reports(before):
            base = before
    return {
        "name": after["name"],
        "state": after["state"],
        "pid": after["pid"],
        **{
            column.key: _rate_of(figure, column, base, after, seconds)
            if column.sample is not Sample.LEVEL
            else _level(figure, column, after, known)
            for figure, column in figures.top_columns()
        },
    }


def _reports(worker: Mapping[str, Any]) -> bool:
    """Whether the router knows the worker's counters, which it has after the first report.

    A worker that has reported has used CPU time.
    """
    return bool(worker["tag"]) and worker["cpu"] > 0


def _level(
    figure: Figure, column: TopColumn, after: Mapping[str, Any], known: bool
) -> Optional[int]:
    if not (known if figure.counted else after["pid"]):
        return None
    level: float = after.get(figure.key, 0)
    return round(level * column.times)


def _rate_of(
    figure: Figure,
    column: TopColumn,
    before: Optional[Mapping[str, Any]],
    after: Mapping[str, Any],
    seconds: float,
) -> Optional[float]:
    if before is None:
        return None
    if column.sample is Sample.PERCENT:
        return _percent(figure.key, before, after, seconds)
    return _rate(before.get(figure.key, 0), after.get(figure.key, 0), seconds)


def _percent(
    key: str, before: Mapping[str, Any], after: Mapping[str, Any], seconds: float
) -> float:
    return _rate(before.get(key, 0) * 100, after.get(key, 0) * 100, seconds)


def _rate(before: float, after: float, seconds: float) -> float:
    """The rate of a counter; one that decreased was reset to zero."""
    return round((after - before if after >= before else after) / seconds, 1)


def _sum(values: Iterable[Optional[float]]) -> float:
    return round(sum(value or 0 for value in values), 1)
