"""A watch is cancelled before its descriptor is closed, as an asyncio loop requires."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import eventlet
import pytest

from supervisor_sio.worker.connection import Connection
from supervisor_sio.worker.eventlet.runtime import HubRuntime
from supervisor_sio.worker.server import Server
from unit.worker.turns import let_run

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Runtime(HubRuntime):
    """Records which descriptors are watched."""

    def __init__(self) -> None:
        super().__init__()
        self.watched: list[int] = []
        self.watches: list[Any] = []

    def add_reader(self, descriptor: int, *args: Any) -> Any:
        return self._note(descriptor, super().add_reader(descriptor, *args))

    def add_writer(self, descriptor: int, *args: Any) -> Any:
        return self._note(descriptor, super().add_writer(descriptor, *args))

    def _note(self, descriptor: int, watch: Any) -> Any:
        runtime = self
        runtime.watched.append(descriptor)

        class Noted:
            def cancel(self) -> None:
                if self in noted:
                    noted.remove(self)
                    runtime.watched.remove(descriptor)
                    watch.cancel()

        noted = [Noted()]
        self.watches.append(noted[0])
        return noted[0]

    def serve(self, connection: Connection, head: Any) -> None:
        pass


class Socket(socket.socket):
    """Reports which watches exist when it is closed."""

    runtime: Runtime
    watched_at_end: list[int]

    def close(self) -> None:
        if self.fileno() >= 0:
            self.watched_at_end.append(self.runtime.watched.count(self.fileno()))
        super().close()


class World:
    def __init__(self) -> None:
        self.runtime = Runtime()
        self.keeps = True
        self.server = Server(
            None, self.runtime, lambda _: self.keeps, lambda c, _: c.moved(True), lambda: None
        )
        self.server.paths = (b"/socket.io/",)
        ours, self.client = socket.socketpair()
        self.sock = Socket(fileno=ours.detach())
        self.sock.runtime, self.sock.watched_at_end = self.runtime, []
        self.sock.setblocking(False)
        self.connection = Connection(self.server, self.sock, ("a", 1), ("b", 2), placed=False)
        self.connection.open()

    def send(self, data: bytes) -> None:
        self.client.send(data)
        let_run(0.01)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.connection.end()
    made.client.close()
    for watch in made.runtime.watches:  # the next test may get the same descriptor
        watch.cancel()


def lose(world: World) -> None:
    world.client.close()
    let_run(0.01)


def hand_back(world: World) -> None:
    world.keeps = False
    world.send(GET)


def fall_behind(world: World) -> None:
    """Send a response that the client does not read."""
    world.send(GET)
    world.connection.answer(b"x" * 10_000_000)
    assert world.runtime.watched.count(world.sock.fileno()) >= 1
    world.connection.end()


def fail(world: World) -> None:
    world.connection.failed(ValueError("a mistake"))


def be_too_slow(world: World) -> None:
    world.connection.on_deadline(0.0)


def linger(world: World) -> None:
    """Continue until the client has the last response."""
    world.send(b"nonsense\r\n\r\nmore")
    with contextlib.suppress(OSError):
        world.client.shutdown(socket.SHUT_WR)
    let_run(0.01)


@pytest.mark.parametrize("end", [lose, hand_back, fall_behind, fail, be_too_slow, linger])
def test_nothing_is_watched_of_what_is_closed(world: World, end: Callable[[World], None]) -> None:
    end(world)
    with eventlet.Timeout(20):
        while not world.connection.ended:
            eventlet.sleep(0.005)
    assert world.sock.watched_at_end == [0]


def test_in_a_forked_child_the_watches_stay_for_the_parent(world: World) -> None:
    before = list(world.runtime.watched)
    world.connection.abandon()
    assert world.runtime.watched == before != []
