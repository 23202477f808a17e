"""The published faults of the field, by their numbers: none of them is ours.

Each was a fault of a server or a parser that does what ours does. Where the advisory has an attack,
that is what the test does; the others are still served, by the same process, with no traceback.
"""

from __future__ import annotations

import os
import pickle
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from cluster.conftest import ClusterFactory
from cluster.harness import Cluster, wait_until
from cluster.modes import NO_WORKER
from cluster.raw import Poller, exchange, open_websocket
from cluster.test_hosts import Redis, queue

from .attackers import BINARY, PING, TEXT, frame
from .victim import MB, PeakMemory, descriptors, wait_idle

__all__ = ["queue"]

PATH = b"/socket.io/?EIO=4&transport="
HOST = b"Host: x\r\n"
#: Would be answered with 200, were it taken for a request.
SMUGGLED = b"GET /pid HTTP/1.1\r\n" + HOST + b"\r\n"


@pytest.fixture(scope="module")
def cluster(make_module_cluster: ClusterFactory, queue: Redis) -> Cluster:
    return make_module_cluster(workers=1, message_queue=queue.url).start()


@pytest.fixture(scope="module")
def pid(cluster: Cluster) -> int:
    return int(cluster.workers()[0]["pid"])


@pytest.fixture(autouse=True)
def others_are_unharmed(cluster: Cluster, pid: int) -> Iterator[None]:
    """Somebody else is served, before and after and by the same process; nothing has crashed."""
    with connected(cluster) as other:
        yield
        other.sendall(frame(TEXT, b'42["whoami"]') + frame(TEXT, b'427["echo","still"]'))
        read_until(other, b'437["still"]')
    wait_until(lambda: [row["pid"] for row in cluster.workers()] == [pid], 5, "the same worker")
    assert not [name for name, text in cluster.logs().items() if "Traceback" in text]


def connected(cluster: Cluster) -> socket.socket:
    """A websocket that is connected to the namespace "/"."""
    sock = open_websocket(cluster.port)
    sock.sendall(frame(TEXT, b"40"))
    read_until(sock, b"40{")
    return sock


def read_until(sock: socket.socket, text: bytes) -> bytes:
    data = b""
    while text not in data:
        more = sock.recv(65536)
        assert more, f"the connection ended after {data[-100:]!r}"
        data += more
    return data


def pour(sock: socket.socket, data: bytes, most_bytes: int, patience: float = 1) -> bool:
    """Send this again and again; whether the other side ended the connection over it.

    The server may stop to read, too: then nothing more is sent after so many seconds.
    """
    sock.settimeout(patience)
    sent = 0
    try:
        while sent < most_bytes:
            sock.sendall(data)
            sent += len(data)
        while sock.recv(65536):
            pass
        return True
    except TimeoutError:
        return False
    except OSError:
        return True


def answers(cluster: Cluster, data: bytes) -> list[bytes]:
    """The status of each answer."""
    parts = exchange(cluster.port, data).split(b"HTTP/1.1 ")[1:]
    return [part[:3] for part in parts]


# --- socket.io and python-socketio ------------------------------------------------


@pytest.mark.parametrize("packet", [b'42["error","x"]', b'42["error",{"message":"x"}]', b"44{}"])
def test_cve_2024_38355_an_event_named_error(cluster: Cluster, packet: bytes) -> None:
    """socket.io, GHSA-25hc-qcg6-38wj: an 'error' event that nobody handled ended the process."""
    with open_websocket(cluster.port) as early:
        early.sendall(frame(TEXT, packet))
        with connected(cluster) as sock:
            sock.sendall(frame(TEXT, packet) * 3)


@pytest.mark.parametrize(
    "packet", [b'42[{"toString":"x"}]', b"42[null]", b"42[[]]", b'42["connect"]', b"42{}", b"42"]
)
def test_cve_2023_32695_names_of_events(cluster: Cluster, packet: bytes) -> None:
    """socket.io-parser, GHSA-cqmj-92xf-r6r9: a name that was no string ended the process."""
    with connected(cluster) as sock:
        sock.sendall(frame(TEXT, packet) + frame(TEXT, b'429["echo","on"]'))
        # The session ends, as with Node.
        data = b""
        while more := sock.recv(65536):
            data += more
    assert b"439" not in data


