"""Requests whose end a proxy and we could see at different places (RFC 9112, 11.2)."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest
from cluster.conftest import ClusterFactory
from cluster.harness import Cluster
from cluster.raw import exchange

from .victim import log_lines


@pytest.fixture(scope="module")
def cluster(make_module_cluster: ClusterFactory) -> Cluster:
    return make_module_cluster(workers=1).start()


#: Would be answered, were it taken for a request of its own.
SMUGGLED = b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n"


def post(*lines: bytes, host: bytes = b"Host: x\r\n", version: bytes = b"1.1") -> bytes:
    head = b"POST /pid HTTP/" + version + b"\r\n" + host
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


AMBIGUOUS = {
    "unknown-encoding": post(b"Transfer-Encoding: xchunked") + b"0\r\n\r\n",
    "two-encodings": post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
    "gzip-chunked": post(b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
    "length-and-chunked": post(b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "chunked-in-1.0": post(b"Transfer-Encoding: chunked", version=b"1.0") + b"0\r\n\r\n",
    "two-lengths": post(b"Content-Length: 0", b"Content-Length: 30"),
    "length-with-plus": post(b"Content-Length: +0"),
    "length-with-underscore": post(b"Content-Length: 1_0") + b"x" * 10,
    "length-in-hex": post(b"Content-Length: 0x5") + b"x" * 5,
    "line-without-colon": post(b"nonsense", b"Content-Length: 5") + b"hello",
    "space-before-colon": post(b"Content-Length : 5") + b"hello",
    "bare-cr": post(b"A: b\rContent-Length: 5") + b"hello",
    "bare-lf": post(b"A: b\nContent-Length: 5") + b"hello",
    "folded-line": post(b"A: b", b" Content-Length: 5") + b"hello",
    "nul": post(b"A: \0"),
    "no-host": post(b"Content-Length: 0", host=b""),
    "two-hosts": post(b"Host: y", b"Content-Length: 0"),
    "broken-target": b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
    "long-head": post(b"A: " + b"b" * 20_000),
    "many-fields": post(*(b"A: b" for _ in range(200))),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
@pytest.mark.parametrize("kept", [False, True], ids=["first", "kept"])
def test_no_request_is_smuggled(cluster: Cluster, name: str, kept: bool) -> None:
    """Neither the request nor what is behind it reaches the application."""
    before = SMUGGLED if kept else b""
    answer = exchange(cluster.port, before + AMBIGUOUS[name] + SMUGGLED)
    status = b"431" if name in ("long-head", "many-fields") else b"400"
    assert answer.count(b"HTTP/1.1 200 ") == kept
    refused = answer[answer.rindex(b"HTTP/1.1 ") :]
    assert refused.startswith(b"HTTP/1.1 " + status) and b"\r\nConnection: close\r\n" in refused
    assert answer.count(b"HTTP/1.1 ") == 1 + kept


def flood(port: int, data: bytes, count: int) -> None:
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
            with contextlib.suppress(OSError):  # it may not even be connected any more
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass


UPGRADE = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
)
NO_REQUEST: dict[str, bytes] = {
    # First: engineio tells of the first session that it does not know.
    "session-with-line-end": b"GET /socket.io/?EIO=4&transport=polling&sid=a%0Ab%1B[m HTTP/1.1\r\n"
    b"Host: x\r\nConnection: close\r\n\r\n",
    "broken-url": b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
    "broken-address": b"GET http://[::1]x/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "upgrade-without-key": UPGRADE + b"Upgrade: websocket\r\n\r\n",
    "upgrade-with-a-key-that-is-not-ascii": UPGRADE
    + b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: \xe9\r\n\r\n",
    "upgrade-to-something-else": UPGRADE + b"Upgrade: nonsense\r\n\r\n",
    "upgrade-without-a-protocol": UPGRADE + b"Upgrade:\r\n\r\n",
    "upgrade-without-connection": UPGRADE.replace(b"Connection: Upgrade\r\n", b"")
    + b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    "upgrade-by-post": UPGRADE.replace(b"GET", b"POST")
    + b"Upgrade: websocket\r\nContent-Length: 2\r\n\r\n40",
    "upgrade-in-1.0": UPGRADE.replace(b"1.1", b"1.0") + b"Upgrade: websocket\r\n\r\n",
    "upgrade-with-a-body": UPGRADE
    + b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nContent-Length: 5\r\n"
    + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nhello",
    "length-of-5,000-digits": post(b"Content-Length: " + b"1" * 5000),
    "no-chunks": post(b"Transfer-Encoding: chunked").replace(b"/pid", b"/upload") + b"zz\r\n",
    "unknown-version": b"GET /socket.io/?EIO=x&transport=polling HTTP/1.1\r\n"
    b"Host: x\r\nConnection: close\r\n\r\n",
    "unknown-transport": b"GET /socket.io/?EIO=4&transport=\0%00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "jsonp-with-letters": b"GET /socket.io/?EIO=4&transport=polling&j=%0Ax HTTP/1.1\r\n"
    b"Host: x\r\nConnection: close\r\n\r\n",
    "origin-with-escape": b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n"
    b"Origin: http://a\x9b31m\r\nConnection: close\r\n\r\n",
}


@pytest.mark.parametrize("name", NO_REQUEST)
def test_a_bad_request_costs_no_traceback_and_few_lines(cluster: Cluster, name: str) -> None:
    began = time.monotonic()
    with log_lines(cluster, "workers_00") as lines:
        flood(cluster.port, NO_REQUEST[name], 50)
        assert lines() < 10 + time.monotonic() - began
    log = cluster.log("workers_00")
    assert "Traceback" not in log
    assert log.replace("\n", "").isprintable(), "what a client sent came into the log as it was"
