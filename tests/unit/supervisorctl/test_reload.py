from __future__ import annotations

import io
import itertools
import json
import time
from collections import Counter
from typing import Any, Callable, Optional

import pytest
from supervisor.compat import xmlrpclib
from supervisor.states import ProcessStates
from supervisor.xmlrpc import Faults

from supervisor_sio.common.limits import DRAIN_TIME
from supervisor_sio.supervisorctl.commands import run
from supervisor_sio.supervisorctl.reload import by_group
from supervisor_sio.supervisorctl.session import LOOK

FIRST, SECOND, ADDED = (f"w:w_{number}" for number in range(3))
RECYCLING = {"text": "memory 512 MB of 500", "step": "ends", "seconds": 7, "limit": 15}
ADVICE = f"supervisorctl sio scale w 2 removes {ADDED} again"


class Cluster:
    """supervisorctl and the supervisord that it asks, of two workers; notes what it is asked."""

    def __init__(self, takeover: bool = True) -> None:
        self.stdout, self.exitstatus = io.StringIO(), 0
        self.options = self
        self.serverurl = "http://localhost"
        self.said: list[str] = []
        self.asked: list[tuple[Any, ...]] = []
        self.pids = iter(range(10, 100))
        self.takeover = takeover
        self.states = {FIRST: "ready", SECOND: "ready"}
        self.router = "running"
        #: For how many looks supervisord still recycles a worker.
        self.recycles = 0
        self.recycling = RECYCLING
        self.by_name = {name: next(self.pids) for name in self.states}
        #: How often supervisord says of each process that it stops, before it has.
        self.takes = 0
        self.looks: Counter[str] = Counter()
        #: What becomes of a process that is started.
        self.fate = "ready"
        #: Called with each request, before it is done.
        self.before: Callable[..., None] = lambda *request: None

    def output(self, line: str) -> None:
        self.said.append(line)

    def get_supervisor(self) -> Cluster:
        return self

    def get_server_proxy(self, namespace: str) -> Cluster:
        return self

    def _note(self, *request: Any) -> None:
        self.before(*request)
        self.asked.append(request)

    def getStatus(self) -> dict[str, Any]:
        workers = [
            {
                "name": name,
                "state": state,
                "pid": self.by_name[name],
                "tail": name,
                "takeover": self.takeover and state == "ready",
            }
            for name, state in self.states.items()
        ]
        if self.router == "down":  # supervisord alone says what it knows
            for worker in workers:
                worker["state"] = worker["state"].replace("ready", "running")
        router = {"process": "sio", "state": self.router, "statename": "FATAL"}
        self.recycles = max(0, self.recycles - 1)
        recycling = {"worker": SECOND if self.recycles else "", **self.recycling}
        return {"workers": workers, "router": router, "recycling": recycling}

    def getProcessInfo(self, name: str) -> dict[str, Any]:
        self.looks[name] += 1
        stops = self.states[name] != "stopped" or self.looks[name] <= self.takes
        return {
            "exitstatus": 3,
            "spawnerr": "",
            "state": ProcessStates.STOPPING if stops else ProcessStates.STOPPED,
            "statename": "RUNNING",
            "pid": self.by_name[name],
        }

    def scaleGroup(self, name: str, numprocs: str) -> dict[str, Any]:
        self._note("scale", name, numprocs)
        answer = {"group": name, "configured": 2, "added": [], "surplus": [], "kept": []}
        if numprocs == "+1":
            self.states[ADDED], self.by_name[ADDED] = "stopped", 0
            return {**answer, "numprocs": 3, "added": [ADDED]}
        return {**answer, "numprocs": 2, "surplus": [n for n in self.states if n >= "w:w_2"][::-1]}

    def drainWorker(self, name: str) -> None:
        self._note("drain", name)
        self.states[name] = "drained"

    def undrainWorker(self, name: str) -> None:
        self._note("undrain", name)

    def stopProcess(self, name: str, wait: bool) -> None:
        assert not wait, "supervisord would take a whole core meanwhile"
        self._note("stop", name)
        self.states[name] = "stopped"

    def startProcess(self, name: str, wait: bool = True) -> None:
        self._note("start", name)
        self.states[name], self.by_name[name] = self.fate, next(self.pids)

    def removeProcess(self, name: str) -> None:
        self._note("remove", name)
        del self.states[name]


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    times: list[float] = []
    monkeypatch.setattr(time, "sleep", times.append)
    return times


