from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import Any, Optional

import pytest
from supervisor.states import ProcessStates, SupervisorStates
from supervisor.xmlrpc import Faults, RPCError

from supervisor_sio.common.limits import RECYCLE_LOOK
from supervisor_sio.settings import parse_settings
from supervisor_sio.supervisord import recycler as module
from supervisor_sio.supervisord.overdue import Reason
from supervisor_sio.supervisord.recycler import Recycler

KIB = 1024


class Harness:
    """supervisord with a group of two workers; notes what is done, and in which order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **options: str) -> None:
        self.now = 1000.0
        self.done: list[Any] = []
        self.lines: list[str] = []
        config = SimpleNamespace(
            stopsignal=signal.SIGTERM, stopasgroup=False, killasgroup=False, stopwaitsecs=15
        )
        self.config = config
        self.processes = {
            f"w_{number}": SimpleNamespace(
                pid=100 + number, config=config, get_state=lambda: ProcessStates.RUNNING
            )
            for number in range(2)
        }
        say = self.lines.append
        self.supervisord = SimpleNamespace(
            options=SimpleNamespace(
                mood=SupervisorStates.RUNNING, logger=SimpleNamespace(info=say, warn=say)
            ),
            process_groups={"w": SimpleNamespace(processes=self.processes)},
        )
        #: What a command raises.
        self.fault: Optional[RPCError] = None
        self.rows = [self.row(number) for number in range(2)]
        self.recycler = Recycler(
            self.supervisord,
            parse_settings(options),
            self._command,
            lambda pid: self.done.append(("stopping", pid)),
        )
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(os, "kill", lambda pid, number: self.done.append((number, pid)))
        # Each worker is the child of a script.
        monkeypatch.setattr(module, "is_descendant", lambda pid, of: pid == of + 1000)

    def row(self, number: int, **changes: Any) -> dict[str, Any]:
        return {
            "name": f"w:w_{number}",
            "pid": 1100 + number,
            "tag": f"{number}",
            "state": "ready",
            "takeover": True,
            "memory": 50 * KIB,
            "uptime": 100,
            "silent": 0,
            **changes,
        }

    def _command(self, kind: str, name: str) -> None:
        self.done.append((kind, name))
        if self.fault is not None:
            raise self.fault

    def look(self, seconds: float = 10) -> list[bool]:
        """Call look() once a second for this time; returns the results."""
        counted = []
        for _ in range(int(seconds)):
            self.now += 1
            counted.append(self.recycler.look(self.rows))
        return counted


def test_without_limits_it_never_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(monkeypatch)
    assert not harness.recycler.is_due(harness.now)
    assert harness.recycler.shown()["state"] == "off" and harness.recycler.recycled == {}


def test_when_it_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(monkeypatch, hung_timeout="6")
    due = harness.recycler.is_due
    assert due(harness.now) and due(None)
    assert not due(harness.now - 3), "that was read late, and says nothing about now"
    harness.look(1)
    assert not due(harness.now)
    harness.now += RECYCLE_LOOK
    assert due(harness.now)
    harness.supervisord.options.mood = SupervisorStates.RESTARTING
    assert not due(harness.now)


def test_the_router_knows_that_one_is_stopped_before_its_signal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    harness = Harness(monkeypatch, max_memory="100MB")
    harness.look(20)
    harness.rows[1]["memory"] = 101 * KIB
    counted = harness.look(6)
    assert harness.done == [("stopping", 101), (signal.SIGTERM, 101)]
    assert counted.count(True) == 1
    assert harness.lines == ["sio: recycling w:w_1 (pid 101): memory 101 MB of 100"]
    assert harness.recycler.ends("w:w_1", 101) is Reason.MEMORY
    assert harness.recycler.shown()["worker"] == "w:w_1"
    assert harness.recycler.recycled == {"memory": 1}


def test_signals_go_to_the_group_where_supervisord_would_send_them_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    harness = Harness(monkeypatch, max_memory="100MB")
    harness.config.stopasgroup = harness.config.killasgroup = True
    harness.config.stopsignal = signal.SIGINT
    harness.config.stopwaitsecs = 5
    harness.look(2)
    harness.rows[1]["memory"] = 101 * KIB
    harness.look(20)
    assert harness.done == [
        ("stopping", 101),
        (signal.SIGINT, -101),
        (signal.SIGKILL, 1101),
        (signal.SIGKILL, -101),
    ]


def test_one_that_hangs_is_killed_itself_and_not_only_its_script(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    harness = Harness(monkeypatch, hung_timeout="6")
    harness.rows[0].update(state="hung", silent=6)
    assert harness.look(3) == [True, False, False]
    assert harness.done == [(signal.SIGKILL, 1100), (signal.SIGKILL, 100)]
    assert harness.recycler.ends("w:w_0", 100) is Reason.HUNG


def test_a_pid_that_is_of_another_process_by_now_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    harness = Harness(monkeypatch, hung_timeout="6")
    harness.rows[0].update(state="hung", silent=6, pid=4711)
    harness.look(1)
    assert harness.done == [(signal.SIGKILL, 100)]


def test_who_has_ended_already_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(pid: int, number: int) -> None:
        raise ProcessLookupError

    harness = Harness(monkeypatch, hung_timeout="6")
    monkeypatch.setattr(os, "kill", kill)
    harness.rows[0].update(state="hung", silent=6)
    assert harness.look(1) == [True]


def test_a_router_that_takes_no_command_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(monkeypatch, max_memory="100MB")
    harness.rows = [harness.row(number, takeover=False) for number in range(2)]
    harness.look(2)
    harness.rows[1]["memory"] = 101 * KIB
    harness.fault = RPCError(Faults.FAILED, "no router is running")
    harness.look(6)
    assert len(harness.done) > 1 and set(harness.done) == {("drain", "w:w_1")}


def test_workers_of_somebody_else_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Started by hand, or left running by a script; supervisord's own process is the first row."""
    harness = Harness(monkeypatch, hung_timeout="6", max_memory="100MB")
    harness.rows += [
        harness.row(0, pid=5000, silent=100, memory=500 * KIB),
        harness.row(7, pid=5001, silent=100, memory=500 * KIB),
        {**harness.row(8, silent=100), "name": "x:x_0"},
        {**harness.row(8, silent=100), "name": "alone"},
    ]
    harness.look(20)
    assert harness.done == [] and harness.lines == []
