from __future__ import annotations

import time
from typing import Any, cast

import pytest
from supervisor.compat import xmlrpclib
from supervisor.xmlrpc import Faults

from supervisor_sio.supervisorctl.progress import Progress
from supervisor_sio.supervisorctl.scale import scale, summary
from supervisor_sio.supervisorctl.session import Session


class Server:
    """A session of supervisorctl and the supervisord that it asks; notes what it is asked."""

    cluster = "sio"

    def __init__(self, answer: dict[str, Any], states: dict[str, str]) -> None:
        self.answer = {"group": "w", "added": [], "surplus": [], "kept": [], **answer}
        self.states = states
        self.said: list[str] = []
        self.asked: list[tuple[Any, ...]] = []
        self.not_running: set[str] = set()
        self.progress = Progress(self.output)
        #: As long as it has something, supervisord recycles a worker.
        self.recycles: list[int] = []
        self.sessions: dict[str, int] = {}
        #: Whether sessions move when a worker ends.
        self.moves = False

    def output(self, line: str) -> None:
        self.said.append(line)

    @property
    def ctl(self) -> Server:
        return self

    @property
    def sio(self) -> Server:
        return self

    def get_supervisor(self) -> Server:
        return self

    def scaleGroup(self, name: str, numprocs: str) -> dict[str, Any]:
        self.asked.append(("scale", name, numprocs))
        return self.answer

    def getStatus(self) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "workers": [
                {"name": n, "state": s, "sessions": self.sessions.get(n, 0), "takeover": self.moves}
                for n, s in self.states.items()
            ]
        }
        if self.recycles:  # a supervisord of an older version says nothing of that
            self.recycles.pop()
            worker = "w:w_0" if self.recycles else ""
            text = "memory 2 MB of 1"
            answer["recycling"] = {"worker": worker, "text": text, "seconds": 1, "limit": 15}
        return answer

    def drainWorker(self, name: str) -> None:
        self.asked.append(("drain", name))

    def undrainWorker(self, name: str) -> None:
        self.asked.append(("undrain", name))
        self.states[name] = "ready"

    def startProcess(self, name: str, wait: bool) -> None:
        self.asked.append(("start", name, wait))
        self.states[name] = "ready"

    def stopProcess(self, name: str, wait: bool) -> None:
        if name in self.not_running:
            raise xmlrpclib.Fault(Faults.NOT_RUNNING, "NOT_RUNNING: " + name)
        self.asked.append(("stop", name, wait))

    def removeProcess(self, name: str) -> None:
        self.asked.append(("remove", name))


def session(server: Server) -> Session:
    return cast(Session, server)


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    times: list[float] = []
    monkeypatch.setattr(time, "sleep", times.append)
    return times


def test_more(slept: list[float]) -> None:
    server = Server({"numprocs": 4, "configured": 2, "added": ["w:w_2", "w:w_3"]}, {})
    scale(session(server), "w", "+2", 2.0, server.progress)
    assert server.asked == [("scale", "w", "+2")]
    assert server.said[:2] == ["w:w_2: added", "w:w_3: added"]
    # They are of a program that has no workers.
    assert server.said[2].startswith("w: 4 processes; the configuration file still has numprocs")
    assert not slept


