"""A worker's figures on their whole way, from ``load`` to what users read.

``golden/`` has what was shown before there was a table.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Iterable

import pytest
from prometheus_client import generate_latest

from supervisor_sio._version import __version__
from supervisor_sio.common import figures
from supervisor_sio.common.figures import (
    Column,
    Figure,
    Kind,
    Metric,
    QueueFigure,
    Sample,
    Section,
    Source,
    TopColumn,
    Total,
)
from supervisor_sio.router import metrics, sums
from supervisor_sio.router.health import Snapshot
from supervisor_sio.router.metrics import Metrics
from supervisor_sio.router.pool import Member
from supervisor_sio.supervisorctl.formatting import format_status, format_workers
from supervisor_sio.supervisorctl.rates import make_sample
from supervisor_sio.supervisorctl.top import format_sample
from supervisor_sio.supervisord.status import ProcessInfo, RouterInfo, build_status

GOLDEN = Path(__file__).with_name("golden")
NOW = 1000.0

NAMES = (
    *("sessions", "connections", "handshakes_seen", "opened", "events_in", "events_out"),
    *("cpu_ms", "hub_lag_ms", "received", "dropped", "malformed", "sent_again"),
    *("protocol_errors", "slow_clients", "no_descriptor"),
)

GONE = Counter(
    received=1,
    dropped=2,
    malformed=3,
    sent_again=4,
    protocol_errors=5,
    slow_clients=6,
    no_descriptor=7,
)


def counted(least: int, step: int, **more: int) -> dict[str, int]:
    return {**{name: least + step * i for i, name in enumerate(NAMES)}, **more}


EARLIER = [counted(100, 7), counted(3, 1)]
LATER = [counted(1100, 37), counted(5, 2, events_in=2**40)]


def members(workers: Iterable[dict[str, int]]) -> list[Member]:
    """The workers after each has sent its ``load``."""
    reports = [figures.read_report(json.loads(json.dumps(figures.report(w)))) for w in workers]
    return [
        Member(
            f"tag{i}", f"workers:workers_{i:02}", 20 + i, ready=True, figures=report, handshakes=120
        )
        for i, report in enumerate(reports)
    ]


def status(workers: Iterable[dict[str, int]], number: int) -> dict[str, Any]:
    """``sio.getStatus`` of two workers that serve, one that is stopped, and one that starts."""
    known = members(workers)
    processes = [ProcessInfo("sio", 10, "RUNNING", NOW - 60, "supervisor-sio router")]
    command = "supervisor-sio worker a:b"
    processes += [
        ProcessInfo(member.name, member.pid, "RUNNING", NOW - 50, command, tail="t")
        for member in known
    ]
    processes += [
        ProcessInfo("workers:workers_02", 0, "STOPPED", 0.0, command, tail="t"),
        ProcessInfo("workers:workers_03", 29, "RUNNING", NOW - 3, command, tail="t"),
    ]
    refused = Counter({"garbage": number, "no-descriptor": 1})
    refused.update(sums.totals(Section.REFUSED, known, GONE))
    message = {
        "cpu_ms": 250 * number,
        "handed_over": 10 * number,
        "handed_back": number,
        "waiting": 2,
        "refused": refused,
        "relay_alive": True,
        "messages": 50 * number,
        **sums.totals(Section.RELAY, known, GONE),
        **sums.totals(Section.CLIENTS, known, GONE),
        "workers": sums.rows(known),
    }
    return build_status(
        listen=["127.0.0.1:8000"],
        router=RouterInfo(10, NOW - 55, json.loads(json.dumps(message))),
        processes=processes,
        known_workers=(),
        memory={10: 3000, 20: 5000, 21: 70000, 29: 9},
        now=NOW,
    )


def exposition(workers: Iterable[dict[str, int]]) -> list[str]:
    """What is exported of workers, sorted."""
    known = members(workers)
    exporter = Metrics()
    for member in known:
        exporter.reported(member)
    exporter.update(Snapshot(members=tuple(known)))
    exporter.tick()
    # The oldest prometheus_client writes an exponent in another way.
    lines = generate_latest(exporter.registry).decode().replace("e+012", "e+12").splitlines()
    return sorted(
        line
        for line in lines
        if ("worker=" in line or line.startswith("#")) and "_created" not in line
    )


def text(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "process_memory", lambda pid: pid * 100)


def test_what_is_shown_is_what_was_shown(memory: None) -> None:
    before, after = status(EARLIER, 1), status(LATER, 2)
    sample = make_sample(before, after, 2.0)
    expected = json.loads((GOLDEN / "status.json").read_text())
    expected["supervisord"]["version"] = __version__
    assert after == expected
    assert sample == json.loads((GOLDEN / "sample.json").read_text())
    for name, lines in {
        "status.txt": format_status(after),
        "workers.txt": format_workers(after),
        "top.txt": format_sample(sample),
        "metrics.txt": exposition(LATER),
    }.items():
        assert text(lines) == (GOLDEN / name).read_text(), name


WEBSOCKETS = Figure(
    "websockets",
    key="websockets",
    metric=Metric(Kind.COUNTER, "worker_websockets", "Websockets of the worker."),
    total=Total(Section.CLIENTS, "websockets", "websockets"),
    status=Column("websockets"),
    workers=Column("ws", times=10, digits=2),
    top=TopColumn("ws/s", "websockets_per_second", Sample.PER_SECOND, sum="websockets"),
)
EXTENDED = (*figures.WORKER[:2], WEBSOCKETS, *figures.WORKER[2:])


def cell(lines: Iterable[str], head: str, worker: str) -> str:
    """What the table at the end has for a worker in a column; heads before it are one word."""
    rows = [line.split() for line in lines]
    (heads,) = [row for row in rows if row[:1] == ["worker"]]
    (row,) = [row for row in rows if row[:1] == [worker]]
    return row[heads.index(head)]


def test_a_new_row_is_seen_everywhere(monkeypatch: pytest.MonkeyPatch, memory: None) -> None:
    monkeypatch.setattr(figures, "WORKER", EXTENDED)
    earlier = [{**worker, "websockets": 6} for worker in EARLIER]
    later = [{**worker, "websockets": 10 + i} for i, worker in enumerate(LATER)]
    before, after = status(earlier, 1), status(later, 2)
    sample = make_sample(before, after, 2.0)
    assert [worker["websockets"] for worker in after["workers"]] == [10, 11, 0, 0]
    assert after["clients"]["websockets"] == 21
    assert sample["websockets_per_second"] == 4.5
    assert sample["workers"][1]["websockets_per_second"] == 2.5
    lines = list(format_status(after))
    assert "clients  websockets 21, protocol errors " in text(lines)
    assert cell(lines, "websockets", "workers:workers_01") == "11"
    assert cell(format_workers(after), "ws", "workers:workers_01") == "110.00"
    lines = list(format_sample(sample))
    assert ", websockets 4.5/s, " in text(lines)
    assert cell(lines, "ws/s", "workers:workers_01") == "2.5"
    found = exposition(later)
    assert "# HELP supervisor_sio_worker_websockets_total Websockets of the worker." in found
    assert 'supervisor_sio_worker_websockets_total{worker="workers:workers_01"} 11.0' in found


def of_queue(counted: dict[str, Any]) -> tuple[dict[str, Any], str, list[str]]:
    """What the status, the line of ``sio status`` and the metrics say of other hosts."""
    answer = build_status(
        listen=[],
        router=RouterInfo(10, NOW, {"queue": counted}),
        processes=[],
        known_workers=(),
        memory={},
        now=NOW,
        queue="redis://10.0.0.5:6379/0",
    )
    (line,) = [line for line in format_status(answer) if line.startswith("queue ")]
    exporter = Metrics()
    exporter.update(Snapshot(queue=counted))
    found = generate_latest(exporter.registry).decode().splitlines()
    return answer["queue"], line, found


def test_the_queue_to_other_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("hosts", "sent", "received", "waiting", "unsent", "refused", "missed", "malformed")
    counted = {"connected": True, **{name: number for number, name in enumerate(names, 1)}}
    answer, line, _ = of_queue(counted)
    own = {"url": "redis://10.0.0.5:6379/0", "state": "connected"}
    assert answer == {**own, **{name: counted[name] for name in names}}
    assert line == (
        "queue    redis://10.0.0.5:6379/0 connected, other hosts 1, sent 2, received 3, "
        "waiting 4, unsent 5, refused 6, missed 7, malformed 8"
    )
    row = QueueFigure("late", "too late", Metric(Kind.COUNTER, "queue_late", "Came late."))
    monkeypatch.setattr(figures, "QUEUE", (*figures.QUEUE, row))
    answer, line, found = of_queue({**counted, "late": 9})
    assert answer["late"] == 9 and line.endswith(", malformed 8, too late 9")
    assert "supervisor_sio_queue_late_total 9.0" in found


def test_a_new_figure_of_the_worst_second_is_a_histogram(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Figure("gc_ms", per=1000, metric=Metric(Kind.WORST, "worker_gc_seconds", "Of a pause."))
    monkeypatch.setattr(figures, "WORKER", (*figures.WORKER, row))
    found = exposition([{**LATER[0], "gc_ms": 40}])
    assert 'supervisor_sio_worker_gc_seconds_sum{worker="workers:workers_00"} 0.04' in found


def test_workers_and_supervisords_of_an_older_version(monkeypatch: pytest.MonkeyPatch) -> None:
    old = status(LATER, 1), status(LATER, 2)
    load = figures.report(LATER[0])
    monkeypatch.setattr(figures, "WORKER", EXTENDED)
    assert figures.read_report(load)["websockets"] == 0
    assert cell(format_status(old[1]), "websockets", "workers:workers_01") == "0"
    assert make_sample(*old, 1.0)["websockets_per_second"] == 0


@pytest.mark.parametrize("figure", [-1, 2**53 + 1, 1.0, True, "1", None, [], float("inf")])
@pytest.mark.parametrize("name", ["sessions", "no_descriptor"])
def test_a_figure_that_is_not_a_count(name: str, figure: Any) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is not a count"):
        figures.read_report({**figures.report({}), name: figure})


def test_a_worker_reports_nothing_that_its_router_refuses() -> None:
    report = figures.report({"sessions": 2**60, "opened": 3})
    assert (report["sessions"], report["opened"], report["dropped"]) == (2**53, 3, 0)
    assert figures.read_report(report) == report


def test_the_rows_do_not_collide() -> None:
    rows = figures.WORKER
    own = {"name", "tag", "pid", "state", "failures", "tail", "last_line", "spawn_error", "pause"}
    for names in (
        [row.name for row in rows],
        [row.key for row in rows if row.key],
        [row.metric.name for row in rows if row.metric],
        [row.total.key for row in rows if row.total],
        [row.top.key for row in rows if row.top],
    ):
        assert len(names) == len(set(names))
        assert not own & set(names)
    for row in rows:
        assert row.key or not (row.status or row.workers or row.top), row.name
        if row.source is Source.ROUTER:
            assert isinstance(getattr(Member("t", "n", 1), row.name), int)
        if row.source is Source.PROCESS:
            assert not row.total and (not row.metric or row.name in metrics._OF_PROCESS)
