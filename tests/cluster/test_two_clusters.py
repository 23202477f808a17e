"""Two applications under one supervisord, each with a cluster of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sys
import urllib.request
import xmlrpc.client
from pathlib import Path
from typing import Any

import pytest

import supervisor_sio

from .conftest import Clients, ClusterFactory
from .harness import Cluster, free_port, server_environment, wait_until
from .modes import ANY_MODE
from .recorder import TestClient
from .test_bad_input import the_error

pytestmark = ANY_MODE

SECTIONS = """
[rpcinterface:{name}]
supervisor.rpcinterface_factory = supervisor_sio.rpcinterface:make_rpcinterface
listen = 127.0.0.1:{port}
metrics = 127.0.0.1:{metrics}

[eventlistener:{name}]
command = supervisor-sio router
events = PROCESS_STATE
stderr_logfile = {directory}/router-{name}.log
environment = {variable}
"""

#: A program that serves nobody, and emits.
CRIER = """
[program:crier]
command = {python} -c "import supervisor_sio as s; s.ZmqManager().emit('cried', 'shop')"
environment = {variable}
autostart = false
startsecs = 0
autorestart = false
redirect_stderr = true
stdout_logfile = {directory}/crier.log
"""


class Part:
    """One of the clusters."""

    def __init__(self, host: Cluster, name: str, workers: int) -> None:
        self.host, self.name, self.numprocs = host, name, workers
        self.port, self.metrics_port = free_port(), free_port()
        self.group = f"{name}_workers"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def sections(self) -> str:
        variable = f'SUPERVISOR_SIO_CLUSTER="{self.name}"'
        sections = SECTIONS.format(
            name=self.name,
            port=self.port,
            metrics=self.metrics_port,
            directory=self.host.directory,
            variable=variable,
        )
        program = self.host.program(self.group, self.host.command, self.numprocs)
        return f"{sections}{program}environment = {variable}\n"

    @property
    def rpc(self) -> Any:
        return getattr(self.host.rpc, self.name)

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.rpc.getStatus()
        return answer

    def names(self) -> list[str]:
        return [worker["name"] for worker in self.status()["workers"]]

    def states(self) -> list[str]:
        """None while supervisord does not answer."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return [worker["state"] for worker in self.status()["workers"]]
        return []

    def wait_ready(self) -> None:
        wait_until(lambda: self.states() == ["ready"] * self.numprocs, 60, f"{self.name} is ready")

    def ctl(self, *words: str, status: int = 0) -> str:
        done = self.host.ctl("sio", "--cluster", self.name, *words)
        assert done.returncode == status, done.stdout
        return done.stdout

    def in_metrics(self) -> list[str]:
        """The workers there, by their label."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=20
        ) as a:
            lines = a.read().decode().splitlines()
        return sorted(
            line.partition("{")[2].partition("}")[0]
            for line in lines
            if "_worker_sessions{" in line
        )


#: Debian has a supervisord of its own, for its Python.
DEBIAN = "/usr/bin/supervisord"


@pytest.fixture(scope="module", params=["ours", pytest.param("debian", marks=pytest.mark.long)])
def host(request: pytest.FixtureRequest, make_module_cluster: ClusterFactory) -> Cluster:
    made = make_module_cluster(workers=0, plugin=False, router=False)
    if request.param == "debian":
        if not os.path.exists(DEBIAN):
            pytest.skip("no supervisord of Debian's")
        made.supervisord = DEBIAN
        root = Path(supervisor_sio.__file__).parents[1]
        made.wrapper = ["env", f"PYTHONPATH={root}:{server_environment()['PYTHONPATH']}"]
    return made


@pytest.fixture(scope="module")
def both(host: Cluster) -> tuple[Part, Part]:
    chat, shop = Part(host, "chat", 2), Part(host, "shop", 1)
    host.extra = chat.sections + shop.sections
    host.extra += CRIER.format(
        python=sys.executable, variable='SUPERVISOR_SIO_CLUSTER="shop"', directory=host.directory
    )
    host.spawn()
    for part in (chat, shop):
        part.wait_ready()
    return chat, shop


@pytest.fixture(scope="module")
def crowd(
    both: tuple[Part, Part], module_clients: Clients
) -> tuple[list[TestClient], list[TestClient]]:
    """Clients of each, at every worker."""
    chat, shop = ([module_clients.connect(part) for _ in range(2)] for part in both)
    return chat, shop


def expect_apart(
    crowd: tuple[list[TestClient], list[TestClient]], event: str, mine: int, count: int = 1
) -> None:
    """Those of one cluster get an event, and the others do not."""
    for client in crowd[mine]:
        client.wait_for(event)
    # What others were sent meanwhile has come before what they are sent now.
    for number, clients in enumerate(crowd):
        clients[0].call("emit_all", f"{event}-{number}", 0, {})
        for client in clients:
            client.wait_for(f"{event}-{number}")
            assert len(client.received(event)) == (count if number == mine else 0), client.name
            assert not client.received(f"{event}-{1 - number}"), client.name


def test_each_has_its_port_its_workers_and_its_status(
    both: tuple[Part, Part], crowd: tuple[list[TestClient], list[TestClient]]
) -> None:
    for part, clients in zip(both, crowd):
        status = json.loads(part.ctl("status", "--json"))
        assert status["listen"] == [f"127.0.0.1:{part.port}"]
        assert status["router"]["process"] == part.name
        assert [worker["name"].partition(":")[0] for worker in status["workers"]] == [
            part.group
        ] * part.numprocs
        tags = {worker["tag"] for worker in status["workers"]}
        assert {client.sid().partition(".")[0] for client in clients} == tags
        assert {row["sid"] for row in part.rpc.getSockets()["sockets"]} == {
            client.sid() for client in clients
        }
        shown = [f'worker="{name}"' for name in part.names()]
        wait_until(lambda p=part, s=shown: p.in_metrics() == s, 20, "metrics of its own workers")
    log = both[0].host.log("supervisord")
    for part in both:
        assert f"sio: {part.name}: listening on 127.0.0.1:{part.port}, " in log


def test_an_emit_in_one_is_not_heard_in_the_other(
    both: tuple[Part, Part], crowd: tuple[list[TestClient], list[TestClient]]
) -> None:
    chat, shop = both
    for mine in (0, 1):
        event = f"from-{both[mine].name}"
        crowd[mine][0].call("emit_all", event, 1, {})
        expect_apart(crowd, event, mine)
    assert shop.ctl("emit", "news", '"of the shop"').strip() == "news: emitted (2 clients)"
    expect_apart(crowd, "news", 1)
    assert chat.rpc.emit("rpc", "[1]")
    expect_apart(crowd, "rpc", 0)
    # Of a client's id, which is in another cluster, nobody knows.
    with pytest.raises(xmlrpc.client.Fault, match="no client"):
        chat.rpc.kick(crowd[1][0].sid())
    # And a program that is no worker emits where it says.
    assert shop.host.ctl("start", "crier").returncode == 0
    expect_apart(crowd, "cried", 1)


def test_without_a_cluster_supervisorctl_says_which_there_are(host: Cluster, both: Any) -> None:
    for words in (["sio"], ["sio", "--cluster", "caht", "reload"]):
        done = host.ctl(*words)
        assert done.returncode == 2
        assert "only chat and shop; write: supervisorctl sio --cluster chat\n" in done.stdout


def test_commands_stay_in_their_cluster(both: tuple[Part, Part]) -> None:
    chat, shop = both
    assert "no such worker" in chat.ctl("drain", shop.group, status=1)
    assert "(it is in the cluster shop, not in this one)" in chat.ctl(
        "scale", shop.group, "2", status=1
    )
    assert shop.numprocs == len(shop.names())


def test_one_is_reloaded_and_the_other_does_not_notice(
    both: tuple[Part, Part], crowd: tuple[list[TestClient], list[TestClient]]
) -> None:
    chat, shop = both
    before = [worker["pid"] for worker in chat.status()["workers"]]
    assert "ready: 1 of 1 worker" in shop.ctl("reload")
    for client in crowd[1]:
        client.wait_disconnected()
        client.wait_talking()
    assert before == [worker["pid"] for worker in chat.status()["workers"]]
    assert not any(client.disconnects for client in crowd[0])


def test_one_stops_and_the_other_does_not_notice(
    host: Cluster,
    both: tuple[Part, Part],
    crowd: tuple[list[TestClient], list[TestClient]],
    module_clients: Clients,
) -> None:
    chat, shop = both
    names = [f"{shop.group}:*", shop.name]
    assert host.ctl("stop", *names).returncode == 0
    wait_until(lambda: shop.status()["router"]["state"] == "down", 20, "supervisord notices")
    assert "shop is STOPPED" in shop.ctl("status", status=3)
    chat.ctl("status")
    assert all(client.call("echo", "still here") == "still here" for client in crowd[0])
    assert not any(client.disconnects for client in crowd[0])
    assert host.ctl("start", *names).returncode == 0
    # Its own are on their way back, with pauses that have grown.
    new = module_clients.connect(shop)
    assert new.call("echo", "again") == "again"


def test_two_sections_of_one_name(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=0, router=False)
    cluster.extra = (
        "\n[rpcinterface:sio]\n"
        "supervisor.rpcinterface_factory = supervisor_sio.rpcinterface:make_rpcinterface\n"
        f"listen = 127.0.0.1:{free_port()}\n"
    )
    assert the_error(cluster).endswith(
        " Error: [rpcinterface:sio]: there are several sections of this name, and supervisord "
        "merges them into one cluster; give each its own name"
    )
