"""Who may wait at the entrance, with socket pairs for clients."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from supervisor_sio.common import reasons
from supervisor_sio.common.refusals import Refusals
from supervisor_sio.common.request import Kind
from supervisor_sio.router.connection import Connection, network_of
from supervisor_sio.router.entrance import Entrance

ORIGIN = "http://page.example"


class Handshakes:
    """A terminator whose handshakes end when the test says so."""

    def __init__(self) -> None:
        self.started: list[tuple[socket.socket, Callable[[socket.socket], None], Any]] = []

    def start(self, *arguments: Any) -> None:
        self.started.append(arguments)  # type: ignore[arg-type]


class Harness:
    def __init__(self, **options: Any) -> None:
        self.refusals = Refusals(logging.getLogger("test"))
        self.placed: list[Connection] = []
        self.clients: list[socket.socket] = []
        self.entrance = Entrance(
            paths=(b"/socket.io/",),
            head_timeout=10,
            refusals=self.refusals,
            place=self.placed.append,
            has_room=lambda network: len(self.entrance) < options["max_pending"],
            waiting=lambda: len(self.entrance),
            ceiling=lambda: sys.maxsize,
            **{"proxy_protocol": False, "terminator": None, **options},
        )
        self.tls = options.get("terminator") is not None
        self.proxied = options.get("proxy_protocol", False)

    def connect(self, address: str, data: bytes) -> socket.socket:
        """Connect a client that has sent this data."""
        client, sock = socket.socketpair()
        client.setblocking(False)
        self.clients.append(client)
        client.sendall(data)
        connection = Connection(sock, (address, 1), None, "http")
        connection.tls_due = self.tls
        connection.proxy_header_due = self.proxied
        self.entrance.examine_again(connection)
        return client


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def handshakes() -> Handshakes:
    return Handshakes()


def run(loop: asyncio.AbstractEventLoop, scenario: Callable[[], None]) -> None:
    async def main() -> None:
        scenario()

    loop.run_until_complete(main())


def test_a_handshake_counts_for_its_address(
    loop: asyncio.AbstractEventLoop, handshakes: Handshakes
) -> None:
    def scenario() -> None:
        harness = Harness(max_pending=8, terminator=handshakes)
        for _ in range(3):
            harness.connect("10.0.0.1", b"\x16")
        assert len(harness.entrance) == len(handshakes.started) == 2
        assert harness.clients[2].recv(100).startswith(b"HTTP/1.1 503 ")
        assert harness.refusals.by_reason == {"address-share": 1}
        harness.connect("10.0.0.2", b"\x16")
        assert len(handshakes.started) == 3
        # One that fails makes room; one that succeeds is in the next stage, and counts there.
        handshakes.started[0][2]()
        harness.connect("10.0.0.1", b"\x16")
        inner, client = socket.socketpair()
        client.sendall(b"G")
        handshakes.started[1][1](inner)
        assert len(handshakes.started) == 4 and len(harness.entrance) == 3
        harness.connect("10.0.0.1", b"\x16")
        assert harness.refusals.by_reason == {"address-share": 2, "tls-handshake": 1}
        client.close()

    run(loop, scenario)


@pytest.mark.parametrize("status", ["400", "503"])
def test_a_page_may_read_why_it_was_refused(loop: asyncio.AbstractEventLoop, status: str) -> None:
    """A refusal has CORS fields for origins that the application allows."""

    def scenario() -> None:
        harness = Harness(max_pending=0 if status == "503" else 8, origins=lambda: {ORIGIN: True})
        line = "GET" if status == "503" else "GET / HTTP/9"
        head = "" if status == "503" else f"\r\nHost: x\r\nOrigin: {ORIGIN}\r\n\r\n"
        harness.connect("10.0.0.1", f"{line}{head}".encode())
        answer = harness.clients[0].recv(1000).decode()
        assert answer.startswith(f"HTTP/1.1 {status} ")
        # Of a request that nobody has room to wait for its origin is not known.
        assert (f"\r\nAccess-Control-Allow-Origin: {ORIGIN}\r\n" in answer) == bool(head)

    run(loop, scenario)


def test_a_page_may_read_that_no_worker_was_there(loop: asyncio.AbstractEventLoop) -> None:
    """The request's head was read before, at once or in parts."""

    def scenario() -> None:
        harness = Harness(max_pending=8, origins=lambda: {ORIGIN: True})
        line = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\n"
        for head in (f"Origin: {ORIGIN}\r\n\r\n", f"X: {'y' * 3000}\r\nOrigin: {ORIGIN}\r\n\r\n"):
            client = harness.connect("10.0.0.1", f"{line}{head}".encode())
            harness.entrance.refuse(harness.placed.pop(), "hold-timeout")
            answer = client.recv(1000).decode()
            assert answer.startswith("HTTP/1.1 503 ")
            assert f"\r\nAccess-Control-Allow-Origin: {ORIGIN}\r\n" in answer

    run(loop, scenario)


