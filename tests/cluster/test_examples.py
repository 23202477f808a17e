"""The chat under each web framework: unchanged programs, in a cluster of two workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

import supervisor_sio.examples

from .conftest import Clients, ClusterFactory
from .harness import Cluster
from .modes import OWN_MODES
from .recorder import TestClient

pytestmark = OWN_MODES

PAGES = Path(supervisor_sio.examples.__file__).parent


#: The mode of each.
MODULES = {
    "chat": "eventlet",
    "flask_chat": "eventlet",
    "django_chat": "eventlet",
    "fastapi_chat": "asyncio",
    "threaded_chat": "threading",
}


#: Who says what a view is told, where there is one.
ANNOUNCES = {"django_chat": "Django", "threaded_chat": "Flask"}


@pytest.fixture
def cluster(make_cluster: ClusterFactory, module: str) -> Cluster:
    command = f"supervisor-sio worker supervisor_sio.examples.{module}:app"
    return make_cluster(command=command, mode=MODULES[module]).start()


@pytest.mark.parametrize("module", MODULES)
def test_chat(cluster: Cluster, clients: Clients, module: str) -> None:
    for path, file in (("/", "chat.html"), ("/socket.io.min.js", "socket.io.min.js")):
        assert urlopen(cluster.url + path, timeout=20).read() == (PAGES / file).read_bytes()

    made = clients.mixed(cluster, 6)
    worker = {}
    for client in made:
        ((welcome,),) = client.wait_for("welcome")
        assert welcome["sid"] == client.sid()
        worker[client] = welcome["worker"].rpartition(":")[2]
    assert set(worker.values()) == {"workers_00", "workers_01"}

    expected: list[list[Any]] = []
    for number, client in enumerate(made):
        text = f"<b>{number}</b> ü"
        client.call("message", client.name, text)
        expected.append([{"who": client.name, "text": text, "worker": worker[client]}])
        for listener in made:
            heard = listener.wait_for("message", len(expected))
            for (said,) in heard:
                said["worker"] = said["worker"].rpartition(":")[2]
            assert heard == expected, listener.name
    if module in ANNOUNCES:
        a_view_speaks_to_the_clients_of_all_workers(cluster, made, ANNOUNCES[module])
    for name in sorted(set(worker.values())):
        assert "Traceback" not in cluster.log(name)


def a_view_speaks_to_the_clients_of_all_workers(
    cluster: Cluster, made: list[TestClient], who: str
) -> None:
    body = urlencode({"text": "from a view"}).encode()
    with urlopen(f"{cluster.url}/announce", body, timeout=10) as response:
        assert response.read() == b"said\n"
    for client in made:
        *_, (said,) = client.wait_for("message", len(made) + 1)
        assert (said["who"], said["text"]) == (who, "from a view")