@pytest.fixture
def clock(slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes while the command sleeps."""
    monkeypatch.setattr(time, "monotonic", lambda: sum(slept))


FATES = {
    "ready": ["", "stopped", "starting", "ready"],
    "failing": ["stopped", "starting", "failing"],
    "fatal": ["fatal"],
    "stopped": ["stopped"],  # without autostart
    "starting": ["starting"],  # for ever
}


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("fate", list(FATES))
def test_those_that_are_added_are_waited_for(fate: str, slept: list[float]) -> None:
    added = ["w:w_1", "w:w_2"]
    server = Server({"numprocs": 3, "configured": 3, "added": added}, {"w:w_0": "ready"})
    fates = {"w:w_1": iter(FATES["ready"]), "w:w_2": iter(FATES[fate])}

    def look() -> dict[str, Any]:
        for name, states in fates.items() if server.asked else ():
            server.states[name] = next(states, "") or server.states.get(name, "")
        shown = {name: state for name, state in server.states.items() if state}
        return {"workers": [{"name": n, "state": s, "sessions": 0} for n, s in shown.items()]}

    server.getStatus = look  # type: ignore[method-assign]
    done = scale(session(server), "w", "3", 2.0, server.progress)
    waited = [line.partition(", 0.")[0].rstrip(")") for line in server.said[3:-2]]
    verdict = "ready: 3 of 3 workers"
    first = "w:w_1: ready (1 of 2"
    if fate == "ready":
        assert waited == [first, "w:w_2: ready (2 of 2"]
    else:
        verdict = f"not ready: w:w_2 ({fate}); ready: 2 of 3 workers"
        assert sorted(waited) == sorted([first] + [f"w:w_2: {fate}"] * (fate != "starting"))
    assert server.said[2] == "w: 0 of 2 ready, waiting for w:w_1, w:w_2"
    assert server.said[-2:] == [verdict, "w: 3 processes, as in the configuration file"]
    assert done["ready"] == ["w:w_0", "w:w_1"] + ["w:w_2"] * (fate == "ready")
    not_ready = [] if fate == "ready" else [{"name": "w:w_2", "state": fate}]
    assert done["not_ready"] == not_ready
    assert sum(slept) < 3 or (fate == "starting" and 59 < sum(slept) < 61)


def test_fewer(slept: list[float]) -> None:
    states = {"w:w_0": "ready", "w:w_1": "stopped", "w:w_2": "ready", "w:w_3": "starting"}
    surplus = ["w:w_3", "w:w_2", "w:w_1"]
    server = Server({"numprocs": 1, "configured": 1, "surplus": surplus}, states)
    server.not_running = {"w:w_1"}
    scale(session(server), "w", "1", 2.0, server.progress)
    assert server.asked == [
        ("scale", "w", "1"),
        ("drain", "w:w_2"),
        ("stop", "w:w_3", False),
        ("stop", "w:w_2", False),
        ("remove", "w:w_3"),
        ("remove", "w:w_2"),
        ("remove", "w:w_1"),
    ]
    assert slept == [2.0]
    assert server.said == [
        "w: no new clients for w:w_3, w:w_2, w:w_1",
        "w:w_3: 1 of 3: waiting for its process to end",
        "w:w_3: removed",
        "w:w_2: 2 of 3: waiting for its process to end",
        "w:w_2: removed",
        "w:w_1: 3 of 3: waiting for its process to end",
        "w:w_1: removed",
        "ready: 1 of 1 worker",
        "w: 1 process, as in the configuration file",
    ]


@pytest.mark.parametrize("state", ["starting", "drained", "fatal"])
def test_nobody_is_drained_when_nobody_else_is_ready(state: str, slept: list[float]) -> None:
    states = {"w:w_0": state, "w:w_1": "ready"}
    server = Server({"numprocs": 1, "configured": 2, "surplus": ["w:w_1"]}, states)
    scale(session(server), "w", "1", 2.0, server.progress)
    assert [asked[0] for asked in server.asked] == ["scale", "stop", "remove"]
    assert not slept


def test_fewer_wait_while_supervisord_recycles_a_worker() -> None:
    states = {"w:w_0": "ready", "w:w_1": "ready"}
    server = Server({"numprocs": 1, "configured": 2, "surplus": ["w:w_1"]}, states)
    server.recycles = [1] * 10
    drain = server.drainWorker

    def drainWorker(name: str) -> None:
        assert not server.recycles
        drain(name)

    server.drainWorker = drainWorker  # type: ignore[method-assign]
    scale(server, "w", "1", 2.0, server.progress)
    assert "w: w:w_0 is recycled (memory 2 MB of 1)" in server.said
    assert [kind for kind, *_ in server.asked] == ["scale", "drain", "stop", "remove"]


def test_what_another_scale_left_half_way_comes_back() -> None:
    states = {"w:w_1": "drained", "w:w_2": "stopped", "w:w_3": "ready"}
    server = Server({"numprocs": 4, "configured": 4, "kept": list(states)}, states)
    scale(session(server), "w", "4", 2.0, server.progress)
    assert server.asked[1:] == [("undrain", "w:w_1"), ("start", "w:w_2", False)]
    assert server.said[-2:] == ["ready: 3 of 3 workers", "w: 4 processes already"]


@pytest.mark.parametrize(("takeover", "pauses"), [([True, True], []), ([True, False], [2.0])])
def test_with_takeover_nobody_has_to_finish_connecting(
    takeover: list[bool], pauses: list[float], slept: list[float]
) -> None:
    server = Server({"numprocs": 1, "configured": 1, "surplus": ["w:w_2", "w:w_1"]}, {})
    rows: list[dict[str, Any]] = [
        {"name": f"w:w_{n}", "state": "ready", "sessions": 0} for n in range(3)
    ]
    for row, moves in zip(rows[1:], takeover):
        row["takeover"] = moves
    server.getStatus = lambda: {"workers": rows}  # type: ignore[method-assign]
    scale(session(server), "w", "1", 2.0, server.progress)
    assert server.asked[1:5] == [
        *[("drain", "w:w_2"), ("drain", "w:w_1")],
        *[("stop", "w:w_2", False), ("stop", "w:w_1", False)],
    ]
    assert slept == pauses


_ADDED = "the added workers get only new clients"
_MOVED = "the clients of each removed worker have moved to one other worker"


@pytest.mark.parametrize(
    ("numprocs", "change", "takeover", "sessions", "why"),
    [
        ("3", {"added": ["w:w_2"]}, False, {"w:w_0": 2}, _ADDED),
        ("3", {"added": ["w:w_2"]}, False, {}, ""),
        ("2", {"surplus": ["w:w_2"]}, True, {"w:w_2": 1}, _MOVED),
        ("2", {"surplus": ["w:w_2"]}, True, {"w:w_0": 1}, ""),
        ("2", {"surplus": ["w:w_2"]}, False, {"w:w_2": 1}, ""),  # they reconnect, and are spread
        ("1", {"surplus": ["w:w_2", "w:w_1"]}, True, {"w:w_2": 1}, ""),
    ],
)
def test_it_says_when_clients_are_not_spread_evenly(
    numprocs: str, change: dict[str, Any], takeover: bool, sessions: dict[str, int], why: str
) -> None:
    states = {f"w:w_{n}": "ready" for n in range(3)}
    server = Server({"numprocs": int(numprocs), "configured": int(numprocs), **change}, states)
    server.sessions, server.moves, server.cluster = sessions, takeover, "shop"
    scale(session(server), "w", numprocs, 2.0, server.progress)
    advice = [line for line in server.said if "rebalance" in line]
    expected = f"{why}; supervisorctl sio --cluster shop rebalance spreads them evenly"
    assert advice == ([expected] if why else [])
    assert server.said[-1] == summary(server.answer)


def test_it_says_nothing_of_the_clients_of_an_added_worker_that_is_not_ready() -> None:
    change = {"numprocs": 3, "configured": 3, "added": ["w:w_2"]}
    server = Server(change, {"w:w_0": "ready", "w:w_1": "ready", "w:w_2": "fatal"})
    server.sessions = {"w:w_0": 2}
    scale(session(server), "w", "3", 2.0, server.progress)
    assert server.said[-2] == "not ready: w:w_2 (fatal); ready: 2 of 3 workers"


def test_other_faults_are_told() -> None:
    server = Server({"numprocs": 1, "configured": 2, "surplus": ["w:w_1"]}, {})

    def fail(name: str, wait: bool) -> None:
        raise xmlrpclib.Fault(Faults.FAILED, "FAILED: no")

    server.stopProcess = fail  # type: ignore[method-assign]
    with pytest.raises(xmlrpclib.Fault, match="FAILED"):
        scale(session(server), "w", "1", 2.0, server.progress)
    assert not server.said


def test_what_was_done() -> None:
    server = Server({"numprocs": 1, "configured": 2, "surplus": ["w:w_1"]}, {})
    assert scale(session(server), "w", "1", 2.0, server.progress) == {
        "group": "w",
        "numprocs": 1,
        "added": [],
        "removed": ["w:w_1"],
        "configured": 2,
    }


def test_the_file_says_another_number() -> None:
    answer = {"group": "w", "numprocs": 1, "configured": 2, "added": [], "surplus": ["w:w_1"]}
    assert summary(answer) == (
        "w: 1 process; the configuration file still has numprocs = 2: change it there, or update, "
        "reload and a restart of supervisord go back to 2 (until then reread shows w as changed)"
    )