@pytest.mark.parametrize(
    "origin, status", [(ORIGIN, "200 OK"), ("http://c.example", "503 Service Unavailable")]
)
def test_a_preflight_is_not_refused(
    loop: asyncio.AbstractEventLoop, origin: str, status: str
) -> None:
    """Otherwise the page could not read why the request that follows is."""

    def scenario() -> None:
        harness = Harness(max_pending=8, origins=lambda: {ORIGIN: True})
        head = (
            "OPTIONS /socket.io/?EIO=4&transport=polling HTTP/1.1\r\n"
            f"Origin: {origin}\r\nAccess-Control-Request-Method: GET\r\n"
            "Access-Control-Request-Headers: authorization\r\n\r\n"
        )
        client = harness.connect("10.0.0.1", head.encode())
        harness.entrance.refuse(harness.placed.pop(), "hold-timeout")
        answer = client.recv(1000).decode()
        assert answer.startswith(f"HTTP/1.1 {status}\r\n")
        accepted = "\r\nAccess-Control-Allow-Headers: authorization\r\n" in answer
        assert accepted == (origin == ORIGIN) != ("\r\nRetry-After: " in answer)
        assert harness.refusals.by_reason == {"hold-timeout": 1}

    run(loop, scenario)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:DB8:1:2::", "2001:db8:1:2::"),
        ("2001:db8:1:3:3:4:5:6", "2001:db8:1:3::"),
        ("fe80::1%eth0", "fe80::"),
        ("::1", "::"),
        ("", ""),
        ("no address\0", "no address\0"),
    ],
)
def test_networks(address: str, network: str) -> None:
    assert network_of(address) == network


def test_one_network_of_ipv6_has_one_share(loop: asyncio.AbstractEventLoop) -> None:
    def scenario() -> None:
        harness = Harness(max_pending=8)
        for number in range(6):
            harness.connect(f"2001:db8::{number}", b"G")
        assert len(harness.entrance) == 2
        harness.connect("2001:db8:0:1::1", b"G")
        harness.connect("::ffff:10.1.2.3", b"G")
        harness.connect("10.1.2.3", b"G")
        harness.connect("10.1.2.3", b"G")
        assert len(harness.entrance) == 5
        assert harness.refusals.by_reason == {"address-share": 5}

    run(loop, scenario)


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def test_a_request_in_pieces(loop: asyncio.AbstractEventLoop) -> None:
    async def main() -> None:
        harness = Harness(max_pending=8)
        client = harness.connect("10.0.0.1", b"GET /socket.io/?E")
        other = harness.connect("10.0.0.2", b"")
        assert len(harness.entrance) == 2 and not harness.placed
        client.sendall(b"IO=4 HTTP/1.1\r\nHost: x")
        other.close()
        await until(lambda: harness.placed and not len(harness.entrance))
        (connection,) = harness.placed
        assert connection.kind is Kind.HANDSHAKE and connection.address == "10.0.0.1"
        assert connection.prefix == b"GET /socket.io/?EIO=4 HTTP/1.1\r\nHost: x"
        assert harness.refusals.by_reason == {reasons.CLOSED_EARLY: 1}

    loop.run_until_complete(main())


def test_an_address_that_the_proxy_names_has_the_share(loop: asyncio.AbstractEventLoop) -> None:
    def scenario() -> None:
        harness = Harness(max_pending=8, proxy_protocol=True)
        header = b"PROXY TCP4 192.0.2.%d 192.0.2.9 1 80\r\n"
        for number in (1, 1, 2):
            client = harness.connect("10.0.0.1", b"P")  # the proxy's own share, so far
            client.sendall(header[1:] % number + b"G")
            (waiting,) = [c for c in harness.entrance._pending.values() if c.proxy_header_due]
            harness.entrance.examine_again(waiting)
        harness.connect("10.0.0.1", header % 1 + b"G")
        assert harness.refusals.by_reason == {reasons.ADDRESS_SHARE: 1}
        assert harness.entrance._by_network == {"192.0.2.1": 2, "192.0.2.2": 1}
        harness.entrance.expire(float("inf"))
        assert not harness.entrance._by_network and not len(harness.entrance)

    run(loop, scenario)


def test_one_that_cannot_be_watched_is_dropped_and_counted(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def scenario() -> None:
        harness = Harness(max_pending=8)
        monkeypatch.setattr(harness.entrance._readable, "add", fail)
        client = harness.connect("10.0.0.1", b"G")
        assert client.recv(1) == b""
        assert harness.refusals.by_reason == {reasons.NO_DESCRIPTOR: 1}
        assert not len(harness.entrance) and not harness.entrance._by_network

    run(loop, scenario)
