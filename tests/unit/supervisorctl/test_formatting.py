from __future__ import annotations

import io
import re
from types import SimpleNamespace
from typing import Any, Optional

import pytest

from supervisor_sio.common import figures
from supervisor_sio.common.figures import Source
from supervisor_sio.supervisorctl.commands import run
from supervisor_sio.supervisorctl.formatting import (
    format_sockets,
    format_status,
    format_workers,
    is_well,
)
from supervisor_sio.supervisorctl.session import Session
from supervisor_sio.supervisord.status import ProcessInfo, RouterInfo, build_status

NOW = 1_000_000.0
ROUTER = ProcessInfo("sio", 10, "RUNNING", NOW - 60, "supervisor-sio router")
FIGURES: dict[str, Any] = {
    "handed_over": 1200,
    "handed_back": 34,
    "waiting": 5,
    "refused": {},
    "relay_alive": True,
    "messages": 2**40,
    "delivered": 12,
    "sent_again": 3,
    "dropped": 2,
    "malformed": 1,
}


READY = {"tag": "0a1b2c3d", "name": "workers:workers_00", "pid": 20, "state": "ready"}


def worker(number: int, pid: int, state: str) -> ProcessInfo:
    command = "supervisor-sio worker chat:app"
    return ProcessInfo(f"workers:workers_{number:02d}", pid, state, NOW - 93784, command)


def status(
    *processes: ProcessInfo, figures: Optional[dict[str, Any]] = None, since: float = NOW - 3661
) -> dict[str, Any]:
    """What ``getStatus`` answers; without figures the router is down."""
    return build_status(
        listen=["127.0.0.1:8000", "unix:/run/app.sock"],
        router=None if figures is None else RouterInfo(10, since, figures),
        processes=processes,
        known_workers=(),
        memory={20: 40 * 1024 + 600},
        now=NOW,
    )


def lines(answer: dict[str, Any]) -> list[str]:
    return list(format_status(answer))


def test_everything_runs() -> None:
    member = {"tag": "0a1b2c3d", "name": "workers:workers_00", "pid": 20, "state": "ready"}
    figures = {**FIGURES, "workers": [{**member, "sessions": 7, "connections": 12}]}
    answer = status(
        ROUTER,
        worker(0, 20, "RUNNING"),
        worker(1, 0, "FATAL"),
        worker(2, 0, "STOPPED"),
        figures=figures,
    )
    assert lines(answer) == [
        "listen   127.0.0.1:8000, unix:/run/app.sock",
        "router   pid 10, uptime 1:01:01, handed over 1200, handed back 34, waiting 5, refused 0",
        "relay    running, messages 1099511627776, delivered 12, sent again 3, dropped 2, "
        "malformed 1",
        "clients  protocol errors 0, too slow 0",
        "",
        "worker              tag       pid  state    sessions  connections  uptime          memory",
        "workers:workers_00  0a1b2c3d  20   ready    7         12           1 day, 2:03:04  41 MiB",
        "workers:workers_01  -         -    fatal    -         -            -               -",
        "workers:workers_02  -         -    stopped  -         -            -               -",
    ]


def test_processes_of_different_versions() -> None:
    """The remark names the processes with older versions, which must be restarted."""

    def versions(of_supervisord: str, of_router: str, *of_workers: str) -> list[str]:
        rows = [
            {**READY, "name": f"workers:workers_{number:02d}", "pid": 20 + number, "version": each}
            for number, each in enumerate(of_workers)
        ]
        processes = [worker(number, 20 + number, "RUNNING") for number in range(len(rows))]
        figures = {**FIGURES, "version": of_router, "workers": rows}
        answer = status(ROUTER, *processes, figures=figures)
        answer["supervisord"]["version"] = of_supervisord
        return [line[9:] for line in lines(answer) if line.startswith("version  ")]

    supervisord = "supervisord runs 1.9, others 1.10: restart supervisord if the changelog says so"
    router = "the router runs 1.9, others 1.10: supervisorctl restart sio"
    assert versions("1.9", "1.9", "1.9", "1.9") == []
    assert versions("1.9", "1.9") == []
    assert versions("1.9", "1.9", "1.10", "1.10") == [supervisord, router]
    assert versions("1.9", "1.10", "1.10", "1.9") == [
        supervisord,
        "workers:workers_01 runs 1.9, others 1.10: supervisorctl sio reload workers:workers_01",
    ]
    assert versions("1.10", "1.9", "1.9", "1.9") == [
        router,
        "all workers run 1.9, others 1.10: supervisorctl sio reload",
    ]
    assert versions("1.10", "1.10", "1.9", "1.9", "1.10rc1", "1.10")[0] == (
        "workers:workers_02 runs 1.10rc1, others 1.10: supervisorctl sio reload workers:workers_02"
    )
    assert versions("1.10", "1.10", "1.9", "1.9", "1.10") == [
        "workers:workers_00, workers:workers_01 run 1.9, others 1.10: "
        "supervisorctl sio reload workers:workers_00 workers:workers_01"
    ]
    # Who has yet to connect, or cannot say it.
    assert versions("1.9", "1.9", "", "1.9") == versions("", "", "1.9") == []
    assert versions("1.10", "1.10", "1.9", "") == [
        "workers:workers_00 runs 1.9, others 1.10: supervisorctl sio reload workers:workers_00"
    ]


