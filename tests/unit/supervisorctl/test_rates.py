from __future__ import annotations

import copy
from typing import Any

from supervisor_sio.supervisorctl.rates import make_sample
from supervisor_sio.supervisorctl.top import fit, format_sample
from supervisor_sio.supervisord.status import ProcessInfo, RouterInfo, build_status

NOW = 1_000_000.0


def figures(name: str, pid: int, **more: int) -> dict[str, Any]:
    member = {"tag": f"tag{pid}", "name": name, "pid": pid, "state": "ready", "sessions": 3}
    counters = {"opened": 10, "events_in": 100, "events_out": 200, "cpu_ms": 1000, "hub_lag_ms": 4}
    return {**member, **counters, **more}


def status(*members: dict[str, Any], router: int = 10, **more: Any) -> dict[str, Any]:
    known = {"relay_alive": True, "messages": 50, "cpu_ms": 500, "waiting": 2, "refused": {"a": 1}}
    processes = [
        ProcessInfo("sio", router, "RUNNING" if router else "STOPPED", NOW, "supervisor-sio router")
    ]
    processes += [
        ProcessInfo(member["name"], member["pid"], "RUNNING", NOW, "supervisor-sio worker a:b")
        for member in members
    ]
    answer = {**known, "workers": list(members), **more}
    return build_status(
        listen=["127.0.0.1:8000"],
        router=RouterInfo(router, NOW, answer) if router else None,
        processes=processes,
        known_workers=(),
        memory={20: 2048, 10: 1024},
        now=NOW,
    )


def rates(sample: dict[str, Any], row: int = 0) -> list[Any]:
    worker = sample["workers"][row]
    names = "connects_per_second", "events_in_per_second", "events_out_per_second", "cpu_percent"
    return [worker[name] for name in names]


def test_rates_of_a_worker_and_of_all() -> None:
    before = status(figures("w:0", 20), figures("w:1", 21))
    after = status(
        figures("w:0", 20, opened=14, events_in=300, events_out=201, cpu_ms=2500),
        figures("w:1", 21, opened=12),
        messages=150,
        cpu_ms=600,
        refused={"a": 1, "b": 4},
    )
    sample = make_sample(before, after, 2.0)
    assert rates(sample) == [2.0, 100.0, 0.5, 75.0]
    assert rates(sample, 1) == [1.0, 0.0, 0.0, 0.0]
    assert sample["sessions"] == 6
    assert sample["connects_per_second"] == 3.0
    assert sample["events_in_per_second"] == 100.0
    assert sample["relay_messages_per_second"] == 50.0
    assert (sample["refused"], sample["refused_per_second"]) == (5, 2.0)
    assert sample["router"]["cpu_percent"] == 5.0
    assert sample["workers"][0]["hub_lag_ms"] == 4
    assert sample["workers"][0]["memory"] == 2048


def test_a_restarted_worker_counts_from_zero() -> None:
    before = status(figures("w:0", 20))
    for after in (
        status(figures("w:0", 33, opened=6, events_in=150, events_out=0, cpu_ms=200)),
        status(figures("w:0", 20, opened=6, events_in=50, events_out=0, cpu_ms=200)),
    ):
        assert rates(make_sample(before, after, 1.0))[0] == 6.0
    after = status(figures("w:0", 33, opened=12, events_in=150))
    assert rates(make_sample(before, after, 1.0))[:2] == [12.0, 150.0]


def test_workers_come_and_go() -> None:
    one, two = figures("w:0", 20), figures("w:1", 21)
    assert rates(make_sample(status(one), status(one, two), 1.0), 1)[0] == 10.0
    assert [w["name"] for w in make_sample(status(one, two), status(two), 1.0)["workers"]] == [
        "w:1"
    ]


def test_the_router_is_down() -> None:
    worker = figures("w:0", 20)
    for before in (status(worker), status(worker, router=0)):
        sample = make_sample(before, status(worker, router=0), 1.0)
        assert sample["sessions"] is sample["connects_per_second"] is sample["waiting"] is None
        assert rates(sample) == [None] * 4
        lines = list(format_sample(sample))
        assert lines[1] == "router   down (sio is STOPPED), connections wait"
        assert lines[-1].split() == ["w:0", "running", "-", "-", "-", "-", "-", "2", "MiB", "-"]


def test_what_a_new_router_learns_late_is_no_burst() -> None:
    worker = figures("w:0", 20, events_in=10**6)
    unreported = {**worker, "opened": 0, "events_in": 0, "events_out": 0, "cpu_ms": 0}
    down, new = status(worker, router=0), status(worker, router=11, messages=7)
    assert rates(make_sample(down, new, 1.0)) == [None] * 4
    assert rates(make_sample(status(worker), status(unreported, router=11), 1.0)) == [None] * 4
    assert rates(make_sample(status(unreported, router=11), new, 1.0)) == [None] * 4
    assert make_sample(status(worker, messages=5), new, 1.0)["relay_messages_per_second"] == 7.0
    assert rates(make_sample(status(worker), new, 1.0)) == [0.0] * 4


def test_neither_status_is_changed() -> None:
    before, after = status(figures("w:0", 20)), status(figures("w:0", 20))
    copies = copy.deepcopy((before, after))
    make_sample(before, after, 1.0)
    assert (before, after) == copies


def test_a_sample_at_80_columns() -> None:
    before = status(figures("workers:workers_00", 20))
    after = status(figures("workers:workers_00", 20, opened=1010, events_in=100100))
    lines = list(format_sample(make_sample(before, after, 1.0), 80))
    assert lines == [
        "listen   127.0.0.1:8000",
        "cluster  sessions 3, set-ups 1000/s, events in 100000/s, out 0.0/s,",
        "         relay messages 0.0/s, waiting 2, refused 1",
        "router   pid 10, CPU 0 %, 1 MiB",
        "",
        "worker              state  sessions  connects/s   in/s out/s CPU % memory lag ms",
        "workers:workers_00  ready         3        1000 100000   0.0     0  2 MiB      4",
    ]


def test_a_screen_says_what_it_does_not_show() -> None:
    assert fit(["a", "b", "c"], 80, 3) == ["a", "b", "c"]
    assert fit(["a", "b", "c", "d"], 80, 3) == ["a", "b", "… 2 more"]
    assert fit(["abcdef"], 4, 3) == ["abc…"]
