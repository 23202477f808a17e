from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any, Awaitable, Callable

import pytest

from supervisor_sio.common import reasons
from supervisor_sio.common.descriptors import limit
from supervisor_sio.common.refusals import Refusals
from supervisor_sio.router import acceptor
from supervisor_sio.router.acceptor import Acceptor


class Harness:
    def __init__(self) -> None:
        self.refusals = Refusals(logging.getLogger("test"))
        self.accepted: list[tuple[socket.socket, Any, Any]] = []
        self.clients: list[socket.socket] = []
        self.ceiling = limit() - 50
        self.taken = 0
        self.due = 0
        self.acceptor = self.make()

    def make(self, **options: Any) -> Acceptor:
        known: dict[str, Any] = dict(
            refusals=self.refusals,
            accepted=lambda *arguments: self.accepted.append(arguments),
            ceiling=lambda: self.ceiling,
            taken=lambda: self.taken,
            due=lambda: self.due,
        )
        self.acceptor = Acceptor(**{**known, **options})
        return self.acceptor

    def listen(self, path: str = "") -> Any:
        sock = socket.socket(socket.AF_UNIX if path else socket.AF_INET, socket.SOCK_STREAM)
        sock.bind(path or ("127.0.0.1", 0))
        sock.listen(1000)
        self.address = sock.getsockname()
        self.acceptor.listen([sock])
        return self.address

    def connect(self, count: int = 1) -> None:
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        for _ in range(count):
            client = socket.socket(family, socket.SOCK_STREAM)
            client.connect(self.address)
            self.clients.append(client)

    async def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)

    def close(self) -> None:
        self.acceptor.close()
        for sock in [*self.clients, *(sock for sock, _, _ in self.accepted)]:
            sock.close()


@pytest.fixture
def run() -> Callable[[Callable[[Harness], Awaitable[None]]], None]:
    def run(scenario: Callable[[Harness], Awaitable[None]]) -> None:
        async def main() -> None:
            harness = Harness()
            try:
                await scenario(harness)
            finally:
                harness.close()

        asyncio.run(main())

    return run


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record each search for the lowest free descriptor."""
    looked: list[int] = []

    def look(descriptor: int) -> int:
        looked.append(descriptor)
        return lowest_free(descriptor)

    lowest_free = acceptor.lowest_free
    monkeypatch.setattr(acceptor, "lowest_free", look)
    return looked


Run = Callable[[Callable[[Harness], Awaitable[None]]], None]


def test_each_connection_comes_with_its_addresses(run: Run, tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        local = harness.listen()
        harness.connect(200)
        await harness.until(lambda: len(harness.accepted) == 200)
        known = {client.getsockname(): client for client in harness.clients}
        for sock, peer, own in harness.accepted:
            assert own == local and sock.family == socket.AF_INET
            known.pop(peer).sendall(b"x")
            assert sock.recv(1) == b"x"
        assert not known

    run(scenario)

    async def unix(harness: Harness) -> None:
        harness.listen(str(tmp_path / "s"))
        harness.connect()
        await harness.until(lambda: harness.accepted)
        sock, peer, own = harness.accepted[0]
        assert (sock.family, peer, own) == (socket.AF_UNIX, "", str(tmp_path / "s"))

    run(unix)


def test_no_descriptor_is_looked_for_while_many_are_free(run: Run, looks: list[int]) -> None:
    async def scenario(harness: Harness) -> None:
        harness.listen()
        harness.connect(100)
        await harness.until(lambda: len(harness.accepted) == 100)
        assert not looks
        harness.taken = harness.ceiling - 100  # with the reserve and a batch, too many
        harness.connect(5)
        await harness.until(lambda: len(harness.accepted) == 105)
        assert len(looks) >= 5

    run(scenario)


def test_how_many_clients_have_may_be_unknown(run: Run, looks: list[int]) -> None:
    async def scenario(harness: Harness) -> None:
        harness.make(taken=None)
        harness.listen()
        harness.connect(5)
        await harness.until(lambda: len(harness.accepted) == 5)
        assert len(looks) >= 5

    run(scenario)


def test_connections_wait_in_the_kernel_while_clients_have_all_descriptors(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(harness: Harness) -> None:
        harness.make(taken=None)
        harness.listen()
        harness.connect(10)
        gc.collect()  # what an earlier test has left must not close in between
        free = [os.dup(0) for _ in range(6)]  # others may lie between them
        for descriptor in free:
            os.close(descriptor)
        harness.ceiling, harness.due = free[5] + 2, 2  # two are spoken for
        await harness.until(lambda: len(harness.accepted) == 5)
        assert f"all {harness.ceiling} descriptors" in caplog.text
        await asyncio.sleep(2.5 * acceptor._PAUSE)
        assert len(harness.accepted) == 5 and not harness.refusals.by_reason
        assert caplog.text.count("wait in the kernel") == 1
        harness.accepted[0][0].close()
        harness.accepted[1][0].close()
        await harness.until(lambda: len(harness.accepted) == 7)
        harness.ceiling = sys.maxsize
        await harness.until(lambda: len(harness.accepted) == 10)

    run(scenario)


def test_the_limit_is_looked_at_again(run: Run, looks: list[int]) -> None:
    async def scenario(harness: Harness) -> None:
        harness.listen()
        harness.connect()
        await harness.until(lambda: harness.accepted)
        harness.ceiling = 0
        await asyncio.sleep(acceptor._LOOK)
        harness.connect()
        await harness.until(lambda: looks)
        assert len(harness.accepted) == 1

    run(scenario)


def test_accept_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [
        ConnectionAbortedError(errno.ECONNABORTED, "it was reset"),
        OSError(errno.ENFILE, "Too many open files in system"),
    ]
    accept = socket.socket.accept
    called: list[float] = []

    def failing(listener: socket.socket) -> Any:
        called.append(time.monotonic())
        if errors:
            raise errors.pop(0)
        return accept(listener)

    async def scenario(harness: Harness) -> None:
        monkeypatch.setattr(socket.socket, "accept", failing)
        harness.listen()
        harness.connect()
        await harness.until(lambda: not errors)
        assert harness.refusals.by_reason == {reasons.ACCEPT_FAILED: 1}
        await harness.until(lambda: harness.accepted)
        assert called[2] - called[1] > 0.9 * acceptor._PAUSE

    run(scenario)


def test_one_that_pauses_is_closed(run: Run) -> None:
    async def scenario(harness: Harness) -> None:
        harness.ceiling = 0
        harness.listen()
        harness.connect()
        await asyncio.sleep(acceptor._PAUSE / 2)
        harness.acceptor.close()
        await asyncio.sleep(1.5 * acceptor._PAUSE)
        assert not harness.accepted

    run(scenario)