def test_the_order_of_versions() -> None:
    order = ["1.9", "1.10.dev1", "1.10a1", "1.10b1", "1.10rc9", "1.10rc10", "1.10", "1.10+local"]
    order += ["1.10.post1", "1.10.1", "2.0.dev3+g1a2b", "2.0"]
    for number, older in enumerate(order):
        for newer in order[number + 1 :]:
            answer = status(ROUTER, figures={**FIGURES, "version": older})
            answer["supervisord"]["version"] = newer
            line = f"version  the router runs {older}, others {newer}: supervisorctl restart sio"
            assert [each for each in lines(answer) if each.startswith("version  ")] == [line]


def test_what_was_refused() -> None:
    answer = status(figures={**FIGURES, "refused": {"reset": 2, "garbage": 2**33}})
    assert lines(answer)[1].endswith(", refused 8589934594 (garbage 8589934592, reset 2)")


def test_what_moved() -> None:
    moved = {"takes": True, "taken_over": 11, "passed_on": 14, "held": 1}
    figures = {**FIGURES, **moved, "not_moved": {"session-data": 2, "handler-running": 1}}
    (line,) = [line for line in lines(status(figures=figures)) if line.startswith("takeover")]
    assert line == (
        "takeover taken over 11, passed on 14, held 1, not moved 3 (handler-running 1, "
        "session-data 2)"
    )


@pytest.mark.parametrize(
    ("figures", "shown"),
    [
        ({}, False),
        ({"takes": False, "held": 0, "not_moved": {}, "passed_on": 0}, False),
        ({"takes": True}, True),
        ({"passed_on": 5}, True),  # while all of them restart
        ({"held": 4}, True),  # the same, with a new router
        ({"not_moved": {"no-router": 1}}, True),
    ],
)
def test_a_cluster_without_takeover_says_nothing_of_it(
    figures: dict[str, Any], shown: bool
) -> None:
    answer = status(figures={**FIGURES, **figures})
    assert any(line.startswith("takeover") for line in lines(answer)) is shown
    del answer["takeover"]  # as from a supervisord that an upgrade has left running
    assert not any(line.startswith("takeover") for line in lines(answer))


def test_what_was_recovered() -> None:
    counted = {"recovers": True, "recovered": 11, "lost": 3, "kept_bytes": 2**33}
    figures = {**FIGURES, **counted, "not_recovered": {"unknown-pid": 2, "not-kept": 1}}
    (line,) = [line for line in lines(status(figures=figures)) if line.startswith("recovery")]
    assert line == (
        "recovery recovered 11, lost 3, kept bytes 8589934592, not recovered 3 (not-kept 1, "
        "unknown-pid 2)"
    )


@pytest.mark.parametrize(
    ("figures", "shown"),
    [
        ({}, False),
        ({"recovers": False, "recovered": 0, "lost": 0, "not_recovered": {}}, False),
        ({"recovers": True}, True),
        ({"recovered": 5}, True),
        ({"lost": 4}, True),
        ({"not_recovered": {"no-owner": 1}}, True),
    ],
)
def test_a_cluster_without_recovery_says_nothing_of_it(
    figures: dict[str, Any], shown: bool
) -> None:
    answer = status(figures={**FIGURES, **figures})
    assert any(line.startswith("recovery") for line in lines(answer)) is shown
    del answer["recovery"]  # as from a supervisord that an upgrade has left running
    assert not any(line.startswith("recovery") for line in lines(answer))


