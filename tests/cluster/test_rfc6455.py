"""The websocket keeps to RFC 6455; for the cases see :mod:`.websocket_cases`."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

import pytest

from .conftest import ClusterFactory
from .harness import Cluster
from .modes import EVENTLET
from .websocket_cases import PING, PONG, TEXT, Case, cases, check, echoed, frame

pytestmark = EVENTLET

HELLO = (TEXT, b"Hello")
SERVES = echoed("serves", [frame(*HELLO), frame(PING)], HELLO, (PONG, b""))

HANDSHAKE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.fixture(scope="module")
def worker(make_module_cluster: ClusterFactory) -> Iterator[Cluster]:
    """One worker that echoes; in the end it is still the same, and nothing has surprised it."""
    cluster = make_module_cluster(workers=1, command="supervisor-sio worker websocket_app:app")
    (row,) = cluster.start().workers()
    yield cluster
    check(SERVES, cluster.port)
    assert [after["pid"] for after in cluster.workers()] == [row["pid"]]
    assert "Traceback" not in cluster.log("workers_00")


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.id)
def test_case(worker: Cluster, case: Case) -> None:
    check(case, worker.port)


@pytest.mark.parametrize(
    ("header", "value", "complaint"),
    [
        ("Sec-WebSocket-Key", None, "no valid Sec-WebSocket-Key"),
        ("Sec-WebSocket-Key", "", "no valid Sec-WebSocket-Key"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZ", "no valid Sec-WebSocket-Key"),
        ("Sec-WebSocket-Key", "MTUgYnl0ZXMgbG9uZy4u", "no valid Sec-WebSocket-Key"),
        ("Sec-WebSocket-Key", "MTcgYnl0ZXMgbG9uZy4uLi4=", "no valid Sec-WebSocket-Key"),
        ("Sec-WebSocket-Version", None, "Sec-WebSocket-Version is not 13"),
        ("Sec-WebSocket-Version", "12", "Sec-WebSocket-Version is not 13"),
    ],
)
def test_refused_handshake(worker: Cluster, header: str, value: str | None, complaint: str) -> None:
    headers = {**HANDSHAKE, header: value}
    connection = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=20)
    connection.request("GET", "/echo", headers={k: v for k, v in headers.items() if v is not None})
    response = connection.getresponse()
    assert (response.status, response.read().decode()) == (400, complaint)
    connection.close()
    check(SERVES, worker.port)
