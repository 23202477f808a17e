from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse
from prometheus_client.samples import Sample

from supervisor_sio import __version__
from supervisor_sio.common.event_figures import OTHERS, EventRow
from supervisor_sio.router.health import Snapshot, ailment
from supervisor_sio.router.metrics import Metrics
from supervisor_sio.router.pool import Member
from supervisor_sio.router.run_once import Row

ONE = Member(
    tag="aa",
    name="workers:workers_00",
    pid=os.getpid(),
    ready=True,
    figures={
        "sessions": 5,
        "connections": 7,
        "received": 11,
        "dropped": 1,
        "malformed": 2,
        "sent_again": 3,
        "opened": 50,
        "events_in": 400,
        "events_out": 600,
        "cpu_ms": 12_345,
        "hub_lag_ms": 4,
        "protocol_errors": 8,
        "slow_clients": 9,
        "taken_over": 10,
        "recovered": 11,
        "lost": 12,
        "kept_bytes": 13,
    },
    handshakes=51,
    events=(
        EventRow("/", "echo", 7, 3_500_000, 2),
        EventRow("/chat", "echo", 1, 20, 0),
        EventRow(OTHERS, OTHERS, 4, 0, 0),
    ),
)
TWO = Member("bb", 'odd "name"\\', 2**22 + 1, ready=True, drained=True, figures={"sessions": 2})
SNAPSHOT = Snapshot(
    taken=100.0,
    handed_over=21,
    handed_back=3,
    waiting=2,
    refused={"garbage": 4, "max-pending": 1},
    passed_on=8,
    held=3,
    not_moved={"session-data": 2},
    not_recovered={"unknown-pid": 5},
    recycled={"memory": 2, "hung": 0},
    relay_alive=True,
    relay_messages=42,
    queue={
        "connected": True,
        "hosts": 2,
        "sent": 10,
        "received": 20,
        "waiting": 1,
        "unsent": 3,
        "refused": 6,
        "missed": 4,
        "malformed": 5,
    },
    tasks=(
        Row("cleanup", "failed", "", 7, 2, 1, 3, 5, 4),
        Row("ticker", "running", "aa", 8, 60, 0, 0, 6, 0),
    ),
    members=(ONE, TWO),
)


def metrics_of(snapshot: Snapshot, *reports: Member) -> Metrics:
    metrics = Metrics()
    for member in reports:
        metrics.reported(member)
    metrics.update(snapshot)
    metrics.tick()
    return metrics


def samples(metrics: Metrics) -> Iterator[Sample]:
    """As Prometheus reads them, without our prefix."""
    for family in parse(generate_latest(metrics.registry).decode()):
        for sample in family.samples:
            assert family.documentation and family.type != "unknown", family.name
            yield sample._replace(name=sample.name.replace("supervisor_sio_", "", 1))


def values(metrics: Metrics, **labels: str) -> dict[str, float]:
    return {s.name: s.value for s in samples(metrics) if s.labels == labels}


def names(metrics: Metrics) -> set[str]:
    return {s.name for s in samples(metrics)}


def test_router_relay_and_queue() -> None:
    found = values(metrics_of(SNAPSHOT))
    wanted = {
        "connections_handed_over_total": 21,
        "connections_handed_back_total": 3,
        "connections_waiting": 2,
        "sessions_passed_on_total": 8,
        "sessions_held": 3,
        "relay_up": 1,
        "relay_messages_total": 42,
        "queue_connected": 1,
        "queue_hosts": 2,
        "queue_waiting": 1,
        "queue_sent_total": 10,
        "queue_received_total": 20,
        "queue_unsent_total": 3,
        "queue_refused_total": 6,
        "queue_missed_total": 4,
        "queue_malformed_total": 5,
    }
    assert found | wanted == found
    assert found["start_time_seconds"] > 1.7e9
    assert found["process_resident_memory_bytes"] > 1e6


def test_labelled_figures_of_the_router() -> None:
    found = list(samples(metrics_of(SNAPSHOT)))
    refused = {s.labels["reason"]: s.value for s in found if s.name == "connections_refused_total"}
    assert refused == {"garbage": 4, "max-pending": 1}
    not_moved = {s.labels["reason"]: s.value for s in found if s.name == "sessions_not_moved_total"}
    assert not_moved == {"session-data": 2}
    (lost,) = [s for s in found if s.name == "clients_not_recovered_total"]
    assert (lost.labels, lost.value) == ({"reason": "unknown-pid"}, 5)
    recycled = {s.labels["reason"]: s.value for s in found if s.name == "workers_recycled_total"}
    assert recycled == {"memory": 2, "hung": 0}
    (build,) = [s.labels for s in found if s.name == "build_info"]
    assert build["version"] == __version__


