"""supervisord never dies of us, whatever we are asked, and whatever fails in us."""

from __future__ import annotations

import os
import signal
import tempfile
import time
import xmlrpc.client
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.conftest import Clients, ClusterFactory
from cluster.harness import RPCINTERFACE, Cluster, wait_until
from cluster.modes import NO_WORKER
from supervisor.xmlrpc import Faults

from supervisor_sio.common.limits import RUN_ONCE_LEASE

pytestmark = NO_WORKER

HERE = Path(__file__).parent


@pytest.fixture
def short_path() -> Iterator[Path]:
    """The run directory's sockets are in it, and their paths must not be long."""
    with tempfile.TemporaryDirectory(prefix="sio-") as path:
        yield Path(path)


@pytest.mark.long
def test_a_killed_supervisord_leaves_nothing_behind(
    make_cluster: ClusterFactory, short_path: Path
) -> None:
    cluster = make_cluster(workers=1, wrapper=["env", f"TMPDIR={short_path}"])
    del cluster.settings["run_dir"]
    cluster.start()
    (made,) = short_path.glob("supervisor-sio-*")
    assert (made / "lock").read_text() == f"{cluster.pid}\n"
    os.kill(cluster.pid, signal.SIGKILL)
    wait_until(lambda: not cluster.processes(), 20, "the workers have left")
    cluster.stop()
    cluster.socket.unlink()
    cluster.start()
    (another,) = short_path.glob("supervisor-sio-*")
    assert another.name != made.name
    # Sooner, it would leave its own, which tells the next one of the killed one.
    time.sleep(RUN_ONCE_LEASE)
    cluster.stop()
    assert not list(short_path.glob("supervisor-sio-*"))


def refusal(cluster: Cluster, name: str) -> int:
    with pytest.raises(xmlrpc.client.Fault) as caught:
        cluster.rpc.sio.removeProcess(name)
    return caught.value.faultCode


def test_a_refused_removal_changes_nothing(make_cluster: ClusterFactory) -> None:
    """It took the event listener's configuration away, and the next event ended supervisord."""
    cluster = make_cluster(workers=1).start()
    for name in ("sio:sio", "sio", "workers:workers_00", "workers", "no:such", ":", "sio:"):
        assert refusal(cluster, name) in (Faults.FAILED, Faults.BAD_NAME)
    with pytest.raises(xmlrpc.client.Fault):
        cluster.rpc.sio.scaleGroup("sio", 2)
    cluster.rpc.supervisor.stopProcess("workers:workers_00")  # events for the listener
    cluster.rpc.supervisor.startProcess("workers:workers_00")
    cluster.wait_ready()
    # And `reread` finds every group as it was.
    assert cluster.rpc.supervisor.reloadConfig() == [[[], [], []]]


def test_errors_of_ours_are_counted_and_go_no_further(
    make_cluster: ClusterFactory, clients: Clients
) -> None:
    cluster = make_cluster(workers=1, plugin=False, wrapper=["env", f"PYTHONPATH={HERE}"])
    settings = "".join(f"{name} = {value}\n" for name, value in cluster.settings.items())
    faulty = "supervisor.rpcinterface_factory = faulty:make_rpcinterface\n"
    cluster.extra = f"[rpcinterface:faulty]\n{faulty}{RPCINTERFACE}{settings}"
    cluster.start()
    wait_until(lambda: cluster.status()["supervisord"]["errors"] == 4, 20, "errors counted")
    with pytest.raises(xmlrpc.client.Fault, match="supervisor-sio failed to answer"):
        cluster.rpc.sio.getRooms()
    assert cluster.rpc.sio.getRooms()["rooms"] == []
    assert clients.connect(cluster).call("echo", 1) == 1
    assert "errors   5 of supervisor-sio inside supervisord" in cluster.ctl("sio", "status").stdout
    said = [line for line in cluster.log("supervisord").splitlines() if "Fault" in line]
    assert "the event SupervisorRunningEvent" in said[0] and len(said) <= 5
    assert "Traceback" not in cluster.log("supervisord")
    assert cluster.stop() == 0  # its last callback fails, too
