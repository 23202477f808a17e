"""What clients do wrong over a websocket harms nobody else, and is counted."""

from __future__ import annotations

import os
import socket
import statistics
import time

import psutil
import pytest

from .conftest import Clients
from .harness import Cluster, wait_until
from .modes import NO_HANDLER
from .raw import open_websocket
from .recorder import TestClient

pytestmark = NO_HANDLER

MIB = 1024 * 1024


def masked(opcode: int, payload: bytes, length: int | None = None) -> bytes:
    """A client's frame; ``length`` is what it claims to have."""
    length = len(payload) if length is None else length
    if length < 126:
        head = bytes([0x80 | opcode, 0x80 | length])
    else:
        head = bytes([0x80 | opcode, 0x80 | 127]) + length.to_bytes(8, "big")
    return head + bytes(4) + payload


def close_code(sock: socket.socket) -> int:
    """The code with which the server closes, as the last it says."""
    data = b""
    while more := sock.recv(65536):
        data += more
    assert data[-4:-2] == b"\x88\x02", data[-100:]
    return int.from_bytes(data[-2:], "big")


def figures(cluster: Cluster) -> dict[str, int]:
    clients: dict[str, int] = cluster.status()["clients"]
    return clients


@pytest.fixture
def other(shared_pair: Cluster, clients: Clients) -> TestClient:
    return clients.connect(shared_pair, "python", ["websocket"])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x01x", 1002),  # without a mask
        (b"\xc1\x80" + bytes(4), 1002),  # compressed, though nobody agreed to
        (masked(9, bytes(126), 126), 1002),
        (masked(1, b"\xff\xfe"), 1007),
        (masked(1, b"4", 1_000_001), 1009),  # over max_http_buffer_size
        (masked(2, os.urandom(50), 2**62), 1009),
    ],
    ids=["unmasked", "reserved-bits", "long-ping", "not-utf8", "too-long", "endless"],
)
def test_what_breaks_the_protocol(
    shared_pair: Cluster, other: TestClient, data: bytes, code: int
) -> None:
    before = figures(shared_pair)["protocol_errors"]
    with open_websocket(shared_pair.port) as sock:
        sock.sendall(data)
        assert close_code(sock) == code
    wait_until(lambda: figures(shared_pair)["protocol_errors"] == before + 1, 5, "it is counted")
    assert other.call("echo", 1) == 1
    text = shared_pair.ctl("sio", "status").stdout
    assert f"clients  protocol errors {before + 1}, too slow 0" in text


def test_one_octet_at_a_time(shared_pair: Cluster, other: TestClient) -> None:
    with open_websocket(shared_pair.port) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in masked(1, b"40") + masked(1, b'421["echo","slowly"]'):
            sock.sendall(bytes([octet]))
            time.sleep(0.001)
        data = b""
        while b'431["slowly"]' not in data:
            data += sock.recv(65536)
    assert other.call("echo", 1) == 1


@pytest.mark.tries(3)
def test_a_flood_of_fragments(shared_pair: Cluster, other: TestClient) -> None:
    """A message that does not end is no reason to slow down others, or to take memory."""
    pid = other.whoami()["pid"]
    memory = psutil.Process(pid).memory_info
    sockets = []
    try:
        for _ in range(8):  # some of them at the worker of the other client
            sock = open_websocket(shared_pair.port)
            sock.setblocking(False)
            sockets.append(sock)
            sock.send(b"\x01\x80" + bytes(4))
        before, worst, deadline = memory().rss, 0.0, time.monotonic() + 3
        flood = (b"\x00\x80" + bytes(4)) * 10_000
        while time.monotonic() < deadline:
            for sock in sockets:
                try:
                    sock.send(flood)
                except BlockingIOError:
                    pass
            began = time.monotonic()
            assert other.call("echo", 1) == 1
            worst = max(worst, time.monotonic() - began)
        print(f"slowest answer {worst * 1000:.0f} ms")
        assert worst < 1
        assert memory().rss - before < 20 * MIB
    finally:
        for sock in sockets:
            sock.close()


@pytest.mark.long  # unit/worker/test_websocket.py has it with less patience
def test_a_client_that_never_reads(shared_pair: Cluster, other: TestClient) -> None:
    before = figures(shared_pair)["slow_clients"]
    with open_websocket(shared_pair.port) as sock:
        sock.sendall(masked(1, b"40"))
        latencies, deadline = [], time.monotonic() + 120
        while figures(shared_pair)["slow_clients"] == before:
            assert time.monotonic() < deadline, "it is not cut off"
            # More than the kernel takes and a client may leave behind, and then what is in time.
            for _ in range(5 if len(latencies) < 12 else 1):
                other.emit("emit_long", "noise", 200_000)
            began = time.monotonic()
            assert other.call("echo", 1) == 1
            latencies.append(time.monotonic() - began)
            time.sleep(0.1)
        assert figures(shared_pair)["slow_clients"] == before + 1
    print(f"slowest answer meanwhile {max(latencies) * 1000:.0f} ms")
    # Where they wait for that client, most do, and for longer; a busy machine may take a second.
    assert statistics.median(latencies) < 5
    assert not other.disconnects
    text = shared_pair.ctl("sio", "status").stdout
    assert f"too slow {before + 1}" in text