@pytest.mark.parametrize("count", [11, 99, 4_550_000_000])
@pytest.mark.parametrize("joined", [False, True], ids=["stranger", "connected"])
def test_cve_2026_33151_attachments_without_number(
    cluster: Cluster, pid: int, count: int, joined: bool
) -> None:
    """socket.io-parser, GHSA-677m-j7p3-52f9, and CVE-2026-69185: it waited for any number."""
    with PeakMemory(pid) as peak:
        with connected(cluster) if joined else open_websocket(cluster.port) as sock:
            sock.sendall(frame(TEXT, b'45%d-["echo",{"_placeholder":true,"num":0}]' % count))
            pour(sock, frame(BINARY, bytes(500_000)), 60 * MB)
    assert peak.grown < 24 * MB


def test_cve_2026_48804_attachments_that_pile_up(cluster: Cluster, pid: int) -> None:
    """python-socketio: attachments of packets that are never complete were kept."""
    begun = frame(TEXT, b'459-["echo",{"_placeholder":true,"num":8}]')
    attachments = frame(BINARY, bytes(500_000)) * 8
    with PeakMemory(pid) as peak, connected(cluster) as sock:
        pour(sock, begun + attachments, 60 * MB)
    assert peak.grown < 24 * MB


class _Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@NO_WORKER
def test_cve_2025_61765_pickles_on_the_queue(
    cluster: Cluster, queue: Redis, tmp_path: Path
) -> None:
    """python-socketio: whoever could publish on the queue could run code in every server."""
    path = tmp_path / "was-here"
    client = redis.Redis.from_url(queue.url)
    before = cluster.status()["queue"]["malformed"]
    client.publish("socketio", pickle.dumps(_Touch(path)))
    client.close()
    wait_until(lambda: cluster.status()["queue"]["malformed"] > before, 10, "it is counted")
    assert not path.exists()


# --- engine.io and python-engineio -------------------------------------------------


@pytest.mark.parametrize("transport", [b"", b"polling", b"__proto__", b"webtransport", b"\xff"])
def test_cve_2023_31125_upgrades_to_what_is_no_websocket(
    cluster: Cluster, transport: bytes
) -> None:
    """engine.io, GHSA-q9mw-68c2-j6m5, and GHSA-gr94-w7qr-f4j3 for WebTransport."""
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade, close\r\nSec-WebSocket-Version: 13\r\n"
    upgrade += b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    data = b"GET " + PATH + transport + b" HTTP/1.1\r\n" + HOST + upgrade + b"\r\n"
    with socket.create_connection(("127.0.0.1", cluster.port), timeout=20) as sock:
        sock.sendall(data)
        assert b" 101 " not in sock.recv(65536)


def test_cve_2026_59725_binary_posts_are_answered(cluster: Cluster, pid: int) -> None:
    """engine.io, GHSA-r635-g3xr-vw7x: such a request was never answered, and stayed open."""
    before = descriptors(pid)
    for _ in range(20):
        session = Poller(cluster.port)
        session.open()
        head = b"POST " + PATH + b"polling&sid=" + session.sid.encode() + b" HTTP/1.1\r\n" + HOST
        head += b"Content-Type: application/octet-stream\r\nConnection: close\r\n"
        (status,) = answers(cluster, head + b"Content-Length: 3\r\n\r\n\x01\x02\x03")
        assert status in (b"200", b"400")
    wait_until(lambda: descriptors(pid) <= before + 2, 10, "they are closed")


