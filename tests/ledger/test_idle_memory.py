"""What an idle client costs its worker, when the application keeps copies of things."""

from __future__ import annotations

import os
import resource
import socket
import struct
from collections.abc import Callable

import pytest
from cluster.conftest import ClusterFactory
from cluster.harness import wait_until
from cluster.modes import OWN_MODES
from cluster.raw import open_websocket

from .victim import memory

pytestmark = OWN_MODES

WARM_UP, CLIENTS = 200, 1000


def join(port: int) -> socket.socket:
    """A websocket client of the namespace "/"."""
    sock = open_websocket(port)
    mask = os.urandom(4)
    sock.sendall(struct.pack("!BB", 0x81, 0x82) + mask + bytes((0x34 ^ mask[0], 0x30 ^ mask[1])))
    data = b""
    while b"welcome" not in data:
        more = sock.recv(65536)
        assert more
        data += more
    return sock


@pytest.fixture
def memory_of_a_client(make_cluster: ClusterFactory) -> Callable[[str], float]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))

    def measure(app: str) -> float:
        """In KiB."""
        cluster = make_cluster(workers=1, command=f"supervisor-sio worker {app}").start()
        (row,) = cluster.workers()
        clients = [join(cluster.port) for _ in range(WARM_UP)]
        before = memory(row["pid"])
        clients += [join(cluster.port) for _ in range(CLIENTS)]
        wait_until(
            lambda: cluster.workers()[0]["sessions"] == WARM_UP + CLIENTS, 10, "all are counted"
        )
        grown = memory(row["pid"]) - before
        for sock in clients:
            sock.close()
        return grown / CLIENTS / 1024

    return measure


@pytest.mark.tries(3)
def test_a_copy_of_the_environment_keeps_nothing_of_the_connection(
    memory_of_a_client: Callable[[str], float],
) -> None:
    """Flask-SocketIO makes one for each session."""
    plain = memory_of_a_client("supervisor_sio.examples.chat:app")
    flask = memory_of_a_client("supervisor_sio.examples.flask_chat:app")
    print(f"KiB for each idle client: chat {plain:.2f}, flask_chat {flask:.2f}")
    # Measured: 1.15 to 1.2. With the connection kept it was more than twice as much.
    assert flask < 1.3 * plain, f"{flask:.2f} KiB, {plain:.2f} without Flask"


@pytest.mark.tries(3)
@pytest.mark.parametrize(
    ("mode", "app", "most"),
    [
        ("asyncio", "fastapi_chat", 5.0),
        ("threading", "threaded_chat", 4.5),
    ],
)
def test_an_idle_client_of_another_mode(
    memory_of_a_client: Callable[[str], float], mode: str, app: str, most: float
) -> None:
    """On asyncio its session keeps the ASGI scope of the handshake as well."""
    taken = memory_of_a_client(f"--async-mode {mode} supervisor_sio.examples.{app}:app")
    print(f"KiB for each idle client: {app} {taken:.2f}")
    assert taken < most
