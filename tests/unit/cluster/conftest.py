"""A manager with a server, clients, and other workers that are only spoken to."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Iterator

import pytest
import socketio
import zmq

from supervisor_sio import ZmqManager
from supervisor_sio.common.rundir import ENVIRONMENT_VARIABLE, ClusterInfo, OwnedRunDir
from supervisor_sio.relay.proxy import Relay
from unit.cluster.others import Sent, Start
from unit.polling import PollingClient, make_server


@pytest.fixture(autouse=True)
def outside_supervisord(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)


@pytest.fixture
def manager() -> ZmqManager:
    manager = ZmqManager()
    server = make_server(client_manager=manager)
    server.on("connect", lambda sid, environ: None, namespace="/chat")
    return manager


@pytest.fixture
def server(manager: ZmqManager) -> socketio.Server:
    return manager.server


@pytest.fixture
def clients(server: socketio.Server) -> list[PollingClient]:
    """Two in the room "even", two in "odd", two of them in "low"."""
    clients = [PollingClient(server) for _ in range(4)]
    for number, client in enumerate(clients):
        server.enter_room(client.sid, "odd" if number % 2 else "even")
    for client in clients[:2]:
        server.enter_room(client.sid, "low")
    return clients


@pytest.fixture
def start() -> Iterator[Start]:
    """Calls something that waits for answers in another thread."""
    with ThreadPoolExecutor() as executor:
        yield executor.submit


@pytest.fixture
def sent(manager: ZmqManager, monkeypatch: pytest.MonkeyPatch) -> Sent:
    return Sent(manager, monkeypatch)


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[OwnedRunDir]:
    """A run directory with a relay, as supervisord and the router make it."""
    owned = OwnedRunDir(str(tmp_path))
    owned.write_cluster(ClusterInfo("my app", message_maxbytes=2000))
    listeners = [owned.bind(path, socket.SOCK_STREAM) for path in (owned.xsub, owned.xpub)]
    xsub, xpub = (listener.detach() for listener in listeners)
    relay = Relay(owned.xsub, xsub, owned.xpub, xpub)
    yield owned
    relay.close()
    assert not relay.alive
    owned.close()


@pytest.fixture
def subscribe(run_dir: OwnedRunDir) -> Iterator[Callable[[bytes], zmq.Socket[bytes]]]:
    with zmq.Context() as context:

        def make(topic: bytes) -> zmq.Socket[bytes]:
            ear = context.socket(zmq.SUB)
            ear.setsockopt(zmq.LINGER, 0)
            ear.setsockopt(zmq.RCVTIMEO, 5000)
            ear.setsockopt(zmq.SUBSCRIBE, topic)
            ear.connect(f"ipc://{run_dir.xpub}")
            return ear

        yield make
        context.destroy(linger=0)
