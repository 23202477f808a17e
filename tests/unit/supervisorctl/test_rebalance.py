"""``sio rebalance``, with a router whose figures the test says."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any, Optional

import pytest
from supervisor.compat import xmlrpclib
from supervisor.xmlrpc import Faults

from supervisor_sio.supervisorctl.commands import run
from supervisor_sio.supervisorctl.formatting import format_status, how_far, spread

GOLDEN = Path(__file__).parents[1] / "golden" / "status.json"

IDLE = {
    "state": "idle",
    "number": 0,
    "round": 0,
    "closed": 0,
    "left": 0,
    "away": 0,
    "seconds": 0,
    "result": "",
}


def step(state: str, sessions: list[int], pid: int = 20, **more: Any) -> dict[str, Any]:
    """A status."""
    rebalancing = {**IDLE, "state": state, "number": 1, "round": 1, **more}
    return {
        "router": {"pid": pid, "state": "running" if pid else "down"},
        "rebalancing": rebalancing if pid else {},
        "workers": [
            {"name": f"w:w_{n}", "state": "ready" if count >= 0 else "failing", "sessions": count}
            for n, count in enumerate(sessions)
        ],
    }


BEFORE = step("idle", [40, 40, 0], number=0, round=0)


class Supervisorctl:
    """And the supervisord that it asks."""

    def __init__(
        self,
        *steps: dict[str, Any],
        fault: str = "",
        error: Optional[BaseException] = None,
        before: Any = BEFORE,
    ) -> None:
        self.stdout, self.exitstatus = io.StringIO(), 0
        self.options = self
        self.serverurl = "http://localhost"
        self.said: list[str] = []
        self.asked: list[str] = []
        self.steps = [before, *steps]
        self.fault = fault
        self.error = error

    def output(self, line: str) -> None:
        self.said.append(line)

    def get_server_proxy(self, namespace: str) -> Supervisorctl:
        return self

    def getStatus(self) -> dict[str, Any]:
        status = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if status is INTERRUPT:
            raise KeyboardInterrupt
        return status

    def getAPIVersion(self) -> str:
        return "1.0"

    def rebalance(self) -> bool:
        self.asked.append("rebalance")
        if self.fault == "unknown":
            raise xmlrpclib.Fault(Faults.UNKNOWN_METHOD, "UNKNOWN_METHOD")
        if self.error is not None:
            raise self.error
        if self.fault:
            raise xmlrpclib.Fault(Faults.FAILED, f"FAILED: {self.fault}")
        return True

    def stopRebalance(self) -> bool:
        self.asked.append("stop")
        return True


INTERRUPT: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes while the command sleeps."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(time, "monotonic", lambda: sum(slept))


STEPS = [
    step("closing", [40, 40, 0], left=26),
    step("closing", [35, 35, 8], closed=10, left=16),
    step("waiting", [27, 27, 20], closed=26, away=6),
    step("closing", [27, 27, 20], closed=26, left=2, round=2),
    step("waiting", [27, 26, 26], closed=28, away=1, round=2),
    step("idle", [27, 26, 27], closed=28, seconds=4, result="even", round=2),
]


def test_what_is_said_where_nobody_watches() -> None:
    """A line an event."""
    ctl = Supervisorctl(*STEPS)
    run(ctl, "rebalance")
    assert ctl.said == [
        "rebalance: 0 of 26 clients disconnected",
        "rebalance: waiting for 6 clients to reconnect",
        "rebalance: 26 of 28 clients disconnected",
        "rebalance: waiting for 1 client to reconnect",
        "w:w_0: 27 clients, 40 before",
        "w:w_1: 26 clients, 40 before",
        "w:w_2: 27 clients, 0 before",
        "rebalance: even, 26 to 27 clients each; 28 clients were disconnected, 4 s",
        "ready: 3 of 3 workers",
    ]
    assert ctl.exitstatus == 0 and ctl.asked == ["rebalance"]


def test_the_document() -> None:
    ctl = Supervisorctl(*STEPS[:-1], step("idle", [30, 20, -1], closed=28, result="uneven"))
    run(ctl, "rebalance --json")
    assert [json.loads(line) for line in ctl.said] == [
        {
            "ok": False,
            "result": "uneven",
            "closed": 28,
            "seconds": 0,
            "workers": [
                {"name": "w:w_0", "before": 40, "sessions": 30},
                {"name": "w:w_1", "before": 40, "sessions": 20},
                {"name": "w:w_2", "before": 0, "sessions": -1},
            ],
            "ready": ["w:w_0", "w:w_1"],
            "not_ready": [{"name": "w:w_2", "state": "failing"}],
        }
    ]
    assert ctl.exitstatus == 1


@pytest.mark.parametrize("late", [0, 3])
def test_nothing_to_do(late: int) -> None:
    """The figures from before its begin say nothing."""
    ctl = Supervisorctl(*[BEFORE] * late, step("idle", [20, 20, 20], result="even", round=0))
    run(ctl, "rebalance")
    assert ctl.said == [
        "rebalance: even, 20 clients each; nobody had to reconnect, 0 s",
        "ready: 3 of 3 workers",
    ]
    assert ctl.exitstatus == 0


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("another rebalance is under way", "rebalance: ERROR (another rebalance is under way)"),
        (
            "unknown",
            "supervisord runs another version of supervisor-sio: restart it",
        ),
    ],
)
def test_what_is_refused_is_not_stopped(fault: str, line: str) -> None:
    """It may be somebody else's."""
    ctl = Supervisorctl(fault=fault)
    run(ctl, "rebalance")
    assert ctl.said == [line] and ctl.exitstatus == 1 and ctl.asked == ["rebalance"]