def test_workers() -> None:
    found = values(metrics_of(SNAPSHOT), worker=ONE.name)
    memory = found.pop("worker_resident_memory_bytes")
    assert 2e6 < memory < 1e10
    assert found == {
        "worker_sessions": 5,
        "worker_connections": 7,
        "sessions_placed_total": 51,
        "worker_sessions_opened_total": 50,
        "worker_sessions_taken_over_total": 10,
        "worker_clients_recovered_total": 11,
        "worker_clients_lost": 12,
        "worker_recovery_kept_bytes": 13,
        "worker_events_received_total": 400,
        "worker_events_sent_total": 600,
        "worker_cpu_seconds_total": 12.345,
        "worker_protocol_errors_total": 8,
        "worker_slow_clients_total": 9,
        "relay_delivered_total": 11,
        "relay_sent_again_total": 3,
        "relay_dropped_total": 1,
        "relay_malformed_total": 2,
    }
    other = values(metrics_of(SNAPSHOT), worker=TWO.name)
    assert other["worker_sessions"] == 2 and other["worker_resident_memory_bytes"] == 0


@pytest.mark.parametrize("draining", [False, True])
@pytest.mark.parametrize("drained", [False, True])
@pytest.mark.parametrize("ready", [False, True])
@pytest.mark.parametrize("hung", [False, True])
def test_one_state_is_1(hung: bool, ready: bool, drained: bool, draining: bool) -> None:
    member = replace(ONE, hung=hung, ready=ready, drained=drained, draining=draining)
    metrics = metrics_of(Snapshot(members=(member,)))
    states = {s.labels["state"]: s.value for s in samples(metrics) if s.name == "worker_state"}
    assert sorted(states) == ["drained", "draining", "hung", "ready", "starting"]
    assert [state for state, value in states.items() if value] == [member.state]
    assert sum(states.values()) == 1


def test_two_members_of_one_name_make_one_series() -> None:
    """The next process has joined before the previous one has left."""
    successor = replace(ONE, tag="cc", figures={"sessions": 1})
    metrics = metrics_of(replace(SNAPSHOT, members=(ONE, successor)), ONE, successor)
    found = [(s.name, tuple(s.labels.items())) for s in samples(metrics)]
    assert len(found) == len(set(found))
    assert values(metrics, worker=ONE.name)["worker_sessions"] == 1


def test_there_need_be_nothing() -> None:
    found = names(metrics_of(Snapshot()))
    assert (
        "relay_up" in found and "worker_sessions" not in found and "queue_sent_total" not in found
    )


def test_hand_overs() -> None:
    metrics = metrics_of(SNAPSHOT)
    for seconds in (0.00005, 0.0001, 0.0002, 0.3, 29.0, 31.0):
        metrics.handed_over(seconds)
    buckets = {
        s.labels["le"]: s.value for s in samples(metrics) if s.name == "handover_seconds_bucket"
    }
    wanted = {"0.0001": 2, "0.00025": 3, "0.25": 3, "0.5": 4, "30.0": 5, "+Inf": 6}
    assert buckets | wanted == buckets
    found = values(metrics)
    assert found["handover_seconds_count"] == 6
    assert found["handover_seconds_sum"] == pytest.approx(60.30035)


def lag(metrics: Metrics, member: Member = ONE) -> tuple[float, float]:
    found = values(metrics, worker=member.name)
    return found["worker_hub_lag_seconds_count"], found["worker_hub_lag_seconds_sum"]


def test_the_worst_lag_of_each_second() -> None:
    metrics = metrics_of(SNAPSHOT, ONE, replace(ONE, figures={"hub_lag_ms": 200}), ONE, TWO)
    assert lag(metrics) == (1, 0.2)
    assert lag(metrics, TWO) == (1, 0)
    metrics.tick()
    assert lag(metrics) == (1, 0.2), "a worker that hangs reports nothing"
    metrics.reported(replace(ONE, figures={"hub_lag_ms": 3000}))
    metrics.update(SNAPSHOT)
    assert lag(metrics) == (1, 0.2), "the second is not over"
    metrics.tick()
    assert lag(metrics) == (2, 3.2)


def test_a_worker_that_has_left_is_left_out() -> None:
    metrics = metrics_of(SNAPSHOT, ONE, TWO)
    metrics.reported(ONE)
    metrics.update(replace(SNAPSHOT, members=(TWO,)))
    metrics.tick()
    assert not values(metrics, worker=ONE.name)
    assert lag(metrics, TWO) == (1, 0)
    metrics.reported(ONE)
    metrics.update(SNAPSHOT)
    metrics.tick()
    assert lag(metrics) == (1, 0.004)


