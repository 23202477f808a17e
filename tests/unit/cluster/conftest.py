"""A manager with a server, clients, and other workers that are only spoken to."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Iterator

import pytest
import socketio

from supervisor_sio import ZmqManager
from supervisor_sio.common.rundir import ENVIRONMENT_VARIABLE
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
