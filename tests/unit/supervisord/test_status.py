from __future__ import annotations

import xmlrpc.client
from typing import Any, Optional

import pytest

from supervisor_sio.supervisord.status import ProcessInfo, RouterInfo, build_status

NOW = 1_000_000.0
ROUTER = ProcessInfo("sio", 10, "RUNNING", NOW - 60, "supervisor-sio router")
COMMAND = "supervisor-sio worker chat:app"


def worker(name: str = "workers:workers_00", pid: int = 20, state: str = "RUNNING") -> ProcessInfo:
    return ProcessInfo(name, pid, state, NOW - 5 if pid else 0, COMMAND, tail=f"{name} stderr")


def member(name: str = "workers:workers_00", pid: int = 20, **changes: Any) -> dict[str, Any]:
    fields = {"tag": "0a1b2c3d", "name": name, "pid": pid, "state": "ready"}
    counts = {"received": 11, "opened": 70, "events_in": 2**40, "events_out": 13}
    counts.update(cpu_ms=1250, hub_lag_ms=2)
    return {**fields, "sessions": 7, "connections": 9, **counts, **changes}


def status(
    *processes: ProcessInfo,
    members: Optional[list[dict[str, Any]]] = None,
    router: bool = True,
    known: tuple[str, ...] = (),
    **figures: Any,
) -> dict[str, Any]:
    if members is not None:
        figures["workers"] = members
    return build_status(
        listen=["127.0.0.1:8000"],
        router=RouterInfo(10, NOW - 60.5, figures) if router else None,
        processes=processes,
        known_workers=known,
        memory={10: 1024, 12: 512, 20: 2048, 21: 4096},
        belongs=lambda pid, ancestor: pid == ancestor or (pid, ancestor) == (21, 20),
        now=NOW,
    )


def test_a_worker_that_serves() -> None:
    assert status(worker(), members=[member(version="1.2")])["workers"] == [
        {
            "name": "workers:workers_00",
            "tag": "0a1b2c3d",
            "pid": 20,
            "version": "1.2",
            "state": "ready",
            "sessions": 7,
            "connections": 9,
            "received": 11,
            "opened": 70,
            "taken_over": 0,
            "recovered": 0,
            "lost": 0,
            "kept_bytes": 0,
            "events_in": 2.0**40,
            "events_out": 13,
            "silent": 0,
            "cpu": 1.25,
            "hub_lag": 0.002,
            "uptime": 5,
            "memory": 2048,
            "takeover": False,
            "recovery": False,
            "failures": 0,
            "tail": "workers:workers_00 stderr",
            "last_line": "",
            "spawn_error": "",
            "pause": 0,
        }
    ]


def test_a_worker_behind_a_wrapper_shows_its_own_pid() -> None:
    (row,) = status(worker(pid=20), members=[member(pid=21)])["workers"]
    assert (row["pid"], row["memory"]) == (21, 4096)


def test_an_old_worker_behind_a_wrapper_is_a_row_of_its_own() -> None:
    members = [member(pid=12, tag="old"), member(pid=21, tag="new")]
    first, second = status(worker(pid=20), members=members)["workers"]
    assert (first["tag"], first["pid"], first["name"]) == ("new", 21, "workers:workers_00")
    assert (second["tag"], second["pid"], second["name"]) == ("old", 12, "workers:workers_00")
    first, second = status(worker(pid=20), members=members[:1])["workers"]
    assert (first["tag"], first["state"]) == ("", "starting")
    first, second = status(worker(pid=0, state="STOPPED"), members=members[:1])["workers"]
    assert (first["state"], second["state"]) == ("stopped", "ready")


@pytest.mark.parametrize("state", ["STOPPED", "EXITED", "FATAL", "BACKOFF"])
@pytest.mark.parametrize("members", [[], [member(pid=22)]], ids=["gone", "not yet missed"])
def test_a_worker_that_does_not_run(state: str, members: list[dict[str, Any]]) -> None:
    (row,) = status(worker(pid=0, state=state), members=members)["workers"]
    assert row == {
        "name": "workers:workers_00",
        "tag": "",
        "pid": 0,
        "version": "",
        "state": state.lower(),
        "sessions": 0,
        "connections": 0,
        "received": 0,
        "opened": 0,
        "taken_over": 0,
        "recovered": 0,
        "lost": 0,
        "kept_bytes": 0,
        "events_in": 0,
        "events_out": 0,
        "silent": 0,
        "cpu": 0.0,
        "hub_lag": 0.0,
        "uptime": 0,
        "memory": 0,
        "takeover": False,
        "recovery": False,
        "failures": 0,
        "tail": "workers:workers_00 stderr",
        "last_line": "",
        "spawn_error": "",
        "pause": 0,
    }


