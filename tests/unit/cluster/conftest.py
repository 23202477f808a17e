"""A manager with a server and clients; other workers' messages are simulated."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Callable, Coroutine, Iterator

import pytest
import socketio
import zmq

from supervisor_sio import AsyncZmqManager, ZmqManager
from supervisor_sio.cluster import relaying
from supervisor_sio.common.rundir import ENVIRONMENT_VARIABLE, ClusterInfo, OwnedRunDir
from unit.cluster.others import Sent, Start, wait_until_heard
from unit.cluster.recovering import CLUSTER, Cluster
from unit.in_loop import InLoop, make_async_server, running_loop
from unit.polling import PollingClient, make_server
from unit.relays import relay_in


@pytest.fixture(autouse=True)
def outside_supervisord(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    # Nobody confirms what was sent: there is no router.
    monkeypatch.setattr(relaying, "_LEAVE_TIMEOUT", 0.1)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with running_loop() as loop:
        if sys.version_info < (3, 10):  # queues are of the current loop, which asyncio.run() ends
            asyncio.set_event_loop(loop)
        yield loop
        if sys.version_info < (3, 10):
            asyncio.set_event_loop(asyncio.new_event_loop())


@pytest.fixture(params=[ZmqManager, AsyncZmqManager])
def manager(request: pytest.FixtureRequest) -> Any:
    """Each of the two managers, with a server; called as if it blocked."""
    manager = request.param()
    if request.param is ZmqManager:
        server = make_server(client_manager=manager)
    else:
        loop = request.getfixturevalue("loop")
        server = make_async_server(loop, client_manager=manager)
        manager = InLoop(manager, loop)
    server.on("connect", lambda sid, environ: None, namespace="/chat")
    return manager


@pytest.fixture
def server(manager: ZmqManager) -> socketio.Server:
    return manager.server


@pytest.fixture
def clients(server: socketio.Server) -> list[PollingClient]:
    """Four clients: two in the room "even", two in "odd", two of them in "low"."""
    clients = [PollingClient(server) for _ in range(4)]
    for number, client in enumerate(clients):
        server.enter_room(client.sid, "odd" if number % 2 else "even")
    for client in clients[:2]:
        server.enter_room(client.sid, "low")
    return clients


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a call that waits for answers, in another thread."""
    with ThreadPoolExecutor() as executor:
        yield executor.submit


@pytest.fixture
def sent(manager: ZmqManager, monkeypatch: pytest.MonkeyPatch) -> Sent:
    return Sent(manager, monkeypatch)


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[OwnedRunDir]:
    """A run directory with a relay."""
    with relay_in(tmp_path, ClusterInfo("my app", message_maxbytes=2000)) as owned:
        yield owned


@pytest.fixture
def subscribe(run_dir: OwnedRunDir) -> Iterator[Callable[[bytes], zmq.Socket[bytes]]]:
    """Makes sockets that receive a topic from then on."""
    with zmq.Context() as context:

        def make(topic: bytes) -> zmq.Socket[bytes]:
            ear = context.socket(zmq.SUB)
            ear.setsockopt(zmq.LINGER, 0)
            ear.setsockopt(zmq.RCVTIMEO, 5000)
            ear.setsockopt(zmq.SUBSCRIBE, topic)
            ear.connect(f"ipc://{run_dir.xpub}")
            wait_until_heard(ear, topic, mouth)
            return ear

        mouth = context.socket(zmq.PUB)
        mouth.connect(f"ipc://{run_dir.xsub}")

        yield make
        context.destroy(linger=0)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Runs a scenario in a cluster whose clients can come back."""

    def run_one(
        owned: OwnedRunDir, scenario: Callable[[Cluster], Coroutine[Any, Any, None]]
    ) -> None:
        async def all_of_it() -> None:
            cluster = Cluster(owned, monkeypatch)
            try:
                await scenario(cluster)
            finally:
                await cluster.close()

        asyncio.run(all_of_it())

    with relay_in(tmp_path, CLUSTER) as owned:
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, owned.path)
        yield partial(run_one, owned)