@pytest.mark.parametrize("pid", [0, 21])
def test_the_router_ends(pid: int) -> None:
    ctl = Supervisorctl(STEPS[0], STEPS[1], step("idle", [35, 35, 8], pid=pid))
    run(ctl, "rebalance")
    assert ctl.said[-1] == (
        "rebalance: ERROR (the router has ended, and with it the rebalance; try again)"
    )
    assert ctl.exitstatus == 1


def test_figures_that_do_not_come() -> None:
    ctl = Supervisorctl(BEFORE)
    run(ctl, "rebalance")
    assert ctl.said == ["rebalance: ERROR (the router does not say how far it is; see sio status)"]
    assert ctl.asked == ["rebalance", "stop"]


def test_ctrl_c_stops_it() -> None:
    ctl = Supervisorctl(STEPS[0], STEPS[1], INTERRUPT)
    run(ctl, "rebalance")
    assert ctl.asked == ["rebalance", "stop"] and ctl.exitstatus == 1
    assert ctl.said[-1].startswith("interrupted")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ConnectionResetError()])
@pytest.mark.parametrize(("before", "stops"), [(BEFORE, True), (STEPS[1], False)])
def test_it_may_have_begun_when_nobody_has_heard_so(
    error: BaseException, before: Any, stops: bool
) -> None:
    """If another one was under way, it has not."""
    ctl = Supervisorctl(error=error, before=before)
    run(ctl, "rebalance")
    assert ctl.asked == ["rebalance", *["stop"] * stops] and ctl.exitstatus == 1


def test_somebody_else_stops_it() -> None:
    ctl = Supervisorctl(STEPS[1], step("idle", [35, 35, 8], closed=10, result="stopped"))
    run(ctl, "rebalance")
    assert (
        ctl.said[-1] == "rebalance: ERROR (somebody has stopped it; 10 clients were disconnected)"
    )
    assert ctl.exitstatus == 1


@pytest.mark.parametrize(
    ("counts", "text"),
    [([5, 5], "5 clients each"), ([5, 7, -1], "5 to 7 clients each"), ([-1], "no worker is ready")],
)
def test_the_spread(counts: list[int], text: str) -> None:
    assert spread(step("idle", counts)["workers"]) == text


@pytest.mark.parametrize(("shown", "line"), [(STEPS[1], "rebalance " + "10 of 26"), (None, None)])
def test_the_status_says_how_far_it_is(shown: Optional[Any], line: Optional[str]) -> None:
    status = json.loads(GOLDEN.read_text())
    status["rebalancing"] = IDLE if shown is None else shown["rebalancing"]
    lines = [text for text in format_status(status) if text.startswith("rebalance")]
    expected = [] if line is None else [f"{line} clients disconnected"]
    assert lines == expected
    assert shown is None or how_far(shown["rebalancing"]) in lines[0]


@pytest.mark.parametrize(
    ("state", "away", "text"),
    [
        ("closing", 0, "10 of 26 clients disconnected"),
        ("closing", 8, "10 of 26 clients disconnected, 8 have not reconnected yet"),
        ("waiting", 8, "waiting for 8 clients to reconnect"),
        ("waiting", 1, "waiting for 1 client to reconnect"),
    ],
)
def test_how_far_it_is(state: str, away: int, text: str) -> None:
    assert how_far({**IDLE, "state": state, "closed": 10, "left": 16, "away": away}) == text