def test_cve_2026_48802_pongs_start_nothing(cluster: Cluster, pid: int) -> None:
    """python-engineio, GHSA-cgwc-pv48-fhj5: each pong and each handshake started a thread."""
    threads = psutil.Process(pid).num_threads()
    with PeakMemory(pid) as peak, connected(cluster) as sock:
        sock.sendall(frame(TEXT, b"3") * 50_000 + frame(TEXT, b'421["echo","done"]'))
        read_until(sock, b"431")
    assert peak.grown < 16 * MB
    assert psutil.Process(pid).num_threads() < threads + 5


@pytest.mark.parametrize("size", [50 * MB, 2**40])
def test_cve_2026_48809_long_messages_are_not_read(cluster: Cluster, pid: int, size: int) -> None:
    """python-engineio; daphne: CVE-2026-44545, GHSA-rrc9-mx66-ffcm: no limit was passed on."""
    session = Poller(cluster.port)
    session.open()
    post = b"POST " + PATH + b"polling&sid=" + session.sid.encode() + b" HTTP/1.1\r\n" + HOST
    head = bytes([0x80 | BINARY, 0x80 | 127]) + size.to_bytes(8, "big") + bytes(4)
    with PeakMemory(pid) as peak:
        with socket.create_connection(("127.0.0.1", cluster.port), timeout=20) as sock:
            sock.sendall(post + b"Content-Length: %d\r\n\r\n" % size)
            assert pour(sock, b"x" * 65536, 50 * MB, 20)
        with open_websocket(cluster.port) as sock:
            sock.sendall(head)
            assert pour(sock, b"x" * 65536, 50 * MB, 20)
    assert peak.grown < 16 * MB


# --- ws ------------------------------------------------------------------------------


def test_cve_2024_37890_many_headers(cluster: Cluster) -> None:
    """ws, GHSA-3h5v-q93c-6h6q: more headers than Node reads ended the process."""
    fields = b"".join(b"X-%d: y\r\n" % number for number in range(2000))
    data = b"GET " + PATH + b"websocket HTTP/1.1\r\n" + HOST + fields + b"Upgrade: websocket\r\n"
    data += b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    (status,) = answers(cluster, data)
    assert status in (b"400", b"431")


@pytest.mark.parametrize("payload", [b"", b"x", b"xx"], ids=["empty", "one", "two"])
def test_cve_2026_48779_tiny_fragments(cluster: Cluster, pid: int, payload: bytes) -> None:
    """ws, GHSA-96hv-2xvq-fx4p: each fragment was kept as an object of its own."""
    with PeakMemory(pid) as peak, connected(cluster) as sock:
        sock.sendall(frame(TEXT, b'42["echo","', final=False))
        pour(sock, frame(0, payload, final=False) * 1000, 3 * MB)
    assert peak.grown < 16 * MB


def test_cve_2026_45736_what_a_close_says(cluster: Cluster) -> None:
    """ws, GHSA-58qx-3vcg-4xpx: the reason of a close could be memory of the process."""
    with connected(cluster) as sock:
        sock.sendall(frame(8, b"\x03\xe8" + b"bye" * 20))
        data = b""
        while more := sock.recv(65536):
            data += more
    assert data.endswith(b"\x88\x02\x03\xe8")


# --- daphne, gunicorn, eventlet, gevent, waitress, h11 --------------------------------


@pytest.mark.parametrize("byte", [b"\x0b", b"\x0c", b"\x1c", b"\x1e", b"\x85", b"\0", b"\r"])
def test_cve_2026_44546_bytes_that_end_lines_for_some(cluster: Cluster, byte: bytes) -> None:
    """daphne, GHSA-xh68-hfp5-5x5m: what was behind them became a header."""
    head = b"GET /environ HTTP/1.1\r\n" + HOST + b"Connection: close\r\n"
    answer = exchange(cluster.port, head + b"X-A: b" + byte + b"X-Injected: c\r\n\r\n")
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 200 "))
    assert b'"HTTP_X_INJECTED"' not in answer


ENCODINGS = [
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: chunked\r\nContent-Length: 5",
]


