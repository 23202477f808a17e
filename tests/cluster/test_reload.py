"""``supervisorctl sio reload``, ``drain``, ``undrain``: steering without a gap."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import xmlrpc.client
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor_sio.supervisorctl.commands import run
from supervisor_sio.supervisorctl.session import Session, refused

from .conftest import ClusterFactory
from .harness import BIN, HERE, Cluster, environment, wait_until
from .modes import NO_WORKER
from .raw import Poller
from .supervisorctl import done_in


def by_name(cluster: Cluster) -> dict[str, int]:
    return {row["name"]: row["pid"] for row in cluster.workers()}


def tags_of_new_sessions(cluster: Cluster, count: int = 8) -> set[str]:
    tags = set()
    for _ in range(count):
        session = Poller(cluster.port)
        session.open()
        tags.add(session.sid.partition(".")[0])
    return tags


@pytest.fixture(scope="module")
def shared(make_module_cluster: ClusterFactory) -> Cluster:
    return make_module_cluster().start()


@pytest.fixture
def cluster(shared: Cluster) -> Cluster:
    """Each test leaves the two workers as it finds them, but for their processes."""
    shared.wait_ready()
    return shared


def test_reload_one_after_the_other(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=3).start()
    before = by_name(cluster)
    assert cluster.ctl("stop", "workers:workers_02").returncode == 0
    done = cluster.ctl("sio", "reload")
    assert done.returncode == 0, done.stdout
    after = by_name(cluster)
    lines = done_in(done.stdout)
    for line, name in zip(lines, ("workers:workers_00", "workers:workers_01")):
        pids = re.fullmatch(rf"{name}: reloaded \(pid (\d+) -> (\d+), [\d.]+ s\)", line)
        assert pids is not None, line
        assert (int(pids[1]), int(pids[2])) == (before[name], after[name])
    assert lines[2:] == ["workers:workers_02: stopped, not restarted"]
    said = done.stdout.splitlines()
    for number in (1, 2):
        name = f"workers:workers_{number - 1:02d}"
        assert f"{name}: {number} of 3: waiting for its process to end" in said
        assert f"{name}: {number} of 3: waiting for the new process to be ready" in said
    # Each event is said once.
    assert len(said) == len(set(said)) <= 10
    assert said[-1] == "not ready: workers:workers_02 (stopped); ready: 2 of 3 workers"


def test_reload_by_name(cluster: Cluster) -> None:
    before = by_name(cluster)
    assert cluster.ctl("sio", "reload", "workers:workers_01").returncode == 0
    after = by_name(cluster)
    assert after["workers:workers_00"] == before["workers:workers_00"]
    assert after["workers:workers_01"] != before["workers:workers_01"]
    done = cluster.ctl("sio", "reload", "nobody")
    assert done.stdout == "nobody: ERROR (no such worker)\n" and done.returncode == 1


@NO_WORKER
def test_reload_when_the_router_has_just_died(cluster: Cluster) -> None:
    before = by_name(cluster)
    os.kill(cluster.router_pid, signal.SIGKILL)
    done = cluster.ctl("sio", "reload")
    assert done.returncode == 0, done.stdout
    after = by_name(cluster)
    assert after.keys() == before.keys() and not set(after.values()) & set(before.values())


@NO_WORKER
def test_reload_stops_at_a_worker_that_does_not_come_back(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=3, startsecs=1, startretries=0)
    broken = cluster.make_breakable()
    cluster.start()
    before = by_name(cluster)
    broken.touch()
    done = cluster.ctl("sio", "reload", "workers:*")
    assert done.returncode == 1
    (line,) = done_in(done.stdout)
    assert re.match(r"workers:workers_00: ERROR \(the new process is not ready: .*\); ", line)
    del before["workers:workers_00"]
    assert by_name(cluster) == before
    assert tags_of_new_sessions(cluster) == {row["tag"] for row in cluster.workers()}
    assert str(HERE) not in done.stdout

    done = cluster.ctl("sio", "scale", "workers", "+1")
    assert done.returncode == 1
    verdict = done.stdout.splitlines()[-2]
    states = r"\((backoff|exited|failing|fatal)\)"
    assert re.fullmatch(
        rf"not ready: workers:workers_00 {states}, workers:workers_03 {states}; "
        "ready: 2 of 4 workers",
        verdict,
    ), done.stdout


@NO_WORKER
@pytest.mark.parametrize("command", ["reload", "scale"])
def test_ctrl_c(cluster: Cluster, command: str) -> None:
    """While the worker is drained, before it is stopped."""
    before = by_name(cluster)
    arguments = ["workers:workers_00"] if command == "reload" else ["workers", "1"]
    supervisorctl = subprocess.Popen(
        [BIN / "supervisorctl", "-c", cluster.conf, "sio", command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    wait_until(lambda: cluster.workers("drained"), 10, "drained")
    supervisorctl.send_signal(signal.SIGINT)
    said, _ = supervisorctl.communicate(timeout=20)
    assert done_in(said) == ["interrupted; sio status shows what was done"]
    assert supervisorctl.returncode == 1
    if command == "scale":  # which is undone when it is called again
        assert cluster.ctl("sio", "scale", "workers", "2").returncode == 0
    assert by_name(cluster) == before


@NO_WORKER
def test_a_worker_that_cannot_be_stopped_takes_sessions_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(self: Session, method: str, *arguments: Any, about: str = "") -> Any:
        if method == "supervisor.stopProcess":
            (drained,) = cluster.workers("drained")
            assert arguments == (drained["name"], False)
            raise refused(about, "failed")
        namespace, _, name = method.partition(".")
        return getattr(getattr(cluster.rpc, namespace), name)(*arguments)

    monkeypatch.setattr(Session, "call", call)
    said: list[str] = []
    controller = SimpleNamespace(output=said.append, stdout=sys.stdout, exitstatus=0)
    before = by_name(cluster)
    run(controller, "reload workers:workers_01")
    assert said[-1] == "workers:workers_01: ERROR (failed)" and controller.exitstatus == 1
    assert by_name(cluster) == before


@NO_WORKER
def test_drain_and_undrain(cluster: Cluster) -> None:
    drained, other = cluster.workers()
    session = next(s for s in iter_sessions(cluster) if s.sid.startswith(drained["tag"]))
    done = cluster.ctl("sio", "drain", drained["name"])
    assert (done.returncode, done.stdout) == (0, f"{drained['name']}: drained\n")
    assert [row["pid"] for row in cluster.workers("drained")] == [drained["pid"]]
    assert tags_of_new_sessions(cluster) == {other["tag"]}
    assert session.call("whoami")["pid"] == drained["pid"]

    cluster.end_router("kill")
    cluster.wait_ready(1)
    pids = [drained["pid"]]
    wait_until(lambda: [r["pid"] for r in cluster.workers("drained")] == pids, 10, "drained still")
    assert tags_of_new_sessions(cluster) == {other["tag"]}

    assert cluster.ctl("sio", "undrain", "workers").returncode == 0
    assert drained["tag"] in tags_of_new_sessions(cluster)  # it has fewer than the other


def iter_sessions(cluster: Cluster) -> Any:
    while True:
        session = Poller(cluster.port)
        session.open()
        session.join()
        yield session


@NO_WORKER
def test_a_drained_worker_comes_back_undrained(cluster: Cluster) -> None:
    name = cluster.workers()[0]["name"]
    assert cluster.ctl("sio", "drain", name).returncode == 0
    assert cluster.ctl("restart", name).returncode == 0
    cluster.wait_ready(2)


@NO_WORKER
def test_commands_that_cannot_be_done(cluster: Cluster) -> None:
    with pytest.raises(xmlrpc.client.Fault, match="no worker nobody is connected"):
        cluster.rpc.sio.drainWorker("nobody")
    with pytest.raises(xmlrpc.client.Fault, match="TLS is off"):
        cluster.rpc.sio.reloadTLS()
    done = cluster.ctl("sio", "reload-tls")
    assert done.returncode == 1 and done.stdout.startswith("ERROR (TLS is off: set tls_certfile")
    assert cluster.ctl("stop", "sio").returncode == 0
    with pytest.raises(xmlrpc.client.Fault, match="no router is running; try again"):
        cluster.rpc.sio.drainWorker(cluster.status()["workers"][0]["name"])
    done = cluster.ctl("sio", "drain", "workers:workers_00")
    assert (done.returncode, done.stdout) == (
        1,
        "ERROR (no router is running; try again in a second, or see: supervisorctl sio status)\n",
    )
    assert cluster.ctl("start", "sio").returncode == 0