def waits(line: str) -> bool:
    """Whether it says only what is waited for."""
    return "waiting for" in line or "no new clients" in line


def restart(name: str, drained: bool = True) -> list[tuple[str, str]]:
    return [("drain", name)] * drained + [("stop", name), ("start", name)]


def test_workers_by_their_groups() -> None:
    assert by_group(["b:b_1", "a:a_0", "b:b_0", "one"]) == {
        "b": ["b:b_1", "b:b_0"],
        "a": ["a:a_0"],
        "one": ["one"],
    }


def test_without_takeover_a_worker_is_drained_for_a_while(slept: list[float]) -> None:
    cluster = Cluster(takeover=False)
    run(cluster, "reload")
    assert cluster.asked == restart(FIRST) + restart(SECOND)
    assert slept == [DRAIN_TIME, DRAIN_TIME]


def test_with_takeover_it_is_not_or_others_would_adopt(slept: list[float]) -> None:
    cluster = Cluster()
    run(cluster, "reload")
    assert cluster.asked == restart(FIRST, False) + restart(SECOND, False)
    assert not slept


def test_it_waits_until_the_process_has_ended(slept: list[float]) -> None:
    cluster = Cluster()
    cluster.takes = 3
    run(cluster, f"reload {FIRST}")
    assert cluster.asked == restart(FIRST, False)
    assert cluster.looks[FIRST] == 4 and slept == [LOOK] * 3


def test_what_is_said_meanwhile() -> None:
    cluster = Cluster(takeover=False)
    looks = iter([None, None, "running"])
    status = cluster.getStatus

    def getStatus() -> dict[str, Any]:
        cluster.router = next(looks, "running") or "down"
        return status()

    cluster.getStatus = getStatus  # type: ignore[method-assign]
    run(cluster, "reload")
    assert [line.partition(" (pid")[0] for line in cluster.said] == [
        f"{FIRST}: 1 of 2: waiting for the router",
        f"{FIRST}: 1 of 2: drained, waiting for its clients to finish connecting",
        f"{FIRST}: 1 of 2: waiting for its process to end",
        f"{FIRST}: 1 of 2: waiting for the new process to be ready",
        f"{FIRST}: reloaded",
        f"{SECOND}: 2 of 2: drained, waiting for its clients to finish connecting",
        f"{SECOND}: 2 of 2: waiting for its process to end",
        f"{SECOND}: 2 of 2: waiting for the new process to be ready",
        f"{SECOND}: reloaded",
        "ready: 2 of 2 workers",
    ]


@pytest.mark.parametrize("options", ["", " --surge"])
def test_it_waits_while_supervisord_recycles_a_worker(options: str) -> None:
    cluster = Cluster()
    cluster.recycles = 10
    done: list[int] = []
    cluster.before = lambda *request: done.append(cluster.recycles)
    run(cluster, f"reload{options}")
    first = f"{FIRST}: 1 of 2: {SECOND} is recycled (memory 512 MB of 500)"
    assert cluster.said[0 if not options else 2] == first
    assert [name for kind, name, *_ in cluster.asked if kind == "stop"][:2] == [FIRST, SECOND]
    stopped = [left for left, (kind, *_) in zip(done, cluster.asked) if kind in ("drain", "stop")]
    assert not any(stopped) and cluster.exitstatus == 0


@pytest.mark.parametrize("seconds", [3660, 3661])
def test_one_that_has_an_hour_to_end_is_waited_for_a_minute_longer(seconds: int) -> None:
    cluster = Cluster()
    cluster.recycles = 10
    cluster.recycling = {**RECYCLING, "seconds": seconds, "limit": 3600}
    run(cluster, "reload")
    if seconds == 3660:
        assert cluster.exitstatus == 0
    else:
        error = f"{FIRST}: ERROR ({SECOND} is being recycled, ends, for {seconds} s)"
        assert cluster.said[-1] == error
        assert not cluster.asked and cluster.exitstatus == 1


def test_a_long_time_to_end_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster()
    cluster.recycles = 20
    clock = itertools.count(0, 60)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    cluster.recycling = {**RECYCLING, "limit": 3600}
    run(cluster, "reload")
    assert cluster.exitstatus == 0