@pytest.mark.parametrize("fields", ENCODINGS)
def test_cve_2024_1135_encodings_that_disagree(cluster: Cluster, fields: bytes) -> None:
    """gunicorn, GHSA-w3h3-4rj7-4ph4: taken for chunked, whatever came last."""
    data = b"POST /pid HTTP/1.1\r\n" + HOST + fields + b"\r\n\r\n0\r\n\r\n"
    assert answers(cluster, data + SMUGGLED) == [b"400"]


@pytest.mark.parametrize("value", [b"xchunked", b"gzip", b"[chunked", b"chunk", b"", b'"chunked"'])
def test_cve_2024_6827_encodings_that_are_none(cluster: Cluster, value: bytes) -> None:
    """gunicorn, GHSA-hc5x-x2vx-497g: fell back to Content-Length."""
    data = b"POST /pid HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: " + value
    body = b"\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
    assert answers(cluster, data + body + SMUGGLED) == [b"400"]


CHUNKED = b"POST /upload HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"


def test_cve_2025_58068_trailers_are_read(cluster: Cluster) -> None:
    """eventlet: what should have been trailers was the next request."""
    trailers = b"X: y\r\n" + b"GET /pid HTTP/1.1\r\n" + HOST + b"\r\n"
    got = answers(cluster, CHUNKED + b"5\r\nhello\r\n0\r\n" + trailers + b"")
    assert got in ([b"400"], [b"200", b"400"])


@pytest.mark.parametrize("trailer", [b"no colon\r\n", b"X : y\r\n", b" X: y\r\n", b"X: \0\r\n"])
def test_cve_2023_41419_trailers_that_are_none(cluster: Cluster, trailer: bytes) -> None:
    """gevent: a bad trailer began a second request."""
    data = CHUNKED + b"5\r\nhello\r\n0\r\n" + trailer + b"\r\n" + SMUGGLED
    got = answers(cluster, data)
    assert got in ([b"400"], [b"200", b"400"], [b"200"])


@pytest.mark.parametrize("end", [b"XX", b"\r\r", b"\n\n", b"\r\n\r\n", b""])
def test_cve_2025_43859_chunks_end_as_they_must(cluster: Cluster, end: bytes) -> None:
    """h11, GHSA-vqfr-h8mv-ghfj: any two bytes were taken for the end of a chunk."""
    got = answers(cluster, CHUNKED + b"5\r\nhello" + end + b"0\r\n\r\n" + SMUGGLED)
    assert got == [b"400"]


def test_cve_2024_49768_nothing_is_served_behind_a_bad_request(cluster: Cluster) -> None:
    """waitress, GHSA-9298-4cf8-g4wj: the next request of a connection that should be closed."""
    bad = b"POST /pid HTTP/1.1\r\n" + HOST + b"Content-Length: x\r\n\r\n"
    assert answers(cluster, bad + SMUGGLED * 10) == [b"400"]
    assert answers(cluster, SMUGGLED + bad + SMUGGLED * 10) == [b"200", b"400"]


def test_cve_2024_49769_clients_that_are_gone_at_once(cluster: Cluster, pid: int) -> None:
    """waitress, GHSA-3f84-rpwh-47g6: a client that closed before it was asked kept a busy loop."""
    victims = [pid, cluster.router_pid]
    before = [descriptors(victim) for victim in victims]
    reset = struct.pack("ii", 1, 0)
    for data in (b"", b"GET", SMUGGLED) * 60:
        with socket.create_connection(("127.0.0.1", cluster.port), timeout=20) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            sock.sendall(data)
    wait_until(
        lambda: all(descriptors(v) <= n + 2 for v, n in zip(victims, before)), 10, "they are closed"
    )
    wait_idle(*victims)


def test_cve_2021_21419_pings_do_not_pile_up(cluster: Cluster, pid: int) -> None:
    """eventlet: a client that reads nothing took all the memory by frames it sent."""
    with PeakMemory(pid) as peak, open_websocket(cluster.port) as sock:
        pour(sock, frame(PING, b"x" * 100) * 1000, 20 * MB)
    assert peak.grown < 24 * MB
