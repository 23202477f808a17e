"""One worker runs a task at a time, and another one when that is gone."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from supervisor_sio.common.limits import RUN_ONCE_LEASE

from .conftest import ClusterFactory
from .harness import HERE, MODE, Cluster, async_mode, free_port, server_environment, wait_until

WORKERS = 3


class Ticks:
    """What tasks have written."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def read(self, task: str = "ticker") -> list[dict[str, Any]]:
        path = self.directory / "ticks"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in map(json.loads, lines) if line["task"] == task]

    def running(self) -> list[dict[str, Any]]:
        """Without the last word of those that were ended."""
        return [line for line in self.read() if "ended" not in line]

    @property
    def last(self) -> dict[str, Any]:
        return wait_until(self.running, 10, "the task runs")[-1]

    def wait_for_more(self, count: int = 3) -> dict[str, Any]:
        """The last, when there are so many more."""
        before = len(self.running())
        wait_until(lambda: len(self.running()) >= before + count, 10, "it goes on")
        return self.last

    def wait_for_another(self, than: dict[str, Any]) -> dict[str, Any]:
        """The last, when another process runs the task."""
        wait_until(lambda: self.last["pid"] != than["pid"], 10, "another one runs it")
        return self.wait_for_more()

    def check(self) -> None:
        """Never two at a time: whoever begins later has a larger number, and no other goes on."""
        seen: dict[int, int] = {}
        largest = 0
        for line in self.running():
            assert seen.setdefault(line["number"], line["pid"]) == line["pid"], line
            assert line["number"] >= largest, line
            largest = line["number"]


@pytest.fixture(scope="module")
def ticks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ticks]:
    directory = tmp_path_factory.mktemp("ticks")
    os.environ["TICKS"] = str(directory)
    yield Ticks(directory)
    del os.environ["TICKS"]


@pytest.fixture(scope="module")
def cluster(ticks: Ticks, make_module_cluster: ClusterFactory) -> Cluster:
    """Each test leaves so many workers, and a task that runs."""
    command = "supervisor-sio worker once_app:app"
    return make_module_cluster(workers=WORKERS, command=command).start()


@pytest.fixture(autouse=True)
def checked(ticks: Ticks) -> Iterator[None]:
    yield
    ticks.check()


def task(cluster: Cluster, name: str = "ticker") -> dict[str, Any]:
    (found,) = [row for row in cluster.status()["tasks"] if row["name"] == name]
    assert isinstance(found, dict)
    return found


def test_one_runs_it_and_the_status_says_which(cluster: Cluster, ticks: Ticks) -> None:
    last = ticks.wait_for_more()
    assert {line["pid"] for line in ticks.running()} == {last["pid"]}
    wait_until(lambda: task(cluster)["state"] == "running", 5, "it is in the status")
    row = task(cluster)
    assert (row["state"], row["number"]) == ("running", last["number"])
    assert row["worker"] == f"workers:{last['worker']}"
    line = f"task     ticker runs in {row['worker']}, since 0:0"
    assert line in cluster.ctl("sio", "status").stdout
    answer = json.loads(cluster.ctl("sio", "status", "--json").stdout)
    assert {task["name"] for task in answer["tasks"]} == {"failing", "ticker"}


def test_another_one_runs_it_when_that_is_killed(cluster: Cluster, ticks: Ticks) -> None:
    killed = ticks.last
    os.kill(killed["pid"], signal.SIGKILL)
    ticks.wait_for_another(killed)
    cluster.wait_ready()
    assert "ticker: its worker has not renewed" not in cluster.log("router")


def test_one_that_is_stopped_ends_it_first(cluster: Cluster, ticks: Ticks) -> None:
    stopped = ticks.last
    assert cluster.ctl("restart", f"workers:{stopped['worker']}").returncode == 0
    ticks.wait_for_another(stopped)
    cluster.wait_ready()
    (end,) = [line for line in ticks.read() if line.get("ended") and line["pid"] == stopped["pid"]]
    lines = ticks.read()
    assert {line["pid"] for line in lines[: lines.index(end)]} >= {stopped["pid"]}
    assert stopped["pid"] not in {line["pid"] for line in lines[lines.index(end) + 1 :]}


@pytest.mark.parametrize("how", ["kill", "restart"])
def test_it_goes_on_without_a_router_and_with_the_next_one(
    cluster: Cluster, ticks: Ticks, how: str
) -> None:
    before = ticks.last
    cluster.end_router(how)
    cluster.wait_ready()
    assert ticks.wait_for_more()["number"] == before["number"]
    wait_until(
        lambda: (task(cluster)["state"], task(cluster)["number"]) == ("running", before["number"]),
        10,
        "the new router knows it",
    )