RECYCLING: dict[str, Any] = {
    "state": "on",
    "worker": "workers:workers_00",
    "reason": "memory",
    "text": "memory 512 MB of 500",
    "step": "waiting for its process to end",
    "seconds": 3,
    "waiting": [{"worker": "workers:workers_01", "text": "is due, memory 501 MB of 500"}],
    "recycled": {"memory": 3, "lifetime": 0, "hung": 1},
}


def test_who_is_recycled_and_how_many_were() -> None:
    member = {**READY, "state": "draining"}
    answer = status(worker(0, 20, "RUNNING"), figures={**FIGURES, "workers": [member]})
    answer["recycling"] = RECYCLING
    shown = lines(answer)
    assert "recycled 4 (hung 1, memory 3)" in shown
    remarks = [
        "workers:workers_00 recycling, memory 512 MB of 500: waiting for its process to end, 3 s",
        "workers:workers_01 is due, memory 501 MB of 500",
    ]
    assert shown[-2:] == list(format_workers(answer))[-2:] == remarks
    assert max(map(len, format_status(answer, 80))) <= 80
    answer["recycling"] = {**RECYCLING, "worker": "", "waiting": [], "recycled": {"hung": 0}}
    assert "recycled 0" in lines(answer) and lines(answer)[-1].startswith("workers:workers_00  ")


def test_a_cluster_without_limits_says_nothing_of_recycling() -> None:
    answer = status(figures=FIGURES)
    assert not any(line.startswith("recycled") for line in lines(answer))
    answer["recycling"] = {**RECYCLING, "state": "off", "worker": "", "waiting": []}
    assert not any(line.startswith("recycled") for line in lines(answer))
    del answer["recycling"]  # as from a supervisord that an upgrade has left running
    assert not any(line.startswith("recycled") for line in lines(answer))


def test_for_how_long_a_worker_hangs() -> None:
    member = {**READY, "state": "hung", "silent": 75}
    answer = status(worker(0, 20, "RUNNING"), figures={**FIGURES, "workers": [member]})
    assert lines(answer)[-1] == "workers:workers_00 hangs: no report for 0:01:15"


def test_sessions_taken_over_are_a_column_once_there_are_any() -> None:
    members = [{**READY, "opened": 5, "taken_over": count} for count in (0, 3)]
    none, some = (
        format_workers(status(worker(0, 20, "RUNNING"), figures={**FIGURES, "workers": [member]}))
        for member in members
    )
    assert "taken over" not in list(none)[0]
    head, row = some
    assert head[head.index("taken over") :].startswith("taken over")
    assert row.split()[2:5] == ["0", "5", "3"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00:00"),
        (59.9, "0:00:59"),
        (86399, "23:59:59"),
        (86400, "1 day, 0:00:00"),
        (2 * 86400 + 61, "2 days, 0:01:01"),
    ],
)
def test_uptime(seconds: float, text: str) -> None:
    answer = status(figures=FIGURES, since=NOW - seconds)
    assert f"uptime {text}, " in lines(answer)[1]


def test_the_router_is_down() -> None:
    answer = status(ROUTER._replace(pid=0, state="BACKOFF"), worker(0, 20, "RUNNING"))
    assert lines(answer) == [
        "listen   127.0.0.1:8000, unix:/run/app.sock",
        "router   down (sio is BACKOFF), connections wait",
        "relay    down",
        "",
        "worker              tag  pid  state    sessions  connections  uptime          memory",
        "workers:workers_00  -    20   running  0         0            1 day, 2:03:04  41 MiB",
    ]


