"""Connections that wait, in a socket pair that outlives their router."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from supervisor_sio.common import channel
from supervisor_sio.common.request import Kind
from supervisor_sio.router import placement
from supervisor_sio.router.connection import Connection
from supervisor_sio.router.placement import Placement
from supervisor_sio.router.pool import Member, Pool
from supervisor_sio.router.shelf import Shelf

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
    with a, b:
        yield a, b


def connection(number: int = 0, **known: Any) -> tuple[socket.socket, Connection]:
    client, sock = socket.socketpair()
    made = Connection(sock, (f"10.0.0.{number % 250}", number), ("::1", 80, 0, 0), "http", b"\0G")
    made.kind, made.tag, made.deadline = Kind.SESSION, f"tag-{number}", 1000.5 + number
    for name, value in known.items():
        setattr(made, name, value)
    return client, made


def test_the_next_router_finds_all_that_is_known_of_them(
    pair: Pair, no_leak: Callable[[], AbstractContextManager[None]]
) -> None:
    with no_leak():
        made = [connection(number) for number in range(600)]
        made.append(connection(kind=None, proxy_header_due=True, peer="@name", prefix=b""))
        Shelf(*pair).keep(connection for _, connection in made)
        for _, kept in made:
            kept.sock.close()  # as a process that is killed does
        found = Shelf(*pair).take()
        assert len(found) == len(made)
        for (client, old), (new, deadline) in zip(made, found):
            for name in ("kind", "tag", "scheme", "prefix", "proxy_header_due"):
                assert getattr(new, name) == getattr(old, name)
            assert tuple(new.peer) == tuple(old.peer) and deadline == old.deadline
            client.sendall(b"x")
            assert new.sock.recv(1) == b"x"
            client.close()
            new.sock.close()
        assert Shelf(*pair).take() == []


def test_only_those_who_wait_now_are_kept(pair: Pair) -> None:
    shelf = Shelf(*pair)
    (one, first), (two, second) = connection(1), connection(2)
    shelf.keep([first])
    shelf.keep([second])
    first.sock.close()
    assert one.recv(1) == b""  # nobody has it open
    second.sock.close()
    two.setblocking(False)
    with pytest.raises(BlockingIOError):
        two.recv(1)
    shelf.clear()
    assert two.recv(1) == b""
    one.close()
    two.close()


def test_what_cannot_be_kept_is_left_out(pair: Pair) -> None:
    shelf = Shelf(*pair)
    made = [
        connection(1, peer=b"bytes"),
        connection(2, prefix=b"x" * 20_000),
        connection(3),
    ]
    shelf.keep(kept for _, kept in made)
    channel.send(pair[0], {"type": "kept", "rows": [["of", "another", "version"]]})
    with pytest.raises(BlockingIOError):
        for _ in range(10_000):
            channel.send(pair[0], {"type": "kept", "rows": None})
    ((found, _),) = Shelf(*pair).take()
    assert found.tag == "tag-3"
    found.sock.close()
    for client, kept in made:
        client.close()
        kept.sock.close()


def test_more_than_the_kernel_has_room_for(pair: Pair) -> None:
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 40_000)
    made = [connection(number) for number in range(1500)]
    Shelf(*pair).keep(kept for _, kept in made)
    found = Shelf(*pair).take()
    assert 200 < len(found) < 1500
    assert [kept.tag for kept, _ in found] == [f"tag-{number}" for number in range(len(found))]
    for kept, _ in found:
        kept.sock.close()
    for client, kept in made:
        client.close()
        kept.sock.close()


@pytest.mark.parametrize(
    "number, reason",
    [
        (errno.ETOOMANYREFS, "raise the hard limit of open files"),
        (errno.EAGAIN, "raise net.core.wmem_max"),
        (errno.EPIPE, "Broken pipe"),
    ],
)
def test_who_is_not_safe_is_told(
    pair: Pair,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
    reason: str,
) -> None:
    send, made = channel.send, [connection(number) for number in range(300)]

    def send_one(*args: Any) -> None:
        if shelf._messages:
            raise OSError(number, os.strerror(number))
        send(*args)

    monkeypatch.setattr(channel, "send", send_one)
    shelf = Shelf(*pair)
    for _ in range(3):
        shelf.keep(kept for _, kept in made)
    (line,) = caplog.messages
    assert line.startswith("47 of 300 connections that wait are lost if this process is killed: ")
    assert reason in line
    shelf.clear()
    for client, kept in made:
        client.close()
        kept.sock.close()


class Carrier:
    """A worker that accepts ``room`` connections, and checks the shelf each time."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.member = Member("a", "worker", 1, ready=True)
        self.room = 0
        self.found: list[int] = []

    def hand_over(self, connection: Connection) -> bool:
        self.found.append(len(Shelf(*self.pair).take()))
        if not self.room:
            self.member.busy = True
            return False
        self.room -= 1
        connection.sock.close()
        return True


def test_nobody_is_kept_whom_a_worker_has(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "_KEEP_INTERVAL", 0.02)

    async def scenario() -> None:
        shelf = Shelf(*pair)
        placed = Placement(Pool("round-robin"), 30, 100, shelf)
        made = [connection(number, kind=Kind.HANDSHAKE) for number in range(10)]
        for _, waits in made:
            placed.place(waits)
        await asyncio.sleep(0.1)
        placed.tick()
        assert shelf._messages
        carrier = Carrier(pair)
        carrier.room = 4
        placed.join(carrier.member, carrier)
        placed.ready(carrier.member)
        await asyncio.sleep(0.6)  # it settles
        assert carrier.found == [0] * 5 and len(placed) == 6
        # Those who wait on are safe again, until this router leaves them to the next.
        assert [kept.peer[1] for kept, _ in Shelf(*pair).take()] == list(range(4, 10))
        left = placed.release()
        assert len(left) == 6 and not len(placed)
        shelf.keep(left)
        await asyncio.sleep(0.1)
        found = Shelf(*pair).take()
        assert len(found) == 6
        for client, _ in made:
            client.close()
        for waited in [*left, *(kept for kept, _ in found)]:
            waited.sock.close()

    asyncio.run(scenario())