@pytest.mark.parametrize("takeover", [True, False])
def test_one_more_meanwhile(takeover: bool, slept: list[float]) -> None:
    cluster = Cluster(takeover)
    run(cluster, "reload --surge")
    assert cluster.asked == [
        *[("scale", "w", "+1"), ("start", ADDED)],
        *restart(FIRST),
        *restart(SECOND),
        *[("scale", "w", "2"), ("drain", ADDED), ("stop", ADDED), ("remove", ADDED)],
    ]
    assert [line.partition(" (")[0] for line in cluster.said if not waits(line)] == [
        f"{ADDED}: added",
        f"{FIRST}: reloaded",
        f"{SECOND}: reloaded",
        f"{ADDED}: removed",
        "ready: 2 of 2 workers",
    ]
    assert slept == ([] if takeover else [DRAIN_TIME] * 3)
    assert cluster.exitstatus == 0


@pytest.mark.parametrize("options", ["", " --surge"])
def test_a_router_that_is_about_to_come_back(options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster()
    cluster.router = "down"
    monkeypatch.setattr(time, "sleep", lambda seconds: setattr(cluster, "router", "running"))
    run(cluster, f"reload{options}")
    assert [name for kind, name, *_ in cluster.asked if kind == "stop"][:2] == [FIRST, SECOND]
    assert cluster.exitstatus == 0


@pytest.mark.parametrize("looks", range(1, 6))
def test_a_router_that_comes_back_between_two_looks(
    looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers in one status are not combined with the router of the next one."""
    cluster = Cluster()
    cluster.router = "down"
    look = cluster.getStatus
    left = iter(range(looks, -1, -1))

    def getStatus() -> dict[str, Any]:
        if next(left, 0) == 0:
            cluster.router = "running"
        return look()

    monkeypatch.setattr(cluster, "getStatus", getStatus)
    run(cluster, "reload")
    assert [name for kind, name, *_ in cluster.asked if kind == "stop"] == [FIRST, SECOND]


@pytest.mark.parametrize("takeover, options", [(False, ""), (True, " --surge")])
def test_a_router_that_dies_with_what_it_was_asked(takeover: bool, options: str) -> None:
    cluster = Cluster(takeover)

    def before(*request: Any) -> None:
        if request == ("drain", FIRST):
            cluster.before = lambda *request: None
            raise xmlrpclib.Fault(Faults.FAILED, "FAILED: the router is gone")

    cluster.before = before
    run(cluster, f"reload{options}")
    assert [name for kind, name, *_ in cluster.asked if kind == "drain"][:2] == [FIRST, SECOND]
    assert [name for kind, name, *_ in cluster.asked if kind == "stop"][:2] == [FIRST, SECOND]
    assert cluster.exitstatus == 0


def test_a_router_that_refuses() -> None:
    cluster = Cluster(takeover=False)

    def before(*request: Any) -> None:
        if request == ("drain", FIRST):
            raise xmlrpclib.Fault(Faults.FAILED, "FAILED: it is too busy")

    cluster.before = before
    run(cluster, "reload")
    assert cluster.said[-1] == "ERROR (it is too busy)"
    assert not [name for kind, name, *_ in cluster.asked if kind == "stop"]
    assert cluster.exitstatus == 1


@pytest.mark.parametrize("options", ["", " --surge"])
def test_a_router_that_stays_down(options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command fails; otherwise it would restart no worker without saying so."""
    cluster = Cluster()
    cluster.router = "down"
    clock = iter(range(0, 100, 10))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    run(cluster, f"reload{options}")
    assert (
        cluster.said[-1] == f"{FIRST}: ERROR (the router is down: sio is FATAL)"
        and not cluster.asked
        and cluster.exitstatus == 1
    )


def test_only_those_that_are_named() -> None:
    cluster = Cluster()
    run(cluster, f"reload {SECOND} --surge --json")
    assert [name for kind, name, *_ in cluster.asked if kind == "stop"] == [SECOND, ADDED]
    (document,) = map(json.loads, cluster.said)
    assert [worker["name"] for worker in document["workers"]] == [SECOND]
    assert (document["ready"], document["not_ready"]) == ([SECOND], [])


def test_where_nobody_restarts_nobody_is_added() -> None:
    cluster = Cluster()
    cluster.states[FIRST] = "stopped"
    run(cluster, f"reload --surge {FIRST}")
    assert not cluster.asked
    assert cluster.said == [
        f"{FIRST}: stopped, not restarted",
        f"not ready: {FIRST} (stopped); ready: 0 of 1 worker",
    ]


def test_a_program_that_can_have_one_process_only() -> None:
    cluster = Cluster()

    def refuse(*request: Any) -> None:
        raise xmlrpclib.Fault(Faults.FAILED, "FAILED: [program:w] can have 1 process only")

    cluster.before = refuse
    run(cluster, "reload --surge")
    assert cluster.said == ["w: ERROR ([program:w] can have 1 process only)"]
    assert (cluster.asked, cluster.exitstatus) == ([], 1)


def test_what_supervisord_has_started_already() -> None:
    cluster = Cluster()

    def started(kind: str, name: str, *rest: Any) -> None:
        if (kind, name) == ("start", ADDED):
            cluster.states[ADDED], cluster.by_name[ADDED] = "ready", 99
            raise xmlrpclib.Fault(Faults.ALREADY_STARTED, "ALREADY_STARTED")

    cluster.before = started
    run(cluster, f"reload --surge {FIRST}")
    assert cluster.exitstatus == 0, cluster.said


@pytest.mark.parametrize("which", [ADDED, FIRST])
def test_one_that_does_not_become_ready(which: str) -> None:
    cluster = Cluster()

    def fail(kind: str, name: str, *rest: Any) -> None:
        cluster.fate = "fatal" if (kind, name) == ("start", which) else "ready"

    cluster.before = fail
    run(cluster, "reload --surge")
    assert cluster.said[-1] == (
        f"{which}: ERROR (the new process is not ready: it ended with exit status 3); the other "
        f"workers keep serving, see: supervisorctl tail {which}; {ADVICE}"
    )
    assert cluster.exitstatus == 1
    assert cluster.asked[-1] == ("start", which)
    assert ADDED in cluster.states and cluster.states[SECOND] == "ready"


def test_an_added_one_that_cannot_be_started() -> None:
    cluster = Cluster()

    def fail(kind: str, name: str, *rest: Any) -> None:
        if (kind, name) == ("start", ADDED):
            raise xmlrpclib.Fault(Faults.SPAWN_ERROR, f"SPAWN_ERROR: {name}")

    cluster.before = fail
    run(cluster, "reload --surge")
    assert cluster.said[-1] == (
        f"{ADDED}: ERROR (the new process is not ready: it ended with exit status 3); the other "
        f"workers keep serving, see: supervisorctl tail {ADDED}; {ADVICE}"
    )


def interrupt_at(*wanted: str) -> Callable[..., None]:
    def interrupt(*request: str) -> None:
        if request == wanted:
            raise KeyboardInterrupt

    return interrupt


@pytest.mark.parametrize(
    ("at", "undrained"),
    [(("start", ADDED), False), (("stop", FIRST), True), (("remove", ADDED), False)],
)
def test_ctrl_c(at: tuple[str, str], undrained: bool) -> None:
    cluster = Cluster()
    cluster.before = interrupt_at(*at)
    run(cluster, "reload --surge --json")
    (document,) = map(json.loads, cluster.said)
    assert document["error"] == f"interrupted; {ADVICE}"
    assert cluster.exitstatus == 1
    assert (("undrain", FIRST) in cluster.asked) is undrained


def test_who_was_scaled_meanwhile_is_left_as_it_is() -> None:
    cluster = Cluster()

    def scale(kind: str, *rest: Any) -> None:
        if (kind, *rest) == ("scale", "w", "2"):
            cluster.states["w:w_3"], cluster.by_name["w:w_3"] = "ready", 9

    cluster.before = scale
    run(cluster, f"reload --surge {FIRST}")
    assert cluster.said[-1] == f"w: ERROR (the group was scaled meanwhile); {ADVICE}"
    assert ("remove", ADDED) not in cluster.asked


def test_a_program_that_calls_serve_is_no_worker_before_it_has_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = Cluster()
    looks = iter([False, False, True])
    hidden: Optional[str] = None

    def joins(seconds: float) -> None:
        nonlocal hidden
        hidden = None if next(looks) else ADDED

    monkeypatch.setattr(time, "sleep", joins)
    status = cluster.getStatus

    def without_hidden() -> dict[str, Any]:
        answer = status()
        rows = [row for row in answer["workers"] if row["name"] != hidden]
        return {**answer, "workers": rows}

    def start(kind: str, name: str, *rest: Any) -> None:
        nonlocal hidden
        if (kind, name) == ("start", ADDED):
            hidden = ADDED

    monkeypatch.setattr(cluster, "getStatus", without_hidden)
    cluster.before = start
    run(cluster, f"reload --surge {FIRST}")
    assert cluster.exitstatus == 0, cluster.said
    assert next(looks, None) is None
