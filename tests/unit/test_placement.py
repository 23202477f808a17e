"""Who waits while there is no worker, with socket pairs for clients."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable

import pytest

from supervisor_sio.request import Kind
from supervisor_sio.router import placement
from supervisor_sio.router.connection import Connection
from supervisor_sio.router.placement import Placement
from supervisor_sio.router.pool import Member, Pool

Pair = tuple[socket.socket, socket.socket]


def unix_pair() -> Pair:
    return socket.socketpair()


def tcp_pair() -> Pair:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]


class Harness:
    """A placement for four, and what becomes of connections."""

    def __init__(self) -> None:
        self.placement = Placement(Pool("least-connection"), 30, 4)
        self.placement.refuser = self
        self.log: list[tuple[str, str]] = []
        self.names: dict[Connection, str] = {}
        self.clients: dict[str, socket.socket] = {}

    def refuse(self, connection: Connection, status: str, reason: str) -> None:
        assert status == "503 Service Unavailable"
        self.log.append((self.names[connection], f"503 {reason}"))
        connection.sock.close()

    def drop(self, connection: Connection, reason: str) -> None:
        self.log.append((self.names[connection], reason))
        connection.sock.close()

    def hand_over(self, connection: Connection) -> None:
        self.log.append((self.names[connection], "placed"))
        connection.sock.close()

    def place(
        self, names: str, make_pair: Callable[[], Pair] = unix_pair, kind: object = Kind.HANDSHAKE
    ) -> None:
        for name in names:
            self.clients[name], sock = make_pair()
            self.clients[name].sendall(b"GET /socket.io/ HTTP/1.1\r\n\r\n")
            connection = Connection(sock, None, None, "http")
            connection.kind = kind  # type: ignore[assignment]
            self.names[connection] = name
            self.placement.place(connection)

    def news(self) -> list[tuple[str, str]]:
        news, self.log = self.log, []
        return news

    def start_worker(self) -> None:
        member = Member("a", "worker", 1, ready=True)
        self.placement.join(member, self)
        self.placement.place_held()


@pytest.fixture
def harness() -> Iterator[Harness]:
    loop = asyncio.new_event_loop()

    async def make() -> Harness:
        return Harness()

    yield loop.run_until_complete(make())
    loop.close()


@contextmanager
def nothing(harness: Harness) -> Iterator[None]:
    assert not harness.news()
    yield
    assert not harness.news()


def test_the_full_house(harness: Harness) -> None:
    with nothing(harness):
        harness.place("abcd")
    harness.place("ef")
    assert harness.news() == [("e", "503 max-pending"), ("f", "503 max-pending")]
    assert len(harness.placement) == 4
    harness.start_worker()
    assert harness.news() == [(name, "placed") for name in "abcd"]


def test_requests_come_before_idle_connections(harness: Harness) -> None:
    with nothing(harness):
        harness.place("ab", kind=None)
        harness.place("c")
        harness.place("d", kind=None)
    harness.place("e", kind=None)
    assert harness.news() == [("e", "max-pending")]
    harness.place("fg")
    assert harness.news() == [("a", "idle"), ("b", "idle")]
    harness.place("h")
    assert harness.news() == [("d", "idle")]
    harness.place("i")
    assert harness.news() == [("i", "503 max-pending")]
    harness.start_worker()
    assert harness.news() == [(name, "placed") for name in "cfgh"]


@pytest.mark.parametrize("make_pair", [unix_pair, tcp_pair])
def test_who_has_gone_waits_no_more(
    harness: Harness, make_pair: Callable[[], Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "_LOOK", 0.0)
    with nothing(harness):
        harness.place("abcd", make_pair)
        harness.clients["a"].close()
        harness.clients["c"].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1" + bytes(7))
        harness.clients["c"].close()
    harness.place("ef", make_pair)
    assert harness.news() == [("a", "closed-early"), ("c", "closed-early")]
    harness.place("g", make_pair)
    assert harness.news() == [("g", "503 max-pending")]
    harness.start_worker()
    assert harness.news() == [(name, "placed") for name in "bdef"]


def test_the_entrance_asks_for_room(harness: Harness) -> None:
    harness.place("ab")
    harness.place("c", kind=None)
    assert harness.placement.make_room() and harness.news() == [("c", "idle")]
    assert not harness.placement.make_room() and not harness.news()
    assert len(harness.placement) == 2


def test_one_look_at_all_is_enough_for_a_while(harness: Harness) -> None:
    harness.place("abcd")
    harness.place("e")
    harness.clients["a"].close()
    harness.place("f")
    assert harness.news() == [("e", "503 max-pending"), ("f", "503 max-pending")]


def test_the_end(harness: Harness) -> None:
    with nothing(harness):
        harness.place("a", kind=None)
        harness.place("bc")
    harness.placement.close()
    assert harness.news() == [
        ("b", "503 router-stopping"),
        ("c", "503 router-stopping"),
        ("a", "router-stopping"),
    ]
    harness.place("d")
    assert harness.news() == [("d", "503 router-stopping")] and not len(harness.placement)
