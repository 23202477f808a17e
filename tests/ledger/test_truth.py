"""`sio status` says how things are: no crash loop looks healthy, no clock makes a process old."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from cluster.conftest import ClusterFactory
from cluster.harness import Cluster, wait_until
from cluster.modes import NO_WORKER

pytestmark = NO_WORKER

HERE = Path(__file__).parent

#: Of the log of a worker with failing_app.py.
LAST_LINE = (
    "supervisor-sio worker: error: importing 'failing_app' failed with RuntimeError: no database"
)


def row(cluster: Cluster) -> dict[str, Any]:
    (worker,) = cluster.status()["workers"]
    return dict(worker)


def test_a_crash_loop_does_not_look_healthy(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(
        workers=1, command="supervisor-sio worker failing_app:app", here=HERE, startsecs=1
    )
    cluster.spawn()
    wait_until(
        lambda: cluster.socket.exists() and cluster.ctl("sio", "status").returncode != 4,
        20,
        "supervisord",
    )
    wait_until(
        lambda: row(cluster)["failures"] >= 2 and row(cluster)["state"] == "failing", 60, "failing"
    )
    # It restarts for ever, so the state at the moment of the question may be another one.
    for command in ("status", "workers"):
        text = "times, see: supervisorctl tail workers:workers_00\n"
        done = wait_until(
            lambda: text in (done := cluster.ctl("sio", command)).stdout and done,  # noqa: B023
            20,
            "how often it failed",
        )
        assert done.returncode == 3
        assert "workers:workers_00 failed " in done.stdout
        assert f"  last line of its log: {LAST_LINE}\n" in done.stdout
    assert "no database" in cluster.ctl("tail", "workers:workers_00").stdout
    wait_until(
        lambda: row(cluster)["state"] == "backoff" and row(cluster)["pause"] > 0,
        20,
        "a pause before the next start",
    )
    assert cluster.ctl("stop", "workers:workers_00").returncode == 0
    assert (row(cluster)["state"], row(cluster)["failures"]) == ("stopped", 0)
    assert cluster.ctl("start", "workers:workers_00").returncode == 0
    # A reload says so, too, and soon. (Between two starts it is "exited", and left alone.)
    done = wait_until(
        lambda: (done := cluster.ctl("sio", "reload")).returncode and done, 20, "a reload"
    )
    assert "the new process is not ready: " in done.stdout


_BROKEN_ROUTER = """
[eventlistener:sio]
command = sh -c 'echo no room >&2; exit 1; exec supervisor-sio router'
events = PROCESS_STATE
"""


def test_why_router_and_workers_do_not_start(make_cluster: ClusterFactory) -> None:
    command = "/nowhere/supervisor-sio worker cluster_app:app"
    cluster = make_cluster(workers=1, command=command, router=False, extra=_BROKEN_ROUTER)
    cluster.spawn()
    told = (
        "fault    sio ended, see: supervisorctl tail sio stderr",
        "fault    last line of its log: no room",
        "supervisord cannot start it: can't find command '/nowhere/supervisor-sio'",
    )
    wait_until(
        lambda: all(text in cluster.ctl("sio", "status").stdout for text in told), 20, "the reasons"
    )


@pytest.mark.long
@pytest.mark.tries(3)  # it takes longer where everything does
def test_an_import_that_fails_after_three_seconds_is_shown_within_ten(
    make_cluster: ClusterFactory,
) -> None:
    cluster = make_cluster(
        workers=1,
        command="env SECONDS=3 supervisor-sio worker failing_app:app",
        here=HERE,
        startsecs=1,
    )
    began = time.monotonic()
    cluster.spawn()

    def shown() -> bool:
        done = cluster.ctl("sio", "status")
        lines = ("workers:workers_00 failed 1 time, ", f"  last line of its log: {LAST_LINE}\n")
        return done.returncode == 3 and all(line in done.stdout for line in lines)

    wait_until(shown, 30, "how often it failed, and its last line")
    seconds = time.monotonic() - began
    print(f"shown {seconds:.1f} s after supervisord began to start")
    assert seconds < 10


def test_a_worker_that_is_killed_after_a_while_has_not_failed(
    make_cluster: ClusterFactory,
) -> None:
    cluster = make_cluster(workers=1).start()
    done = cluster.ctl("sio", "status", "--json")
    assert json.loads(done.stdout)["workers"][0]["failures"] == 0
    cluster.rpc.supervisor.signalProcess("workers:workers_00", "KILL")
    wait_until(lambda: row(cluster)["failures"] == 1, 10, "counted, it was just ready")
    cluster.wait_ready()
    assert cluster.ctl("sio", "status").returncode == 0  # ready again
    cluster.rpc.supervisor.stopProcess("workers:workers_00")
    assert row(cluster)["failures"] == 0


def test_the_wall_clock_makes_no_process_older(
    make_cluster: ClusterFactory, tmp_path: Path
) -> None:
    shutil.copy(HERE / "clock.py", tmp_path / "sitecustomize.py")
    flag = tmp_path / "set"
    cluster = make_cluster(
        workers=1, wrapper=["env", f"PYTHONPATH={tmp_path}", f"CLOCK_IS_SET={flag}"]
    ).start()
    flag.touch()
    assert cluster.rpc.supervisor.getProcessInfo("sio:sio")["now"]
    status = cluster.status()
    assert 0 <= status["router"]["uptime"] < 60 and 0 <= status["workers"][0]["uptime"] < 60