def test_why_the_router_is_down() -> None:
    down = ROUTER._replace(pid=0, state="FATAL", tail="sio stderr", last_line="no zmq")
    assert lines(status(down))[2:5] == [
        "fault    sio ended, see: supervisorctl tail sio stderr",
        "fault    last line of its log: no zmq",
        "relay    down",
    ]
    assert lines(status(down._replace(last_line="")))[3] == "relay    down"
    assert lines(status(down._replace(state="STOPPED")))[2] == "relay    down"
    unable = status(down._replace(spawn_error="can't find command 'x'"))
    assert lines(unable)[2:4] == [
        "fault    supervisord cannot start sio: can't find command 'x'",
        "relay    down",
    ]
    for key in ("tail", "last_line", "spawn_error"):  # as of a supervisord of an older version
        del unable["router"][key]
    assert lines(unable)[2] == "relay    down"


def test_a_fresh_configuration_is_told_what_to_add() -> None:
    assert lines(status()) == [
        "listen   127.0.0.1:8000, unix:/run/app.sock",
        "no router: add to supervisord's configuration, and run: supervisorctl update",
        "",
        "[eventlistener:sio]",
        "command = supervisor-sio router",
        "events = PROCESS_STATE",
        "",
        "no workers: add a [program:x] with command = supervisor-sio worker module:app",
    ]


def test_a_cluster_of_several_is_told_how_its_router_says_so() -> None:
    assert lines({**status(), "cluster": "shop"})[3:7] == [
        "[eventlistener:shop]",
        "command = supervisor-sio router",
        "events = PROCESS_STATE",
        'environment = SUPERVISOR_SIO_CLUSTER="shop"',
    ]


def test_a_dead_relay_shows() -> None:
    answer = status(ROUTER, figures={**FIGURES, "relay_alive": False})
    assert lines(answer)[2].startswith("relay    down, ")


@pytest.mark.parametrize(
    ("state", "well"),
    [
        ("STARTING", True),
        ("RUNNING", True),
        ("STOPPING", True),
        ("STOPPED", False),
        ("EXITED", False),
        ("BACKOFF", False),
        ("FATAL", False),
        ("UNKNOWN", False),
    ],
)
def test_is_well(state: str, well: bool) -> None:
    processes = ROUTER, worker(0, 20, "RUNNING"), worker(1, 21, state)
    assert is_well(status(*processes, figures={**FIGURES, "workers": [READY]})) is well
    assert not is_well(status(*processes))


@pytest.mark.parametrize("state", ["starting", "drained", "draining"])
def test_it_is_not_well_while_no_worker_takes_clients(state: str) -> None:
    process = worker(0, 20, "RUNNING")
    workers = [{**READY, "state": state}]
    assert not is_well(status(ROUTER, process, figures={**FIGURES, "workers": workers}))
    workers.append({**READY, "tag": "1b2c3d4e", "name": "workers:workers_01", "pid": 21})
    answer = status(
        ROUTER, process, worker(1, 21, "RUNNING"), figures={**FIGURES, "workers": workers}
    )
    assert is_well(answer)


@pytest.mark.parametrize(("seconds", "told"), [(30, False), (45, True)])
def test_a_worker_that_starts_for_long(seconds: int, told: bool) -> None:
    process = worker(0, 20, "RUNNING")._replace(
        started=NOW - seconds, tail="workers:workers_00 stderr"
    )
    line = (
        "workers:workers_00 has been starting for 0:00:45, see: supervisorctl tail "
        "workers:workers_00 stderr; does its module start its own server?"
    )
    answer = status(ROUTER, process, figures=FIGURES)
    assert (lines(answer)[-1] == list(format_workers(answer))[-1] == line) is told
    # To a router that has just begun.
    assert lines(status(ROUTER, process, figures=FIGURES, since=NOW - 1))[-1] != line


def test_a_worker_that_fails_again_and_again() -> None:
    failing = worker(0, 20, "RUNNING")._replace(failures=4, tail="workers:workers_00 stderr")
    answer = status(ROUTER, failing, figures={**FIGURES, "workers": []})
    assert lines(answer)[-1] == (
        "workers:workers_00 failed 4 times, see: supervisorctl tail workers:workers_00 stderr"
    )
    assert not is_well(answer)
    member = {"tag": "0a1b2c3d", "name": "workers:workers_00", "pid": 20, "state": "ready"}
    for state in ("EXITED", "BACKOFF", "FATAL"):
        gone = failing._replace(pid=0, state=state)
        assert any("4 times" in line for line in lines(status(ROUTER, gone, figures=FIGURES)))
    gone = failing._replace(pid=0, state="STOPPED", failures=0)
    assert not any("times" in line for line in lines(status(ROUTER, gone, figures=FIGURES)))
    for failures, well in ((2, True), (3, False)):  # ready right now
        process = failing._replace(failures=failures)
        answer = status(ROUTER, process, figures={**FIGURES, "workers": [member]})
        assert is_well(answer) is well
        assert any("failed 3 times" in line for line in lines(answer)) is not well