def test_without_a_router_it_goes_on(cluster: Cluster, ticks: Ticks) -> None:
    before = ticks.last
    assert cluster.ctl("stop", "sio").returncode == 0
    assert ticks.wait_for_more(20)["number"] == before["number"]
    assert cluster.ctl("start", "sio").returncode == 0
    cluster.wait_ready()
    assert ticks.wait_for_more()["number"] == before["number"]


@pytest.mark.long
def test_one_that_hangs_notices_that_another_one_runs_it(cluster: Cluster, ticks: Ticks) -> None:
    (ticks.directory / "stop").touch()  # it stops itself behind a step
    stopped = ticks.last
    try:
        taker = ticks.wait_for_another(stopped)
        assert taker["number"] > stopped["number"]
    finally:
        os.kill(stopped["pid"], signal.SIGCONT)
    name = stopped["worker"]
    wait_until(lambda: "task ticker ends" in cluster.log(name), 10, "it has noticed")
    wait_until(lambda: not cluster.workers("hung"), 10, "it is back")
    ticks.wait_for_more()


def test_what_fails_is_tried_again_and_what_returns_is_done(cluster: Cluster, ticks: Ticks) -> None:
    wait_until(lambda: ticks.read("failing"), 10, "it runs")
    (ticks.directory / "fail").touch()
    try:
        line = wait_until(lambda: _line(cluster, "task     failing failed"), 10, "it is shown")
        assert "in a row, next try in 0:00:0" in line
        (ticks.directory / "done").touch()
    finally:
        (ticks.directory / "fail").unlink()
    wait_until(lambda: task(cluster, "failing")["state"] == "done", 10, "it is done")
    assert len({line["pid"] for line in ticks.read("failing")}) >= 2  # another one was asked
    runs = len(ticks.read("failing"))
    cluster.end_router("kill")
    cluster.wait_ready()
    wait_until(lambda: task(cluster, "failing")["state"] == "done", 10, "others know that")
    assert len(ticks.read("failing")) == runs
    assert _line(cluster, "task     failing is done, since 0:00:")


def _line(cluster: Cluster, begin: str) -> str:
    lines = cluster.ctl("sio", "status").stdout.splitlines()
    return next((line for line in lines if line.startswith(begin)), "")


@pytest.mark.long
@pytest.mark.parametrize("fails", [False, True])
def test_supervisord_is_killed(
    make_cluster: ClusterFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """The next one gives a task away when the leases of the old workers are over: they may have
    noticed nothing, and it knows nothing of them; also when a start in between has failed."""
    monkeypatch.setenv("TICKS", str(tmp_path))
    ticks = Ticks(tmp_path)
    cluster = make_cluster(workers=2, command="supervisor-sio worker once_app:app").start()
    old = ticks.wait_for_more()
    router = cluster.router_pid
    os.kill(cluster.pid, signal.SIGKILL)
    killed = time.monotonic()
    assert cluster.process is not None
    cluster.process.wait()
    wait_until(lambda: not psutil.pid_exists(router), 10, "the router has ended")
    # Numbers are milliseconds. A worker may have left before the router: then that has given the
    # task to another one.
    last = max(old["number"], int(time.time() * 1000))
    if fails:
        with socket.create_server(("127.0.0.1", cluster.port)):
            code, said = cluster.run_to_its_end()
        assert code == 2 and "address already in use" in said, said
    cluster.start()
    wait_until(lambda: ticks.last["number"] > last, 20, "another one runs it")
    ticks.wait_for_more()
    ticks.check()
    first = next(line for line in ticks.running() if line["number"] > last)
    print(f"{first['at'] - killed:.1f} s after it was killed")
    assert first["at"] - killed >= RUN_ONCE_LEASE


def test_by_hand_it_runs_at_once_and_ends_with_the_program(tmp_path: Path) -> None:
    ticks = Ticks(tmp_path)
    with subprocess.Popen(
        [sys.executable, "once_app.py", f"127.0.0.1:{free_port()}"],
        cwd=HERE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=server_environment(TICKS=str(tmp_path), **{MODE: async_mode()}),
    ) as process:
        try:
            assert ticks.wait_for_more()["pid"] == process.pid
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
        assert process.stdout is not None
        assert "Traceback" not in process.stdout.read()
    assert ticks.read()[-1]["ended"]
