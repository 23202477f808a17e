"""Who waits while there is no worker, with socket pairs for clients."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable

import pytest

from supervisor_sio.common import reasons
from supervisor_sio.common.limits import REBALANCE_START
from supervisor_sio.common.request import Kind
from supervisor_sio.router import placement
from supervisor_sio.router.connection import Connection
from supervisor_sio.router.placement import Placement
from supervisor_sio.router.pool import Member, Pool
from supervisor_sio.settings import BALANCE_METHODS

REQUEST = b"GET /socket.io/ HTTP/1.1\r\n\r\n"

Pair = tuple[socket.socket, socket.socket]


def unix_pair() -> Pair:
    return socket.socketpair()


def tcp_pair() -> Pair:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]


class Harness:
    """A placement of four connections, which records what happens to them."""

    def __init__(self) -> None:
        self.pool = Pool("least-connection")
        self.placement = Placement(self.pool, 30, 4)
        self.placement.entrance = self
        self.log: list[tuple[str, str]] = []
        self.names: dict[Connection, str] = {}
        self.clients: dict[str, socket.socket] = {}

    def refuse(self, connection: Connection, reason: str) -> None:
        assert reasons.TABLE[reason].answer == "503 Service Unavailable"
        self.log.append((self.names[connection], f"503 {reason}"))
        connection.sock.close()

    def drop(self, connection: Connection, reason: str) -> None:
        self.log.append((self.names[connection], reason))
        connection.sock.close()

    def examine_again(self, connection: Connection) -> None:
        self.log.append((self.names[connection], "examined"))

    def hand_over(self, connection: Connection) -> bool:
        """Stands for a channel to a worker, which may be full or lost."""
        if self.room == 0:
            self.member.busy = True
            return False
        if self.room < 0:
            self.placement.leave(self.member, self)
            return False
        self.room -= 1
        self.log.append((self.names[connection], "placed"))
        connection.sock.close()
        return True

    def place(
        self,
        names: str,
        make_pair: Callable[[], Pair] = unix_pair,
        kind: object = Kind.HANDSHAKE,
        address: str = "",
        tag: str = "",
    ) -> None:
        for name in names:
            self.clients[name], sock = make_pair()
            if kind is not None:
                self.clients[name].sendall(REQUEST)
            connection = Connection(sock, (address, 1) if address else None, None, "http")
            connection.kind = Kind.SESSION if tag else kind  # type: ignore[assignment]
            connection.tag = tag
            self.names[connection] = name
            self.placement.place(connection)

    def news(self) -> list[tuple[str, str]]:
        news, self.log = self.log, []
        return news

    def start_worker(self, room: int = 100) -> None:
        """:param room: connections that it takes until it is busy; it is lost below 0."""
        self.room = room
        self.member = Member("a", "worker", 1, ready=True)
        self.placement.join(self.member, self)
        self.placement.place_held()

    def read(self, room: int) -> None:
        """Let the worker read what it was sent."""
        self.room, self.member.busy = room, False
        self.placement.resume(self.member)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture
def harness(loop: asyncio.AbstractEventLoop) -> Harness:

    async def make() -> Harness:
        return Harness()

    return loop.run_until_complete(make())


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


def test_the_request_of_an_idle_connection_is_read(
    harness: Harness, loop: asyncio.AbstractEventLoop
) -> None:
    """It may be for a worker that drains; otherwise it waits for a worker that takes sessions."""

    async def turns() -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    with nothing(harness):
        harness.place("abc", kind=None)
        harness.place("d")
        loop.run_until_complete(turns())
    harness.clients["b"].sendall(REQUEST)
    loop.run_until_complete(turns())
    assert harness.news() == [("b", "examined")]
    assert len(harness.placement) == 3
    (first,) = (one for one, name in harness.names.items() if name == "a")
    at_the_worker = first.sock.dup()
    harness.start_worker(room=2)
    assert harness.news() == [("d", "placed"), ("a", "placed")]
    with at_the_worker, nothing(harness):  # which reads it
        harness.clients["a"].sendall(REQUEST)
        loop.run_until_complete(turns())
    harness.clients["c"].sendall(REQUEST)
    loop.run_until_complete(turns())
    assert harness.news() == [("c", "examined")]
    assert not len(harness.placement)


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
    assert harness.placement.make_room("") and harness.news() == [("c", "idle")]
    assert not harness.placement.make_room("") and not harness.news()
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


def test_one_address_gives_way_to_others(harness: Harness) -> None:
    """One address may use all places, but loses the newest beyond its share when others come."""
    with nothing(harness):
        harness.place("abcd", address="10.0.0.1")
    harness.place("e", address="10.0.0.1")
    assert harness.news() == [("e", "503 max-pending")]
    harness.place("f", address="10.0.0.2")
    assert harness.news() == [("d", "503 address-share")]
    harness.place("g", address="10.0.0.3")
    harness.place("h", address="10.0.0.3")
    assert harness.news() == [("c", "503 address-share"), ("h", "503 max-pending")]
    assert harness.placement.make_room("10.0.0.4")
    assert harness.news() == [("b", "503 address-share")]
    assert not harness.placement.make_room("10.0.0.4")  # one each is everybody's share
    harness.start_worker()
    assert harness.news() == [(name, "placed") for name in "afg"]


def test_requests_for_a_hung_worker_wait_counted_and_bounded(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "_LOOK", 0.0)
    harness.start_worker()
    harness.member.hung = True
    harness.place("a", tag="a")
    harness.place("b", tag="a")
    assert harness.news() == [("b", "503 worker-share")] and len(harness.placement) == 1
    harness.clients["a"].close()
    harness.placement.tick()
    assert harness.news() == [("a", "closed-early")] and not len(harness.placement)
    harness.place("c", tag="a")
    harness.member.hung = False
    harness.placement.ready(harness.member)
    assert harness.news() == [("c", "placed")]


def test_a_full_channel_makes_requests_wait(harness: Harness) -> None:
    harness.start_worker(room=1)
    harness.place("abc")
    harness.place("d", tag="a")
    assert harness.news() == [("a", "placed")] and len(harness.placement) == 3
    harness.read(room=2)
    assert harness.news() == [("d", "placed"), ("b", "placed")]
    harness.read(room=9)
    assert harness.news() == [("c", "placed")] and not len(harness.placement)


def test_nobody_waits_longer_than_the_time_for_it(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.start_worker()
    harness.member.hung = True
    harness.place("a", tag="a")
    harness.place("b", kind=None)
    harness.placement.tick()
    assert not harness.news()
    now = placement.time.monotonic()
    monkeypatch.setattr(placement.time, "monotonic", lambda: now + 31)
    harness.placement.tick()
    assert sorted(harness.news()) == [("a", "503 hold-timeout"), ("b", "hold-timeout")]


def test_a_lost_workers_requests_go_to_another(harness: Harness) -> None:
    harness.start_worker(room=0)
    harness.place("a", tag="a")
    harness.place("b")
    harness.placement._started -= 10  # a router that is not new any more
    harness.placement.leave(harness.member, harness)
    assert not harness.news()
    harness.start_worker()
    assert harness.news() == [("b", "placed"), ("a", "placed")]


def test_hundreds_of_workers_that_die_together(harness: Harness) -> None:
    class Dead:
        """A channel to a worker that turns out to be lost when it is used."""

        def __init__(self, tag: str) -> None:
            self.member = Member(tag, tag, 1, ready=True)
            harness.placement.join(self.member, self)

        def hand_over(self, connection: Connection) -> bool:
            harness.placement.leave(self.member, self)
            return False

    for number in range(2000):
        Dead(str(number))
    with nothing(harness):
        harness.place("a")
        assert not list(harness.pool)
    harness.start_worker()
    assert harness.news() == [("a", "placed")]


class Worker:
    """A worker that accepts every connection."""

    def __init__(self, harness: Harness, name: str) -> None:
        self.harness = harness
        self.member = Member(name, name, 1, ready=True)
        self.names: list[str] = []

    def hand_over(self, connection: Connection) -> bool:
        self.names.append(self.harness.names[connection])
        connection.sock.close()
        if connection.kind is Kind.HANDSHAKE:
            self.member.handshakes += 1
        return True

    def start(self) -> Worker:
        self.harness.placement.join(self.member, self)
        self.harness.placement.ready(self.member)
        return self


def starting(harness: Harness, *names: str) -> list[Worker]:
    for name in names:
        harness.placement.starting(name)
    return [Worker(harness, name) for name in names]


@pytest.mark.parametrize("method", BALANCE_METHODS)
def test_who_waits_is_spread_over_all_workers_that_start(harness: Harness, method: str) -> None:
    harness.pool.method = method
    harness.placement._max_pending, harness.placement._spread_timeout = 99, 60
    harness.place("abcdefgh")
    one, two, three, fails = starting(harness, "one", "two", "three", "fails")
    assert one.start().names == ["a", "b"]  # at once
    assert two.start().names == ["c", "d"]
    harness.place("i")
    assert (one.names, two.names) == (["a", "b"], ["c", "d"])
    harness.placement.not_starting("fails")
    assert sorted(one.names + two.names) == list("abcdef")
    assert three.start().names == list("ghi")
    harness.placement.tick()
    assert not (len(harness.placement) or harness.placement._spreading.on)


def test_nobody_is_waited_for_longer_than_that(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        harness.placement._spread_timeout = 0.05
        harness.place("abcd")
        (one, slow, slower) = starting(harness, "one", "slow", "slower")
        began = time.monotonic()
        assert one.start().names == ["a"]
        harness.placement.tick()  # which says nothing of those who wait for the others
        while len(harness.placement):
            assert time.monotonic() - began < 20
            await asyncio.sleep(0.01)
        assert time.monotonic() - began >= 0.05
        assert one.names == list("abcd")
        harness.place("ef")
        assert one.names == list("abcdef")
        slow.start()
        harness.place("ghi")
        assert slow.names == list("ghi")  # which has fewest

    harness.placement._loop.run_until_complete(scenario())
    assert not caplog.messages


def test_who_has_waited_too_long_goes_to_one_that_is_there(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.placement._spread_timeout = 60
    harness.place("ab")
    one, _ = starting(harness, "one", "slow")
    assert one.start().names == ["a"]
    now = placement.time.monotonic()
    monkeypatch.setattr(placement.time, "monotonic", lambda: now + 31)
    harness.placement.tick()
    assert one.names == ["a", "b"]
    assert not harness.news()


def test_what_opens_no_session_need_not_be_spread(harness: Harness) -> None:
    harness.placement._spread_timeout = 60
    harness.place("ab")
    harness.place("c", kind=Kind.PLAIN)
    harness.place("d", kind=None)
    one, _ = starting(harness, "one", "slow")
    assert one.start().names == ["a", "c", "d"]
    harness.place("e", kind=Kind.PLAIN)
    assert one.names == ["a", "c", "d", "e"]


@pytest.mark.parametrize("timeout", [0, 60])
def test_without_others_that_start_nobody_waits(harness: Harness, timeout: float) -> None:
    harness.placement._spread_timeout = timeout
    harness.place("ab")
    (one, *_) = starting(harness, *("one", "slow") if not timeout else ("one",))
    assert one.start().names == ["a", "b"]


@pytest.mark.parametrize(
    ("takes", "draining", "seconds", "waits"),
    [
        (0, True, 0, True),
        (1, True, 0, False),  # its clients stay, and are another's for a while
        (0, False, 0, False),  # it has died, and may do so again
        (0, True, 5.5, False),  # they have come back to others by now
    ],
)
def test_clients_of_a_stopped_worker_wait_for_the_next_one_of_its_name(
    harness: Harness,
    monkeypatch: pytest.MonkeyPatch,
    takes: int,
    draining: bool,
    seconds: float,
    waits: bool,
) -> None:
    harness.placement._max_pending = 99
    one, two = Worker(harness, "one").start(), Worker(harness, "two").start()
    harness.place("abcd")
    assert (one.names, two.names) == (["b", "d"], ["a", "c"])
    two.member.takes, two.member.draining = takes, draining
    harness.placement.leave(two.member, two)
    now = placement.time.monotonic()
    monkeypatch.setattr(placement.time, "monotonic", lambda: now + seconds)
    harness.placement._spread_timeout = 60
    (again,) = starting(harness, "two")
    harness.place("ac")
    assert again.start().names == (["a", "c"] if waits else [])


def test_workers_that_all_end_while_others_start(harness: Harness) -> None:
    harness.placement._spread_timeout = 60
    harness.place("abcd")
    one, two = starting(harness, "one", "two")
    assert one.start().names == ["a", "b"]
    harness.placement.leave(one.member, one)
    # Those that it had are gone with it.
    assert two.start().names == ["c", "d"]


def test_nobody_is_there_and_nobody_starts_while_they_are_spread(harness: Harness) -> None:
    harness.placement._spread_timeout = 60
    harness.place("abcd")
    one, two = starting(harness, "one", "two")
    assert one.start().names == ["a", "b"]
    harness.placement.leave(one.member, one)
    harness.placement.not_starting("two")
    harness.place("e")
    harness.placement.tick()
    assert len(harness.placement) == 3
    (three,) = starting(harness, "three")
    assert three.start().names == ["c", "d", "e"]


def test_who_comes_later_is_behind_those_who_wait(harness: Harness) -> None:
    harness.placement._spread_timeout = 60
    harness.place("abc")
    one, two, three = starting(harness, "one", "two", "three")
    assert one.start().names == ["a"] and two.start().names == ["b"]
    harness.place("defg")
    assert sorted(one.names + two.names) == list("abcd")
    assert three.start().names == ["e", "f"]  # and one of the others has the third one


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ("a", "1 connection waits: no worker can take it"),
        ("ab", "2 connections wait: no worker can take them"),
    ],
)
def test_who_waits_is_told(
    harness: Harness, caplog: pytest.LogCaptureFixture, names: str, line: str
) -> None:
    harness.place(names)
    harness.placement.tick()
    assert caplog.messages == [line]


def test_workers_that_are_about_to_be_there(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert harness.placement.expected == []
    harness.placement.starting("slow")
    assert harness.placement.expected == ["slow"]
    harness.placement.not_starting("slow")
    harness.start_worker()
    harness.member.draining = True
    harness.placement.leave(harness.member, harness)
    assert harness.placement.expected == ["worker"], "it may be about to be started again"
    harness.start_worker()
    assert harness.placement.expected == []
    harness.placement.leave(harness.member, harness)
    monkeypatch.setattr(placement, "_RESTART", 0.0)
    assert harness.placement.expected == [], "it stays stopped"


def test_a_worker_that_is_never_ready_is_not_expected_for_ever(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.monotonic()
    harness.placement.starting("stuck")
    for seconds, expected in ((REBALANCE_START - 1, ["stuck"]), (REBALANCE_START + 1, [])):
        monkeypatch.setattr(time, "monotonic", lambda seconds=seconds: began + seconds)
        assert harness.placement.expected == expected
    harness.placement.starting("stuck")
    assert harness.placement.expected == ["stuck"], "it has been started again"