@pytest.mark.parametrize(
    ("supervisors", "joined", "shown"),
    [
        ("STARTING", None, "starting"),
        ("RUNNING", None, "starting"),  # it has not found the router yet
        ("STARTING", "ready", "ready"),
        ("RUNNING", "starting", "starting"),
        ("RUNNING", "draining", "draining"),
        ("STOPPING", "ready", "draining"),
        ("STOPPING", None, "stopping"),
        ("UNKNOWN", "ready", "unknown"),
    ],
)
def test_states_while_the_router_runs(supervisors: str, joined: Optional[str], shown: str) -> None:
    members = [member(state=joined)] if joined else []
    (row,) = status(worker(state=supervisors), members=members)["workers"]
    assert row["state"] == shown


def test_workers_while_the_router_is_down() -> None:
    answer = status(
        ROUTER._replace(pid=0, state="FATAL", tail="sio stderr", last_line="no zmq"),
        worker(),
        worker("b", 0, "STOPPED"),
        router=False,
    )
    assert [(row["name"], row["state"], row["pid"]) for row in answer["workers"]] == [
        ("workers:workers_00", "running", 20),
        ("b", "stopped", 0),
    ]
    assert answer["router"] == {
        "state": "down",
        "process": "sio",
        "statename": "FATAL",
        "tail": "sio stderr",
        "last_line": "no zmq",
        "spawn_error": "",
        "pid": 0,
        "version": "",
        "uptime": 0,
        "memory": 0,
        "cpu": 0.0,
        "handed_over": 0,
        "handed_back": 0,
        "waiting": 0,
        "refused": {},
        "faults": [],
    }
    assert answer["relay"]["state"] == "down"


def test_no_router_is_configured() -> None:
    answer = status(worker(), router=False)
    assert (answer["router"]["process"], answer["router"]["statename"]) == ("", "")


def test_a_router_that_has_sent_no_figures_yet() -> None:
    answer = status(ROUTER)
    assert (answer["router"]["state"], answer["relay"]["state"]) == ("running", "down")
    assert answer["workers"] == []


def test_the_figures_of_router_and_relay() -> None:
    answer = status(
        ROUTER,
        members=[],
        version="1.2",
        cpu_ms=500,
        handed_over=5,
        handed_back=2,
        waiting=1,
        refused={"garbage": 3},
        relay_alive=True,
        messages=4,
        delivered=8,
        dropped=1,
        sent_again=3,
        malformed=2,
    )
    assert answer["listen"] == ["127.0.0.1:8000"]
    assert answer["router"] == {
        "state": "running",
        "process": "sio",
        "statename": "RUNNING",
        "tail": "",
        "last_line": "",
        "spawn_error": "",
        "pid": 10,
        "version": "1.2",
        "uptime": 60,
        "memory": 1024,
        "cpu": 0.5,
        "handed_over": 5,
        "handed_back": 2,
        "waiting": 1,
        "refused": {"garbage": 3},
        "faults": [],
    }
    assert answer["relay"] == {
        "state": "running",
        "messages": 4,
        "delivered": 8,
        "dropped": 1,
        "sent_again": 3,
        "malformed": 2,
    }


def test_who_is_a_worker() -> None:
    other = ProcessInfo("cron", 30, "RUNNING", NOW, "cron -f")
    script = ProcessInfo("chat", 31, "RUNNING", NOW, "python chat.py")
    names = [row["name"] for row in status(ROUTER, other, script, worker())["workers"]]
    assert names == ["workers:workers_00"]
    names = [row["name"] for row in status(other, script, members=[member("chat", 31)])["workers"]]
    assert names == ["chat"]
    stopped = script._replace(pid=0, state="STOPPED")
    names = [row["name"] for row in status(other, stopped, known=("chat", "gone"))["workers"]]
    assert names == ["chat"]


def test_a_worker_that_supervisord_did_not_start() -> None:
    (row,) = status(members=[member("pid 21", 21)])["workers"]
    assert (row["name"], row["pid"], row["state"]) == ("pid 21", 21, "ready")
    assert (row["uptime"], row["memory"]) == (0, 4096)


def test_a_worker_that_was_removed_and_is_not_yet_missed() -> None:
    """Else a reload right after a scale fails: supervisord has no process of this name."""
    removed = member("workers:workers_01", 22)
    (row,) = status(worker(), members=[member(), removed])["workers"]
    assert row["name"] == "workers:workers_00"


@pytest.mark.parametrize("count", [0, 2**31 - 1, 2**31, 2**60])
def test_any_count_fits_into_xmlrpc(count: int) -> None:
    relay = ("messages", "delivered", "dropped", "sent_again", "malformed")
    answer = status(
        worker(),
        members=[member(received=count)],
        **dict.fromkeys(("handed_over", "handed_back", *relay), count),
        refused={"garbage": count},
    )
    (back,), _ = xmlrpc.client.loads(xmlrpc.client.dumps((answer,), methodresponse=True))
    assert back == answer
    assert back["relay"]["messages"] == count


@pytest.mark.parametrize("state", ["STARTING", "RUNNING"])
def test_a_worker_that_failed_before_and_is_not_ready(state: str) -> None:
    (row,) = status(worker(state=state)._replace(failures=2), members=[])["workers"]
    assert (row["state"], row["failures"]) == ("failing", 2)
    (row,) = status(worker(state=state)._replace(failures=2), members=[member()])["workers"]
    assert (row["state"], row["failures"]) == ("ready", 2)