def test_openmetrics() -> None:
    text = openmetrics.generate_latest(metrics_of(SNAPSHOT, ONE).registry).decode()
    found = {sample.name for family in parse_open(text) for sample in family.samples}
    assert "supervisor_sio_connections_handed_over_total" in found


@pytest.mark.parametrize(
    "change, now, reason",
    [
        ({}, 100.0, ""),
        ({}, 104.9, ""),
        ({}, 107.0, "the router has been stuck for 7 seconds"),
        ({"relay_alive": False}, 100.0, "the relay is down"),
        ({"relay_alive": False, "members": ()}, 100.0, "the relay is down"),
        ({"members": ()}, 100.0, "no worker is ready"),
        ({"members": (TWO,)}, 100.0, "no worker is ready"),
        ({"members": (replace(ONE, draining=True),)}, 100.0, "no worker is ready"),
        ({"members": (replace(ONE, ready=False),)}, 100.0, "no worker is ready"),
        ({"members": (replace(ONE, ready=False), ONE)}, 100.0, ""),
        ({"queue": {"connected": False}}, 100.0, ""),
    ],
)
def test_health(change: dict[str, Any], now: float, reason: str) -> None:
    assert ailment(replace(SNAPSHOT, **change), now) == reason


def test_names_are_as_prometheus_wants_them() -> None:
    for family in metrics_of(SNAPSHOT).registry.collect():
        assert re.fullmatch(r"(supervisor_sio|process)_[a-z_]+", family.name)
        assert not family.name.endswith(("_ms", "_kib", "_total")), family.name
        assert (family.type == "counter") == any(
            sample.name.endswith("_total") for sample in family.samples
        )


def test_tasks_and_who_runs_them() -> None:
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for sample in samples(metrics_of(SNAPSHOT))
        if sample.name.startswith("task_")
    }
    assert found == {
        ("task_running", "ticker", "workers:workers_00"): 1,
        ("task_given_total", "cleanup"): 5,
        ("task_given_total", "ticker"): 6,
        ("task_failures_total", "cleanup"): 4,
        ("task_failures_total", "ticker"): 0,
    }
    assert not any(
        s.name.startswith("task_") for s in samples(metrics_of(replace(SNAPSHOT, tasks=())))
    )


def test_events_of_each_worker() -> None:
    found = {
        (sample.name, *map(sample.labels.get, ("worker", "namespace", "event"))): sample.value
        for sample in samples(metrics_of(SNAPSHOT, ONE))
        if sample.name.startswith("worker_event_") and not sample.name.endswith("_created")
    }
    name = ONE.name
    assert found == {
        ("worker_event_handlers_total", name, "/", "echo"): 7,
        ("worker_event_handlers_total", name, "/chat", "echo"): 1,
        ("worker_event_handlers_total", name, OTHERS, OTHERS): 4,
        ("worker_event_handler_seconds_total", name, "/", "echo"): 3.5,
        ("worker_event_handler_seconds_total", name, "/chat", "echo"): 0.00002,
        ("worker_event_handler_seconds_total", name, OTHERS, OTHERS): 0,
        ("worker_event_handler_failures_total", name, "/", "echo"): 2,
        ("worker_event_handler_failures_total", name, "/chat", "echo"): 0,
        ("worker_event_handler_failures_total", name, OTHERS, OTHERS): 0,
    }


def test_the_document_lists_each_metric_with_its_labels() -> None:
    found: set[str] = set()
    for sample in samples(metrics_of(SNAPSHOT, ONE)):
        if not sample.name.startswith("process_"):
            name = re.sub("_(bucket|sum|count|created)$", "", sample.name)
            labels = sorted(sample.labels.keys() - {"le", "version", "python"}, reverse=True)
            found.add(f"{name}{{{','.join(labels)}}}" if labels else name)  # worker, then others
    document = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
    section = document.partition("\n| metric, behind `supervisor_sio_` |")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    listed = {name for cell in cells for name in re.findall("`([^`]+)`", cell)}
    assert listed - {"process_…"} == found


def test_the_dashboard_uses_metrics_that_exist() -> None:
    text = (files("supervisor_sio.examples") / "grafana.json").read_text("utf-8")
    dashboard = json.loads(text)
    known = {
        sample.name
        for family in parse(generate_latest(metrics_of(SNAPSHOT, ONE).registry).decode())
        for sample in family.samples
    }
    queries = [
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])
    ]
    used = {name for query in queries for name in re.findall(r"[a-z_]+_[a-z_]+", query)}
    used = {name for name in used if name.startswith(("supervisor_sio_", "process_"))}
    assert used and used <= known
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in dashboard["panels"])
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
