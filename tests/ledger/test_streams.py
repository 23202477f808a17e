"""Answers that come bit by bit are sent so, and request bodies in chunks are read."""

from __future__ import annotations

import http.client
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.conftest import ClusterFactory
from cluster.harness import Cluster, wait_until
from cluster.modes import WSGI

pytestmark = WSGI


@pytest.fixture(scope="module")
def cluster(make_module_cluster: ClusterFactory) -> Cluster:
    command = "supervisor-sio worker stream_app:app"
    return make_module_cluster(workers=1, here=Path(__file__).parent, command=command).start()


@pytest.fixture
def connection(cluster: Cluster) -> Iterator[http.client.HTTPConnection]:
    made = http.client.HTTPConnection("127.0.0.1", cluster.port, timeout=20)
    yield made
    made.close()


def get(cluster: Cluster, path: str) -> str:
    made = http.client.HTTPConnection("127.0.0.1", cluster.port, timeout=20)
    made.request("GET", path)
    text = made.getresponse().read().decode()
    made.close()
    return text


def settled(cluster: Cluster) -> None:
    """All that was logged so far is in the log: supervisord passes it on in order."""
    word = f"marker-{time.monotonic_ns()}"
    get(cluster, f"/mark/{word}")
    wait_until(lambda: word in cluster.log("workers_00"), 10, "in the log")


def test_events_are_sent_when_they_happen(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", "/ticks")
    answer = connection.getresponse()
    assert answer.status == 200
    began = time.monotonic()
    assert [answer.readline() for _ in range(6)][::2] == [b"data: 1\n", b"data: 2\n", b"data: 3\n"]
    assert time.monotonic() - began < 15  # of a stream without end


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
def test_a_client_that_leaves_ends_its_stream(cluster: Cluster, reset: bool) -> None:
    before = int(get(cluster, "/left"))
    with socket.create_connection(("127.0.0.1", cluster.port), timeout=20) as sock:
        sock.sendall(b"GET /ticks HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: int(get(cluster, "/left")) > before, 5, "the stream has ended")
    settled(cluster)
    assert "Traceback" not in cluster.log("workers_00")


def test_a_body_in_chunks_is_read(connection: http.client.HTTPConnection) -> None:
    pieces = [b"a" * size for size in (1, 70_000, 3)]
    connection.request("POST", "/length", iter(pieces), encode_chunked=True)
    assert connection.getresponse().read() == b"70004"
    connection.request("POST", "/lines", iter([b"a\nb", b"c\n", b"\n", b"d"]), encode_chunked=True)
    assert connection.getresponse().read() == b"a\n|bc\n|\n|d"
    connection.request("POST", "/length", b"x" * 100_000)
    assert connection.getresponse().read() == b"100000"


@pytest.mark.parametrize(
    "framing, body, status",
    [
        (b"Content-Length: 10", b"12345", b"400"),
        (b"Transfer-Encoding: chunked", b"5\r\n123", b"400"),
        (b"Transfer-Encoding: chunked", b"5\r\n1234567", b"400"),
    ],
    ids=["length", "chunk", "no-chunks"],
)
def test_a_body_that_breaks_off_costs_no_traceback(
    cluster: Cluster, framing: bytes, body: bytes, status: bytes
) -> None:
    """Not one of Flask's either."""
    with socket.create_connection(("127.0.0.1", cluster.port), timeout=20) as sock:
        sock.sendall(b"POST /length HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n" + body)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while data := sock.recv(65536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 " + status)
    settled(cluster)
    assert "Traceback" not in cluster.log("workers_00")