def test_what_a_worker_said_when_it_failed_last() -> None:
    failing = worker(0, 0, "BACKOFF")._replace(
        failures=5, tail="workers:workers_00", last_line="RuntimeError: no database", pause=3.6
    )
    answer = status(ROUTER, failing, figures={**FIGURES, "workers": []})
    assert lines(answer)[-3:] == [
        "workers:workers_00 failed 5 times, see: supervisorctl tail workers:workers_00",
        "  last line of its log: RuntimeError: no database",
        "  starts again in 4 s",
    ]
    assert list(format_workers(answer))[-3:] == lines(answer)[-3:]
    assert answer["workers"][0]["pause"] == 3.6
    long = failing._replace(last_line=f"RuntimeError: {'word ' * 40}")
    answer = status(ROUTER, long, figures={**FIGURES, "workers": []})
    assert max(map(len, list(format_status(answer, 80))[-5:])) <= 80
    for row in answer["workers"]:  # as of a supervisord that an upgrade has left running
        del row["last_line"], row["pause"]
    assert lines(answer)[-1].startswith("workers:workers_00 failed 5 times")


def test_a_worker_that_supervisord_cannot_start() -> None:
    unable = worker(0, 0, "FATAL")._replace(
        failures=4, tail="workers:workers_00", last_line="of an earlier life", spawn_error="EACCES"
    )
    answer = status(ROUTER, unable, figures={**FIGURES, "workers": []})
    assert lines(answer)[-1] == (
        "workers:workers_00 failed 4 times, supervisord cannot start it: EACCES"
    )


@pytest.mark.parametrize("show", [format_status, format_workers])
@pytest.mark.parametrize("figure", [7, 123_456])
def test_80_columns_cut_no_heading(show: Any, figure: int) -> None:
    counts = {row.name: figure for row in figures.WORKER if row.source is not Source.PROCESS}
    member = {**READY, **counts, "state": "draining"}
    process = worker(0, 20, "RUNNING")
    answer = status(ROUTER, process, figures={**FIGURES, "workers": [member]})
    answer["workers"][0]["memory"] = 1024 * figure
    piped, shown = "\n".join(show(answer)), list(show(answer, 80))
    assert max(map(len, shown)) <= 80
    heads = [row.status if show is format_status else row.workers for row in figures.WORKER]
    for head in ["worker", "state", *[column.head for column in heads if column]]:
        assert head in piped
        # As a word, and its figure below it.
        assert any(re.search(rf"(^| ){head}( |$)", line) for line in shown), shown


def answer(shown: int, total: int) -> dict[str, Any]:
    """What ``getSockets`` answers."""
    socket = {"sid": "s", "worker": "w", "transport": "t", "address": "a", "rooms": []}
    return {"sockets": [socket] * shown, "total": total, "missing": 0}


@pytest.mark.parametrize(
    ("shown", "total", "line"),
    [
        (3, 4, "3 of 4 clients, --limit 4 shows all"),
        (1000, 10_000, "1000 of 10000 clients, --limit 10000 shows all"),
        (1000, 25_000, "1000 of 25000 clients, --limit 10000 is the maximum"),
        (10_000, 25_000, "10000 of 25000 clients"),
    ],
)
def test_not_all_clients(
    shown: int, total: int, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (last,) = list(format_sockets(answer(shown, total)))[shown + 1 :]
    assert last == line
    # What it advises is taken.
    monkeypatch.setattr(Session, "call", lambda *_, **__: answer(0, 0))
    controller = SimpleNamespace(output=lambda _: None, stdout=io.StringIO(), exitstatus=0)
    advice = line.partition(", ")[2].split()
    run(controller, " ".join(["sockets", *advice[:2]]))
    assert controller.exitstatus == 0


def test_all_clients() -> None:
    assert len(list(format_sockets(answer(3, 3)))) == 4
    assert list(format_sockets(answer(0, 0))) == ["no clients"]
