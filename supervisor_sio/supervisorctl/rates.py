"""What ``sio top`` shows: pure, from two statuses and the time between them."""

from __future__ import annotations

from typing import Any, Iterable, Mapping, Optional

_NOTHING: Mapping[str, float] = {}


def make_sample(before: dict[str, Any], after: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Figures of the later status, and rates; ``None`` where nothing is known."""
    earlier = {(worker["name"], worker["pid"]): worker for worker in before["workers"]}
    workers = [
        _worker(earlier.get((worker["name"], worker["pid"])), worker, seconds)
        for worker in after["workers"]
    ]
    router, relay = after["router"], after["relay"]
    running = router["state"] == "running"
    # Another router counts from zero; a figure is then not compared with its predecessor's.
    same = before["router"]["pid"] == router["pid"]
    base = before if same else {"router": {}, "relay": {}}
    refused = sum(router["refused"].values())
    refused_before = sum(base["router"].get("refused", {}).values())
    return {
        "seconds": round(seconds, 3),
        "sessions": sum(worker["sessions"] or 0 for worker in workers) if running else None,
        **{
            name: _sum(worker[name] for worker in workers) if running else None
            for name in ("connects_per_second", "events_in_per_second", "events_out_per_second")
        },
        "relay_messages_per_second": _rate(
            base["relay"].get("messages", 0), relay["messages"], seconds
        )
        if running
        else None,
        "waiting": router["waiting"] if running else None,
        "refused": refused if running else None,
        "refused_per_second": _rate(refused_before, refused, seconds) if running else None,
        "listen": after["listen"],
        "router": {
            "state": router["state"],
            "process": router["process"],
            "statename": router["statename"],
            "pid": router["pid"],
            "cpu_percent": _percent(base["router"], router, seconds) if running else None,
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
            base = _NOTHING  # it started meanwhile
        elif _reports(before):
            base = before
    return {
        "name": after["name"],
        "state": after["state"],
        "pid": after["pid"],
        "sessions": after["sessions"] if known else None,
        "connects_per_second": _rate_of("opened", base, after, seconds),
        "events_in_per_second": _rate_of("events_in", base, after, seconds),
        "events_out_per_second": _rate_of("events_out", base, after, seconds),
        "cpu_percent": None if base is None else _percent(base, after, seconds),
        "memory": after["memory"] if after["pid"] else None,
        "hub_lag_ms": round(after["hub_lag"] * 1000) if known else None,
    }


def _reports(worker: Mapping[str, Any]) -> bool:
    """Whether its counters are known: a new router has them with the worker's first report.

    A worker that reports has used CPU time.
    """
    return bool(worker["tag"]) and worker["cpu"] > 0


def _rate_of(
    name: str, before: Optional[Mapping[str, Any]], after: Mapping[str, Any], seconds: float
) -> Optional[float]:
    return None if before is None else _rate(before.get(name, 0), after[name], seconds)


def _percent(before: Mapping[str, Any], after: Mapping[str, Any], seconds: float) -> float:
    return _rate(before.get("cpu", 0) * 100, after["cpu"] * 100, seconds)


def _rate(before: float, after: float, seconds: float) -> float:
    """A counter that went down has started again from zero."""
    return round((after - before if after >= before else after) / seconds, 1)


def _sum(rates: Iterable[Optional[float]]) -> float:
    return round(sum(rate or 0.0 for rate in rates), 1)
